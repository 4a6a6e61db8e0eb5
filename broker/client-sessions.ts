/**
 * What is kept of clients, from CONNECT to the end of the connection: that a session exists, the filters that were granted, and the
 * QoS 2 messages that are open (`open-messages.ts` has the argument why none is stored twice or lost).
 *
 * - A client with clean=0 opens its session before CONNACK, which says whether one was kept [MQTT-3.2.2-2]. Where none can be kept it
 *   is served all the same, and hears "no session" then and when it comes back. One with clean=1 discards it [MQTT-3.1.2-6].
 * - A granted filter is durable before its SUBACK. An UNSUBSCRIBE is saved soon: nothing is sent to a filter yet.
 * - PUBCOMP waits until the release is durable. One save is under way for each client, and what is released meanwhile shares the
 *   next. While the store takes nothing PUBCOMP waits, and its message stays acknowledged.
 * - A client that heard "no session" although an earlier one may be kept has forgotten what it sent, and a message of its own must not
 *   be taken for one that is open then. The store sees to that (`sessions/sessions.ts`), and only the store can: by the time that it
 *   answers again the client may have a session at another broker.
 * - A connection whose session another one has by now is closed, if no take-over does so within LOST_MS_MAX.
 *
 * Bounds: OPEN_MESSAGES_MAX of a session, fewer from half of OPEN_IN_ALL_MAX on, which are all; beyond them the oldest of that session
 * are forgotten, and counted. RELEASES_MAX of all wait for their record; beyond them a client that has OPEN_MESSAGES_MAX of its own
 * waiting is closed.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Ingest } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import {
  OPEN_MESSAGES_MAX,
  type SessionFilter,
  type SessionKey,
  type SessionRecord,
  type SessionStore,
  type StoredSession,
} from '../sessions/sessions.ts'
import { shownName } from '../shown-text.ts'
import type { Connection } from './connection.ts'
import { type Opened, OpenMessages, type OpenRoom } from './open-messages.ts'
import type { SampledLog } from './sampled-log.ts'

const OPEN_IN_ALL_MAX = 262_144
const RELEASES_MAX = 262_144
/** Clients that have left and of which more is known than the store took; the one longest ago is forgotten. */
const LEFT_MAX = 65_536
const RETRY_MS_MIN = 100
const RETRY_MS_MAX = 2_000
/** How long the take-over of a client may take to close the connection whose session another one has, ms. */
const LOST_MS_MAX = 3_000

export interface ClientSessions {
  /**
   * Before CONNACK, of a client that is served here from now on. True when its session was kept. Sets `connection.leaving`, at
   * once. Within a second or two; never rejects.
   */
  begin(connection: Connection, client: string, clean: boolean): Promise<boolean>
  /** A QoS 2 message has come; null when it is the repetition of one that is open [MQTT-4.3.3-2]. */
  open(connection: Connection, packet: number, topic: string, payload: Buffer): Opened | null
  /** PUBREL has come; PUBCOMP is written when the release is durable, in order. */
  release(connection: Connection, packet: number): void
  /** The filter is granted, and durable where a session is kept, when this resolves with true. Never rejects. */
  subscribe(connection: Connection, filter: string, qos: 0 | 1 | 2): Promise<boolean>
  unsubscribe(connection: Connection, filter: string): void
  /** The connection has ended. What is kept is left by `connection.leaving`. */
  ended(connection: Connection): void
}

export interface ClientSessionsOptions {
  /** Null where nothing is kept. */
  readonly store: SessionStore | null
  readonly ingest: Pick<Ingest<unknown>, 'marksOf'>
  /** Writes PUBCOMP. */
  readonly complete: (connection: Connection, packet: number) => void
  /** No PUBCOMP is owed any more. */
  readonly released: (connection: Connection) => void
  /** Must destroy the socket. */
  readonly violated: (connection: Connection, reason: string) => void
  readonly log: SampledLog
  readonly openMax?: number
  readonly leftMax?: number
}

/** Of one connection. */
export interface ClientSession {
  readonly open: OpenMessages
  readonly kept: Kept | null
}

/** A session that is kept, while its client is connected. */
interface Kept {
  readonly client: string
  readonly stored: StoredSession
  /** As it is durable. */
  saved: SessionRecord
  /** Released and not yet answered: packet identifier, and the number that must be durable before. */
  released: Map<number, number>
  isReleasing: boolean
  saving: Promise<boolean> | null
  isSavedSoon: boolean
  /** More has changed than what a save has taken along. */
  isChanged: boolean
  leaving: Promise<void> | null
  hasLeft: boolean
  /** Another connection has it by now. */
  isLost: boolean
  /** Ends a wait for more to be durable. */
  wake: () => void
}

