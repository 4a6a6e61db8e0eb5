/**
 * Takeover: a client is served by one connection at a time [MQTT-3.1.4-2], of one broker or several, and what the one before
 * it made durable without a PUBACK is recognised here when the device sends it again.
 *
 * On CONNECT, before CONNACK: the older connections of the client here are read no more, what they handed over becomes
 * durable, its PUBACKs are written, and they are closed. Then take the session; the broker that had it does the same; then
 * learn what was made durable elsewhere. Each step has a bound and goes on without the other side at it, because a device
 * must be served most of all when something is down: the cost is a message stored twice, and counted.
 *
 * An id that is taken over again and again is slowed (`restless.ts`): the newcomer waits, and the one that is served is not
 * touched meanwhile.
 *
 * Each client served here, or about to be, has one entry: its connections, and the take-over that is under way for it. A
 * connection that comes meanwhile waits for the same one; the newest of them is served then, and the others are closed. When
 * all go it is carried to its end all the same, so that none slips past it. A client of which the log could not be learnt is
 * looked up again when it connects next.
 *
 * The session is released when the last connection of the client here has ended.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Ingest } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import { shownName } from '../shown-text.ts'
import type { Sessions, Whose } from '../space/space.ts'
import { within } from '../within.ts'
import type { Connection } from './connection.ts'
import { endConnection, stopReading } from './end-connection.ts'
import { openRestless } from './restless.ts'
import type { SampledLog } from './sampled-log.ts'

/** Connects between CONNECT and CONNACK; one beyond them is refused with return code 3, "server unavailable". */
const WAITING_MAX = 4_096
/** Of restless clients, apart from the others, so that these do not take the room of anybody else. */
const SLOWED_MAX = 1_024
const TAKE_MS_MAX = 2_000
const CATCH_UP_MS_MAX = 3_000
/** How long a session is kept, or another broker's connect waits, for what is on its way into the log here. */
const SETTLE_MS_MAX = 1_000
/** How long what is kept of a client may take to be left. */
const LEAVE_MS_MAX = 1_000
/** How long a peer that is taken over may take to close, too, ms: it reads its last PUBACKs in that time. */
const END_MS_MAX = 250
/** Clients of which the log could not be learnt; the one longest ago is forgotten, and was counted. */
const BEHIND_MAX = 10_000

export interface Takeover {
  /**
   * `serve`: the client is ours, and this connection serves it. `busy`: too many wait. `gone`: the connection has ended
   * meanwhile, by itself or for a newer one of the client, and nothing is left of it. Never rejects.
   */
  admit(connection: Connection, client: string): Promise<'serve' | 'busy' | 'gone'>
  /**
   * The connection has ended. Calls `tell` once, with whose its client is by then; resolves when what is kept of the client has
   * been left, too. Within seconds. Never rejects.
   */
  ended(connection: Connection, tell: (whose: Whose) => void): Promise<void>
}

export interface TakeoverOptions {
  /** Null where this is the only broker. */
  readonly sessions: Sessions | null
  readonly ingest: Pick<Ingest<unknown>, 'catchUp' | 'stalled'>
  /** The connection is about to get its CONNACK. Before those that it takes the place of are said to have ended. */
  readonly serves: (connection: Connection, client: string) => void
  /** A client that came from another broker, at a time in ms since 1970 UTC, has gone before it was served. */
  readonly lost: (client: string, at: number) => void
  readonly clock: () => number
  readonly log: SampledLog
}

/** A client that is served here, or about to be. */
interface Served {
  /** All that have not ended and left. */
  readonly connections: Set<Connection>
  /** Those that the take-over under way has not answered, the newest last. */
  waiting: Set<Connection>
  /** When it connected last, ms since 1970 UTC. */
  connectedAt: number
  /** Resolves with the connection to be served, null when all that waited have gone. Never rejects; null while none is under way. */
  takeover: Promise<Connection | null> | null
  /** Another broker may have served it before. */
  moved: boolean
  /** A connection of it was served, so that this broker has said that it is online. */
  wasServed: boolean
  /** Another broker serves it now, and this is no entry any more. */
  taken: boolean
}

