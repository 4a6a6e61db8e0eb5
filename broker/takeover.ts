/**
 * Takeover between brokers: a client is served by one broker at a time [MQTT-3.1.4-2], and what the one before it made
 * durable without a PUBACK is recognised here when the device sends it again.
 *
 * On CONNECT, before CONNACK: take the session; the broker that had it closes its connection and settles what that one had
 * handed over; then learn what was made durable elsewhere. Each step has a bound and goes on without the other side at it,
 * because a device must be served most of all when something is down: the cost is a message stored twice, and counted.
 *
 * Each client served here, or about to be, has one entry: its connections, and the take-over that is under way for it. A
 * connection that comes meanwhile waits for the same one, and when all go it is carried to its end all the same, so that none
 * slips past it. A client of which the log could not be learnt is looked up again when it connects next.
 *
 * Connections of one client on this broker are Aedes' to sort out; the session is released when the last of them has ended.
 */
import type { Ingest } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import type { Sessions, Whose } from '../space/space.ts'
import { within } from '../within.ts'
import type { Connection } from './connection.ts'
import type { SampledLog } from './sampled-log.ts'

/** Connects between CONNECT and CONNACK; one beyond them is refused with return code 3, "server unavailable". */
const WAITING_MAX = 4_096
const TAKE_MS_MAX = 2_000
const CATCH_UP_MS_MAX = 3_000
/** How long a session is kept, or another broker's connect waits, for what is on its way into the log here. */
const SETTLE_MS_MAX = 1_000
/** Clients of which the log could not be learnt; the one longest ago is forgotten, and was counted. */
const BEHIND_MAX = 10_000

export interface Takeover {
  /**
   * `serve`: the client is ours. `busy`: too many wait. `gone`: the connection ended meanwhile, and nothing is left of it.
   * Never rejects.
   */
  admit(connection: Connection, client: string): Promise<'serve' | 'busy' | 'gone'>
  /** The connection has ended. Resolves within seconds with whose its client is. Never rejects. */
  ended(connection: Connection): Promise<Whose>
}

export interface TakeoverOptions {
  readonly sessions: Sessions
  readonly ingest: Pick<Ingest<unknown>, 'catchUp'>
  /** A client that came from another broker, at a time in ms since 1970 UTC, has gone before it was served. */
  readonly lost: (client: string, at: number) => void
  readonly clock: () => number
  readonly log: SampledLog
}

/** A client that is served here, or about to be. */
interface Served {
  readonly connections: Set<Connection>
  /** When it connected last, ms since 1970 UTC. */
  connectedAt: number
  /** Never rejects; null while none is under way. */
  takeover: Promise<void> | null
  /** Another broker may have served it before. */
  moved: boolean
  /** A connection of it got its CONNACK, so that this broker has said that it is online. */
  wasServed: boolean
  /** Another broker serves it now, and this is no entry any more. */
  taken: boolean
}

export function openTakeover({ sessions, ingest, lost, clock, log }: TakeoverOptions): Takeover {
  /** By client: bounded by SURGETANK_CONNECTIONS_MAX, and by the connections that ended within seconds. */
  const served = new Map<string, Served>()
  const behind = new Set<string>()
  let waiting = 0
  sessions.onTaken(closeTaken)

  return { admit, ended }

  async function admit(connection: Connection, client: string): Promise<'serve' | 'busy' | 'gone'> {
    if (waiting >= WAITING_MAX) return 'busy'
    // Nobody would tell of its end any more.
    if (connection.socket.closed) return 'gone'
    const entry = enter(connection, client)
    waiting++
    entry.takeover ??= takeOver(client, entry)
    await entry.takeover
    waiting--
    return connection.socket.destroyed ? 'gone' : 'serve'
  }

  function enter(connection: Connection, client: string): Served {
    const entry = served.get(client) ?? {
      connections: new Set(),
      connectedAt: 0,
      takeover: null,
      moved: false,
      wasServed: false,
      taken: false,
    }
    served.set(client, entry)
    connection.session = client
    entry.connections.add(connection)
    entry.connectedAt = clock()
    return entry
  }

  async function takeOver(client: string, entry: Served): Promise<void> {
    // Who cannot be asked in time may have served it, and may not have settled.
    const { moved, settled } = (await within(TAKE_MS_MAX, sessions.take(client))) ?? { moved: true, settled: false }
    if (moved) entry.moved = true
    if (moved || behind.has(client)) await catchUp(client, settled)
    entry.takeover = null
  }

  async function catchUp(client: string, settled: boolean): Promise<void> {
    const looked = ingest.catchUp().then(() => true)
    const isRead = await within(CATCH_UP_MS_MAX, looked).catch((error: unknown) => {
      log.warn('the log could not be read for a client of another broker', { client, err: error })
      return false
    })
    const isCaughtUp = settled && isRead === true
    metrics.sessionsMoved.inc({ result: isCaughtUp ? 'caught_up' : 'not_caught_up' })
    behind.delete(client)
    if (!isCaughtUp) behind.add(client)
    const [oldest] = behind
    if (behind.size > BEHIND_MAX && oldest !== undefined) behind.delete(oldest)
  }

  async function ended(connection: Connection): Promise<Whose> {
    const { session, taken, connected } = connection
    if (taken) return 'theirs'
    const entry = session === null ? undefined : served.get(session)
    if (session === null || entry?.connections.has(connection) !== true) return 'ours'
    if (connected) entry.wasServed = true
    await settledOf(connection)
    entry.connections.delete(connection)
    await entry.takeover
    if (entry.taken) return 'theirs'
    return entry.connections.size > 0 || served.get(session) !== entry ? 'ours' : release(session, entry)
  }

  async function release(client: string, entry: Served): Promise<Whose> {
    served.delete(client)
    const whose = await sessions.release(client)
    if (entry.moved && !entry.wasServed && whose !== 'theirs') lost(client, entry.connectedAt)
    return whose
  }

  /** Another broker serves the client now. */
  async function closeTaken(client: string): Promise<boolean> {
    const entry = served.get(client)
    if (entry === undefined) return true
    served.delete(client)
    entry.taken = true
    const settled = await Promise.all([...entry.connections].map(closeOne))
    return settled.every(Boolean)
  }

  function closeOne(connection: Connection): Promise<boolean> {
    connection.taken = true
    metrics.sessionsTaken.inc()
    connection.socket.destroy()
    return settledOf(connection)
  }

  /** Resolves when nothing of the connection is on its way into the log any more, with false when that takes too long. */
  async function settledOf(connection: Connection): Promise<boolean> {
    if (connection.newest === null) return true
    const others = connection.settled
    const settled = new Promise<boolean>(resolve => {
      connection.settled = () => {
        others?.()
        resolve(true)
      }
    })
    return (await within(SETTLE_MS_MAX, settled)) ?? false
  }
}