export function openClientSessions(options: ClientSessionsOptions): ClientSessions {
  const { store, ingest, complete, released: allReleased, violated, log } = options
  const { openMax = OPEN_IN_ALL_MAX, leftMax = LEFT_MAX } = options
  /** By client: of the connection that opened its session last, as long as it knows more than the store. */
  const known = new Map<string, OpenMessages>()
  /** Those of `known` whose connection has left. */
  const left = new Map<string, OpenMessages>()
  let releases = 0
  const room: OpenRoom = { used: 0, max: openMax, makeRoom, forgot: () => metrics.openForgotten.inc() }

  return { begin, open, release, subscribe, unsubscribe, ended }

  async function begin(connection: Connection, client: string, clean: boolean): Promise<boolean> {
    if (store === null) return false
    const key = { principal: '', client }
    const beginning = clean ? discard(store, key) : openKept(store, key, connection)
    connection.leaving = async () => {
      await beginning
      const { own } = connection
      if (own === null || own.kept === null) return
      own.kept.leaving ??= leave(connection, own.open, own.kept)
      await own.kept.leaving
    }
    return beginning
  }

  async function discard(from: SessionStore, key: SessionKey): Promise<boolean> {
    forget(key.client)
    await from.discard(key)
    return false
  }

  async function openKept(from: SessionStore, key: SessionKey, connection: Connection): Promise<boolean> {
    const { client } = key
    const stored = await from.open(key)
    if (stored?.isPresent !== true) forget(client)
    if (stored === null) return false
    const { record, isPresent } = stored
    const marks = isPresent ? ingest.marksOf(record.life) : []
    const messages = new OpenMessages(room, { record, marks, earlier: known.get(client) ?? null })
    const session = { open: messages, kept: keep(client, stored) }
    messages.onDurable = () => {
      session.kept.wake()
      saveSoon(connection, session.kept)
    }
    connection.own = session
    for (const { filter, qos } of record.filters) connection.subscriptions.set(filter, qos)
    forget(client)
    known.set(client, messages)
    return isPresent
  }

  function keep(client: string, stored: StoredSession): Kept {
    return {
      ...{ client, stored, saved: stored.record, released: new Map(), saving: null },
      ...{ isReleasing: false, isSavedSoon: false, isChanged: false, leaving: null, hasLeft: false },
      isLost: false,
      wake: () => undefined,
    }
  }

  function open(connection: Connection, packet: number, topic: string, payload: Buffer): Opened | null {
    connection.own ??= { open: new OpenMessages(room, null), kept: null }
    return connection.own.open.open(packet, topic, payload)
  }

  function release(connection: Connection, packet: number): void {
    const { own } = connection
    const number = own?.open.release(packet) ?? 0
    if (own === null || own.kept === null) {
      complete(connection, packet)
      return
    }
    const { kept } = own
    if (kept.hasLeft) return
    if (releases >= RELEASES_MAX && kept.released.size >= OPEN_MESSAGES_MAX) {
      violated(connection, 'releases_waiting')
      return
    }
    if (!kept.released.has(packet)) releases++
    kept.released.set(packet, number)
    if (kept.isReleasing) return
    kept.isReleasing = true
    void releaseAll(connection, own.open, kept)
  }

  async function releaseAll(connection: Connection, messages: OpenMessages, kept: Kept): Promise<void> {
    while (kept.released.size > 0) {
      const { released } = kept
      kept.released = new Map()
      const isReleased = await isReleaseDurable(connection, messages, kept, released)
      releases -= released.size
      if (isReleased) for (const packet of released.keys()) complete(connection, packet)
    }
    kept.isReleasing = false
    allReleased(connection)
  }

  /** False when the connection has gone before, or the session is another's by now. */
  async function isReleaseDurable(
    connection: Connection,
    messages: OpenMessages,
    kept: Kept,
    released: ReadonlyMap<number, number>,
  ): Promise<boolean> {
    const number = Math.max(...released.values())
    while (!messages.isDurable(number) && !kept.hasLeft) {
      await new Promise<void>(resolve => {
        kept.wake = resolve
      })
    }
    for (let pauseMs = RETRY_MS_MIN; !hasGone(connection, kept); pauseMs = Math.min(2 * pauseMs, RETRY_MS_MAX)) {
      if (messages.isReleasedBy(kept.saved, released)) return true
      try {
        // By now the record says it; an identifier that it says is open was used anew before its PUBCOMP.
        return await save(connection, kept)
      } catch (error) {
        log.warn('a session could not be saved; its PUBCOMPs wait', { client: shownName(kept.client), err: error })
        await pause(pauseMs)
      }
    }
    return false
  }

  async function subscribe(connection: Connection, filter: string, qos: 0 | 1 | 2): Promise<boolean> {
    const { subscriptions, own } = connection
    const before = subscriptions.get(filter)
    subscriptions.set(filter, qos)
    if (own === null || own.kept === null || isSaved(own.kept, filter, qos)) return true
    try {
      return await save(connection, own.kept)
    } catch (error) {
      log.warn('a session could not be saved; its filter is refused', {
        client: shownName(own.kept.client),
        err: error,
      })
      if (subscriptions.get(filter) === qos) restore(connection, filter, before)
      return false
    }
  }

  function restore({ subscriptions }: Connection, filter: string, before: 0 | 1 | 2 | undefined): void {
    if (before === undefined) subscriptions.delete(filter)
    else subscriptions.set(filter, before)
  }

  function unsubscribe(connection: Connection, filter: string): void {
    const isKnown = connection.subscriptions.delete(filter)
    const kept = connection.own?.kept ?? null
    if (isKnown && kept !== null) saveSoon(connection, kept)
  }

  /** All calls of one turn share a save. False when the session is another's by now. */
  function save(connection: Connection, kept: Kept): Promise<boolean> {
    kept.saving ??= Promise.resolve().then(async () => {
      kept.saving = null
      if (kept.hasLeft) return false
      const record = recordOf(connection)
      kept.isChanged = false
      if ((await kept.stored.save(record).catch(changed)) === false) {
        closeLost(connection, kept)
        return false
      }
      kept.saved = record
      return true
    })

    function changed(error: unknown): never {
      kept.isChanged = true
      throw error
    }
    return kept.saving
  }

  /** Nothing of it can be kept any more, so it would wait for PUBCOMP for ever; connected anew its client has a session again. */
  function closeLost(connection: Connection, kept: Kept): void {
    if (kept.isLost) return
    kept.isLost = true
    const timer = setTimeout(() => {
      if (!hasGone(connection, kept)) violated(connection, 'session_taken')
    }, LOST_MS_MAX)
    timer.unref()
  }

  function saveSoon(connection: Connection, kept: Kept): void {
    kept.isChanged = true
    if (kept.isSavedSoon) return
    kept.isSavedSoon = true
    queueMicrotask(() => {
      kept.isSavedSoon = false
      if (!kept.hasLeft) kept.stored.saveSoon(recordOf(connection))
    })
  }

  /** Once nothing is on its way into the log any more, or that took too long. */
  async function leave(connection: Connection, messages: OpenMessages, kept: Kept): Promise<void> {
    // Most clients have changed nothing since they came, and cost one write less.
    const isSame = !kept.isChanged && !kept.isReleasing && messages.isWholeIn(kept.saved)
    const isOurs = isSame || (await save(connection, kept).catch(() => true))
    kept.hasLeft = true
    releases -= kept.released.size
    kept.released.clear()
    kept.wake()
    await kept.stored.leave()
    if (known.get(kept.client) !== messages) messages.forget()
    else if (!isOurs || messages.isWholeIn(kept.saved)) forget(kept.client)
    else remember(kept.client, messages)
  }

  function ended({ own }: Connection): void {
    if (own?.kept === null) own.open.forget()
  }

  function remember(client: string, messages: OpenMessages): void {
    left.set(client, messages)
    const [oldest] = left.keys()
    if (left.size > leftMax && oldest !== undefined) forget(oldest)
  }

  function forget(client: string): void {
    known.get(client)?.forget()
    known.delete(client)
    left.delete(client)
  }

  function makeRoom(): boolean {
    const [oldest] = left.keys()
    if (oldest !== undefined) forget(oldest)
    return room.used < room.max
  }
}

function hasGone({ socket }: Connection, { hasLeft }: Kept): boolean {
  return hasLeft || socket.destroyed
}

function isSaved({ saved, isChanged }: Kept, filter: string, qos: 0 | 1 | 2): boolean {
  return !isChanged && saved.filters.some(held => held.filter === filter && held.qos === qos)
}

function recordOf({ own, subscriptions }: Connection): SessionRecord {
  if (own === null) throw new Error('A session that is saved is there.')
  return own.open.record(filtersOf(subscriptions))
}

function filtersOf(subscriptions: ReadonlyMap<string, 0 | 1 | 2>): SessionFilter[] {
  return [...subscriptions].map(([filter, qos]) => ({ filter, qos }))
}