export function openTakeover({ sessions, ingest, serves, lost, clock, log }: TakeoverOptions): Takeover {
  /** By client: bounded by SURGETANK_CONNECTIONS_MAX, and by the connections that ended within seconds. */
  const served = new Map<string, Served>()
  const behind = new Set<string>()
  const restless = openRestless(clock)
  const usual = { waiting: 0, max: WAITING_MAX }
  const slowed = { waiting: 0, max: SLOWED_MAX }
  sessions?.onTaken(closeTaken)

  return { admit, ended }

  async function admit(connection: Connection, client: string): Promise<'serve' | 'busy' | 'gone'> {
    const room = restless.waitMs(client) > 0 ? slowed : usual
    if (room.waiting >= room.max) return 'busy'
    // Nobody would tell of its end any more.
    if (connection.socket.closed) return 'gone'
    const entry = enter(connection, client)
    room.waiting++
    entry.takeover ??= takeOver(client, entry)
    const chosen = await entry.takeover
    room.waiting--
    if (chosen === connection && !connection.socket.destroyed) return 'serve'
    connection.socket.destroy()
    return 'gone'
  }

  function enter(connection: Connection, client: string): Served {
    const entry = served.get(client) ?? {
      connections: new Set(),
      waiting: new Set(),
      connectedAt: 0,
      takeover: null,
      moved: false,
      wasServed: false,
      taken: false,
    }
    served.set(client, entry)
    connection.session = client
    entry.connections.add(connection)
    entry.waiting.add(connection)
    entry.connectedAt = clock()
    return entry
  }

  async function takeOver(client: string, entry: Served): Promise<Connection | null> {
    await slowDown(client, entry)
    // Whoever came has gone while the one that is served was not touched yet.
    if (newestOf(entry) !== null) await takeFromOthers(client, entry)
    const chosen = newestOf(entry)
    entry.waiting = new Set()
    entry.takeover = null
    if (chosen !== null) {
      entry.wasServed = true
      serves(chosen, client)
    }
    return chosen
  }

  /** Nobody is to be taken over where no connection is here, and none can be elsewhere. */
  async function slowDown(client: string, entry: Served): Promise<void> {
    const ms = restless.waitMs(client)
    if (ms === 0 || (sessions === null && eldersOf(entry).every(({ socket }) => socket.destroyed))) return
    metrics.takeoversSlowed.inc()
    log.warn('two clients use one client id', { client: shownName(client), waitsMs: ms })
    await pause(ms)
  }

  async function takeFromOthers(client: string, entry: Served): Promise<void> {
    await Promise.all(eldersOf(entry).map(elder => close(elder, client)))
    if (sessions === null || entry.taken) return
    // Who cannot be asked in time may have served it, and may not have settled.
    const { moved, settled } = (await within(TAKE_MS_MAX, sessions.take(client))) ?? { moved: true, settled: false }
    if (moved) entry.moved = true
    if (moved || behind.has(client)) await catchUp(client, settled)
  }

  async function catchUp(client: string, settled: boolean): Promise<void> {
    const looked = ingest.catchUp().then(() => true)
    const isRead = await within(CATCH_UP_MS_MAX, looked).catch((error: unknown) => {
      log.warn('the log could not be read for a client of another broker', {
        client: shownName(client),
        err: error,
      })
      return false
    })
    const isCaughtUp = settled && isRead === true
    metrics.sessionsMoved.inc({ result: isCaughtUp ? 'caught_up' : 'not_caught_up' })
    behind.delete(client)
    if (!isCaughtUp) behind.add(client)
    const [oldest] = behind
    if (behind.size > BEHIND_MAX && oldest !== undefined) behind.delete(oldest)
  }

  async function ended(connection: Connection, tell: (whose: Whose) => void): Promise<void> {
    const { session, taken } = connection
    const entry = session === null || taken ? undefined : served.get(session)
    if (session === null || entry?.connections.has(connection) !== true) {
      tell(taken ? 'theirs' : 'ours')
      await leave(connection)
      return
    }
    // Whoever takes its place is said to be online first.
    await (sessions === null ? entry.takeover : leave(connection))
    if (sessions === null) tell('ours')
    await leave(connection)
    entry.connections.delete(connection)
    await entry.takeover
    const isLast = entry.connections.size === 0 && served.get(session) === entry
    const whose = isLast ? await release(session, entry) : entry.taken ? 'theirs' : 'ours'
    if (sessions !== null) tell(whose)
  }

  async function release(client: string, entry: Served): Promise<Whose> {
    served.delete(client)
    if (sessions === null) return 'ours'
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
    const settled = [...entry.connections].map(connection => {
      connection.taken = true
      metrics.sessionsTaken.inc()
      void close(connection, client)
      return leave(connection)
    })
    return (await within(SETTLE_MS_MAX, Promise.all(settled)))?.every(Boolean) ?? false
  }

  /** Closes a connection for another one. Resolves within seconds, when it is closed. Never rejects. */
  async function close(connection: Connection, client: string): Promise<void> {
    const { socket, leaving } = connection
    // What it handed over settles without anybody to be told.
    if (socket.destroyed && leaving === null) return
    if (connection.connected && !socket.destroyed) {
      metrics.takeovers.inc()
      restless.count(client)
      stopReading(connection)
      await leave(connection)
      await within(END_MS_MAX, endConnection(connection))
    }
    socket.destroy()
    await leave(connection)
  }

  /** Resolves when what the connection handed over has settled, and what is kept of the client has been left. Never rejects. */
  function leave(connection: Connection): Promise<boolean> {
    connection.left ??= settleAndLeave(connection)
    return connection.left
  }

  async function settleAndLeave(connection: Connection): Promise<boolean> {
    const isSettled = await settledOf(connection)
    if (connection.leaving !== null) await within(LEAVE_MS_MAX, connection.leaving())
    return isSettled
  }

  /** Resolves when nothing of the connection is on its way into the log any more, with false when that takes too long. */
  async function settledOf(connection: Connection): Promise<boolean> {
    if (connection.newest === null) return true
    // Nothing becomes durable before the log takes something again.
    if (ingest.stalled) return false
    const settled = new Promise<boolean>(resolve => {
      connection.settled = () => resolve(true)
    })
    return (await within(SETTLE_MS_MAX, settled)) ?? false
  }
}

/** Those that do not wait for the take-over under way. */
function eldersOf({ connections, waiting }: Served): Connection[] {
  return [...connections].filter(connection => !waiting.has(connection))
}

/** The newest connection that waits and has not gone. */
function newestOf({ waiting }: Served): Connection | null {
  return [...waiting].findLast(({ socket }) => !socket.destroyed) ?? null
}
