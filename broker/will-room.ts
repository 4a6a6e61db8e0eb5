/**
 * Room for the wills of all clients that are connected: Aedes keeps each from CONNECT to the end of its connection. One of usual
 * size is always kept; what is beyond that counts in a sum, so that a fleet of large wills can take that much memory and no more,
 * and nobody with a usual will feels it.
 */
import { LIMITS } from '../model/limits.ts'
import type { Connection } from './connection.ts'

/** Each connection may have so much without asking anybody, bytes of payload. */
const OWN_BYTES = 8 * 1024

export interface WillRoom {
  /** False when there is no room for a will of this payload, bytes: its client is to be refused. */
  take(connection: Connection, bytes: number): boolean
  /** The connection has ended, and its will was given. */
  ended(connection: Connection): void
}

export function openWillRoom(): WillRoom {
  let taken = 0

  return { take, ended }

  function take(connection: Connection, bytes: number): boolean {
    const beyond = Math.max(0, bytes - OWN_BYTES)
    if (taken + beyond > LIMITS.willsBytesMax && beyond > 0) return false
    taken += beyond
    connection.willBytes = beyond
    return true
  }

  function ended(connection: Connection): void {
    taken -= connection.willBytes
    connection.willBytes = 0
  }
}
