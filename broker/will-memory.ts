/**
 * What the wills of all connections keep. A will may be nearly as large as a CONNECT and is kept as long as its connection is open,
 * so twenty thousand idle ones could take more than a gigabyte [G5]. The first 8 KiB of each are its own, and the rest of all
 * shares a sum; a client for whose will there is no room is refused with return code 3, "server unavailable".
 */
import type { ConnectPacket } from 'aedes'
import { LIMITS } from '../model/limits.ts'
import type { Connection } from './connection.ts'

const OWN_BYTES = 8 * 1024

export interface WillMemory {
  /** False when there is no room for the will. One that is kept is copied, so that it does not keep the whole CONNECT. */
  keep(connection: Connection, will: NonNullable<ConnectPacket['will']>): boolean
  /** The connection has ended; calling it again is harmless. */
  ended(connection: Connection): void
}

export function openWillMemory(bytesMax: number = LIMITS.willsBytesMax): WillMemory {
  let used = 0

  return { keep, ended }

  function keep(connection: Connection, will: NonNullable<ConnectPacket['will']>): boolean {
    const payload = Buffer.from(will.payload)
    const shared = Math.max(0, payload.length + Buffer.byteLength(will.topic) - OWN_BYTES)
    if (used + shared > bytesMax) return false
    will.payload = payload
    used += shared
    connection.willBytesShared += shared
    return true
  }

  function ended(connection: Connection): void {
    used -= connection.willBytesShared
    connection.willBytesShared = 0
  }
}
