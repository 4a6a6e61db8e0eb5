/**
 * Flow: which sockets are read. A connection whose gate shut for want of room waits here until its own messages are
 * acknowledged and ingest is not under pressure; then it is read on, oldest wait first, a slice per turn of the event loop,
 * so that the end of a stall does not come back as a flood.
 *
 * What was accepted is never shed, only read more slowly [G5].
 *
 * A stall of the log must not cut the devices off: a connection that waits here has its PINGREQs stuck behind its messages,
 * and a plain client may send nothing while it waits for an acknowledgement. The keepalive of both is refreshed every second,
 * and of nobody else. A peer that died meanwhile is still closed: TCP's own keepalive finds it within minutes where we read,
 * and where we do not, the wait ends with the stall, its socket is read or its keepalive runs out. Until then it costs one of
 * the connections that SURGETANK_CONNECTIONS_MAX allows, and its device takes it over by connecting again.
 */
import { keepAwake, readOn } from './aedes-internals.ts'
import type { Connection } from './connection.ts'
import type { Floodgate } from './frame-gate.ts'

/** Connections read on per turn of the event loop. */
const SLICE = 64

export interface Flow {
  readonly floodgate: Floodgate
  /** The connection's gate shut for want of room. */
  waits(connection: Connection): void
  /** Messages of the connection were acknowledged. */
  released(connection: Connection): void
  ended(connection: Connection): void
  pressureChanged(pressure: boolean): void
  /** No message enters any more, for good. */
  stop(): void
  /** Every second: refreshes the keepalive of those connections whose silence is our doing. */
  keepWaitingAwake(connections: Iterable<Connection>): void
}

export function openFlow(inFlightMax: number): Flow {
  const floodgate: Floodgate = { shut: false, inFlightMax, connects: { bytes: 0 } }
  /** In order of their waits; each connection at most once, so the bound is that of connections. */
  const waiting = new Set<Connection>()
  let stopped = false
  let scheduled = false

  return { floodgate, waits, released, ended, pressureChanged, stop, keepWaitingAwake }

  function waits(connection: Connection): void {
    waiting.add(connection)
  }

  function released(connection: Connection): void {
    if (waiting.has(connection) && hasRoom(connection)) schedule()
  }

  function ended(connection: Connection): void {
    waiting.delete(connection)
  }

  function pressureChanged(pressure: boolean): void {
    floodgate.shut = pressure || stopped
    schedule()
  }

  function stop(): void {
    stopped = true
    floodgate.shut = true
  }

  function keepWaitingAwake(connections: Iterable<Connection>): void {
    for (const connection of connections) {
      const { client, newest } = connection
      if (client !== null && (newest !== null || waiting.has(connection))) keepAwake(client)
    }
  }

  function schedule(): void {
    if (scheduled || floodgate.shut || waiting.size === 0) return
    scheduled = true
    setImmediate(readSlice)
  }

  /** Later, never at once: acknowledgements may be written from within a hook of Aedes, whose parser does not nest. */
  function readSlice(): void {
    scheduled = false
    let slice = SLICE
    let more = false
    for (const connection of waiting) {
      if (floodgate.shut) return
      if (!hasRoom(connection)) continue
      if (slice-- === 0) {
        more = true
        break
      }
      waiting.delete(connection)
      connection.gate?.open()
      if (connection.client !== null) readOn(connection.client)
    }
    if (more) schedule()
  }

  /** Half the room must be free, so that a socket is not read for one message at a time. */
  function hasRoom(connection: Connection): boolean {
    return connection.gate !== null && connection.gate.inFlight <= inFlightMax / 2
  }
}
