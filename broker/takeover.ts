/**
 * Takeover between brokers: a client is served by one broker at a time [MQTT-3.1.4-2], and what the one before it made
 * durable without a PUBACK is recognised here when the device sends it again.
 *
 * On CONNECT, before CONNACK: take the session; the broker that had it closes its connection and settles what that one had
 * handed over; then learn what was made durable elsewhere. Each step has a bound and goes on without the other side at it,
 * because a device must be served most of all when something is down: the cost is a message stored twice, and counted.
 *
 * Connections of one client on this broker are Aedes' to sort out; the session is released when the last of them ends.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Ingest } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import type { Sessions } from '../space/space.ts'
import type { Connection } from './connection.ts'
import type { SampledLog } from './sampled-log.ts'

/** Connects between CONNECT and CONNACK; one beyond them is refused with return code 3, "server unavailable". */
const WAITING_MAX = 4_096
const TAKE_MS_MAX = 2_000
const CATCH_UP_MS_MAX = 3_000
/** How long another broker's connect waits for what is on its way into the log here. */
const SETTLE_MS_MAX = 1_000

export interface Takeover {
  /**
   * `serve`: the client is ours. `busy`: too many wait. `gone`: the connection ended meanwhile, and nothing is left of it.
   * Never rejects.
   */
  admit(connection: Connection, client: string): Promise<'serve' | 'busy' | 'gone'>
  /** The connection has ended. */
  ended(connection: Connection): void
}

export interface TakeoverOptions {
  readonly sessions: Sessions
  readonly ingest: Pick<Ingest<unknown>, 'catchUp'>
  readonly log: SampledLog
}

export function openTakeover({ sessions, ingest, log }: TakeoverOptions): Takeover {
  /** Connections here by client: bounded by SURGETANK_CONNECTIONS_MAX. */
  const held = new Map<string, Set<Connection>>()
  let waiting = 0
  sessions.onTaken(closeTaken)

  return { admit, ended }

  async function admit(connection: Connection, client: string): Promise<'serve' | 'busy' | 'gone'> {
    if (waiting >= WAITING_MAX) return 'busy'
    connection.session = client
    const connections = held.get(client) ?? new Set()
    held.set(client, connections.add(connection))
    waiting++
    try {
      // Who cannot be asked in time may have served it.
      connection.moved = (await within(TAKE_MS_MAX, sessions.take(client)))?.moved ?? true
      if (connection.moved && !connection.socket.destroyed) await catchUp(client)
      return connection.socket.destroyed ? 'gone' : 'serve'
    } finally {
      waiting--
    }
  }

  async function catchUp(client: string): Promise<void> {
    const looked = ingest.catchUp().then(() => 'caught_up')
    const result = await within(CATCH_UP_MS_MAX, looked).catch((error: unknown) => {
      log.warn('the log could not be read for a client of another broker', { client, err: error })
      return undefined
    })
    metrics.sessionsMoved.inc({ result: result ?? 'not_caught_up' })
  }

  function ended(connection: Connection): void {
    const { session } = connection
    const connections = session === null ? undefined : held.get(session)
    if (session === null || connections?.delete(connection) !== true || connections.size > 0) return
    held.delete(session)
    if (!connection.taken) sessions.release(session)
  }

  /** Another broker serves the client now. */
  async function closeTaken(client: string): Promise<void> {
    const connections = [...(held.get(client) ?? [])]
    await Promise.all(connections.map(closeOne))
  }

  async function closeOne(connection: Connection): Promise<void> {
    connection.taken = true
    metrics.sessionsTaken.inc()
    connection.socket.destroy()
    if (connection.newest === null) return
    await within(SETTLE_MS_MAX, new Promise<void>(resolve => (connection.settled = resolve)))
  }
}

/** What the work resolves with, or undefined when it takes longer. */
async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  const timeout = new AbortController()
  const late = delay(ms, undefined, { signal: timeout.signal }).catch(() => undefined)
  return Promise.race([work, late]).finally(() => timeout.abort())
}
