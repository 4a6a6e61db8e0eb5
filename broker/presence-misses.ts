/**
 * Presence that was not taken for want of room, to be asked again: which connection speaks for which device. Told every second,
 * those first that have waited longest, so that nobody is passed over for ever.
 *
 * The first of each connection is always remembered: it is its client's own device, which may say nothing again. Beyond the
 * bounds a miss is forgotten; its connection is made to look at its topics anew once there may be room, so that the next message
 * of the device asks again.
 */
import type { Connection } from './connection.ts'

/** Misses of one connection that are remembered; all connections have a bound of their own. */
const PER_CONNECTION_MAX = 1_000
const ASKED_PER_SECOND_MAX = 10_000

export interface PresenceMisses {
  /** `known`: the space has the device. */
  add(connection: Connection, device: string, known: boolean): void
  delete(connection: Connection, device: string): void
  /** The connection has ended. */
  forget(connection: Connection): void
  /** Every second. `hold` says whether it was taken now; `mayHold`, whether this connection may hold one more. */
  askAgain(
    hold: (connection: Connection, device: string, known: boolean) => boolean,
    mayHold: (connection: Connection) => boolean,
  ): void
}

export function openPresenceMisses(devicesMax: number): PresenceMisses {
  /** In order of asking; within a connection, too. */
  const missed = new Map<Connection, Map<string, boolean>>()
  let count = 0
  const forgetful = new Set<Connection>()

  return { add, delete: remove, forget, askAgain }

  function add(connection: Connection, device: string, known: boolean): void {
    const devices = missed.get(connection)
    if (devices === undefined) {
      missed.set(connection, new Map([[device, known]]))
      count++
    } else if (devices.has(device)) {
      devices.set(device, known || devices.get(device) === true)
    } else if (devices.size < PER_CONNECTION_MAX && count < devicesMax) {
      devices.set(device, known)
      count++
    } else {
      forgetful.add(connection)
    }
  }

  function remove(connection: Connection, device: string): void {
    const devices = missed.get(connection)
    if (devices?.delete(device) !== true) return
    count--
    if (devices.size === 0) missed.delete(connection)
  }

  function forget(connection: Connection): void {
    count -= missed.get(connection)?.size ?? 0
    missed.delete(connection)
    forgetful.delete(connection)
  }

  function askAgain(...[hold, mayHold]: Parameters<PresenceMisses['askAgain']>): void {
    let left = ASKED_PER_SECOND_MAX
    for (const [connection, devices] of [...missed]) {
      if (left <= 0) break
      missed.delete(connection)
      let asked = Math.min(devices.size, left)
      left -= asked
      for (const [device, known] of devices) {
        if (asked-- === 0) break
        devices.delete(device)
        if (hold(connection, device, known)) count--
        else devices.set(device, known)
      }
      if (devices.size > 0) missed.set(connection, devices)
    }
    for (const connection of forgetful) {
      if (!mayHold(connection)) continue
      connection.topics.clear()
      forgetful.delete(connection)
    }
  }
}
