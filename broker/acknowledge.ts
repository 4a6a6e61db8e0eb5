/**
 * Writes PUBACK and PUBREC for what has become durable [G1]: after each commit, one buffer and one write per connection,
 * in the order in which its messages arrived [MQTT-4.6.0-2].
 *
 * The only place where an acknowledgement of a PUBLISH is written, and it is reached only from ingest's `settled` and for
 * a status message that no held message precedes. Nothing is kept for a connection that has gone: its device sends again.
 */
import { metrics } from '../metrics.ts'
import type { Connection, Held } from './connection.ts'

/** Acknowledgements that a peer did not read. At four bytes each that is a quarter of a million messages: it never reads. */
const UNREAD_BYTES_MAX = 1024 * 1024

/** The first byte of PUBCOMP [MQTT 3.1.1, 3.7]. */
const PUBCOMP = 0x70

export interface Acknowledger {
  /** Acknowledges messages, oldest first; `null` stands for a message of QoS 0. */
  settled(batch: readonly (Held | null)[]): void
  /** Acknowledges a message that needs no commit, after everything that its connection sent before it. */
  afterEarlier(held: Held): void
  /** Writes PUBCOMP at once: in order among PUBCOMPs, which no clause orders among PUBACKs and PUBRECs [MQTT 3.1.1, 4.6]. */
  complete(connection: Connection, packet: number): void
}

export interface AcknowledgerOptions {
  readonly clock: () => number
  /** A connection has room again. */
  readonly released: (connection: Connection) => void
  /** Must destroy the socket. */
  readonly notReading: (connection: Connection) => void
}

export function openAcknowledger({ clock, released, notReading }: AcknowledgerOptions): Acknowledger {
  return { settled, afterEarlier, complete }

  function settled(batch: readonly (Held | null)[]): void {
    const touched = countDue(batch)
    if (touched.length === 0) return
    fill(batch)
    let acked = 0
    for (const connection of touched) {
      acked += send(connection)
      if (connection.newest === null) connection.settled?.()
    }
    metrics.acked.inc(acked)
    const oldest = batch.find(held => held !== null)
    if (oldest !== undefined && oldest !== null) metrics.ackSeconds.observe((clock() - oldest.receivedAt) / 1000)
  }

  function afterEarlier(held: Held): void {
    const { connection } = held
    const earlier = connection.newest
    if (earlier === null) {
      settled([held])
      return
    }
    earlier.follower = held
    connection.newest = held
  }

  function complete(connection: Connection, packet: number): void {
    const { socket } = connection
    if (socket.destroyed) return
    // Many PUBRELs come in one read, and their PUBCOMPs leave in one write.
    socket.cork()
    socket.write(Buffer.from([PUBCOMP, 2, packet >> 8, packet & 0xff]))
    process.nextTick(() => socket.uncork())
    if (socket.writableLength > UNREAD_BYTES_MAX) notReading(connection)
  }

  function countDue(batch: readonly (Held | null)[]): Connection[] {
    const touched: Connection[] = []
    for (const first of batch) {
      for (let held = first; held !== null; held = held.follower) {
        const { connection } = held
        if (connection.due++ === 0) touched.push(connection)
      }
    }
    return touched
  }

  function fill(batch: readonly (Held | null)[]): void {
    for (const first of batch) {
      for (let held = first; held !== null; held = held.follower) {
        const { connection, messageId } = held
        connection.acks ??= Buffer.allocUnsafe(connection.due * 4)
        const { acks, acksLength: at } = connection
        acks[at] = held.answer
        acks[at + 1] = 2
        acks[at + 2] = messageId >> 8
        acks[at + 3] = messageId & 0xff
        connection.acksLength = at + 4
        if (connection.newest === held) connection.newest = null
        if (held.opened !== null) held.opened.settle()
      }
    }
  }

  /** Returns how many were written. */
  function send(connection: Connection): number {
    const { socket, gate, acks, due } = connection
    connection.due = 0
    connection.acks = null
    connection.acksLength = 0
    if (gate !== null) gate.inFlight -= due
    if (acks === null || socket.destroyed) return 0
    socket.write(acks)
    if (socket.writableLength > UNREAD_BYTES_MAX) notReading(connection)
    else released(connection)
    return due
  }
}
