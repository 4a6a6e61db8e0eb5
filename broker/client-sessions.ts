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
 *   be taken for one that is open then. So what is kept of it is discarded as soon as the store is back, and wiped at the latest
 *   before a CONNACK that could say otherwise. A broker that is killed before, or that the client leaves before, cannot do that.
 *
 * Bounds: OPEN_MESSAGES_MAX of a session and OPEN_IN_ALL_MAX of all; beyond them the oldest of that session is forgotten, and
 * counted. RELEASES_MAX of all wait for their record; beyond them a client that has OPEN_MESSAGES_MAX of its own waiting is closed.
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
/** Clients that heard "no session" while the store was away; the one longest ago is forgotten. */
const WIPED_MAX = 10_000
const RETRY_MS_MIN = 100
const RETRY_MS_MAX = 2_000

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
  /** Every second. */
  tick(): void
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
  /** Ends a wait for more to be durable. */
  wake: () => void
}

export function openClientSessions(options: ClientSessionsOptions): ClientSessions {
  const { store, ingest, complete, released: allReleased, violated, log, openMax = OPEN_IN_ALL_MAX } = options
  /** By client: of the connection that opened its session last, as long as it knows more than the store. */
  const known = new Map<string, OpenMessages>()
  /** Those of `known` whose connection has left. */
  const left = new Map<string, OpenMessages>()
  const toWipe = new Set<string>()
  /** The client that is being discarded late, and until when. */
  let wiping: { readonly client: string; readonly ended: Promise<unknown> } | null = null
  let releases = 0
  const room: OpenRoom = { used: 0, max: openMax, makeRoom, forgot: () => metrics.openForgotten.inc() }

  return { begin, open, release, subscribe, unsubscribe, tick, ended }

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
    toWipe.delete(key.client)
    if (wiping?.client === key.client) await wiping.ended
    if (!(await from.discard(key))) wipeLater(key.client)
    return false
  }

  async function openKept(from: SessionStore, key: SessionKey, connection: Connection): Promise<boolean> {
    const { client } = key
    const mustWipe = toWipe.delete(client)
    if (wiping?.client === client) await wiping.ended
    const stored = await from.open(key)
    if (stored === null) {
      forget(client)
      wipeLater(client)
      return false
    }
    const isNew = !stored.isPresent || mustWipe
    if (isNew) forget(client)
    const { record } = stored
    const marks = isNew ? [] : ingest.marksOf(record.life)
    const found = isNew ? { ...record, opened: 0, filters: [], open: [] } : record
    const messages = new OpenMessages(room, { record: found, marks, earlier: known.get(client) ?? null })
    const session = { open: messages, kept: keep(client, stored) }
    messages.onDurable = () => {
      session.kept.wake()
      saveSoon(connection, session.kept)
    }
    connection.own = session
    for (const { filter, qos } of found.filters) connection.subscriptions.set(filter, qos)
    if (stored.isPresent && isNew && !(await isWiped(connection, session.kept))) {
      wipeLater(client)
      connection.own = null
      session.kept.hasLeft = true
      void stored.leave()
      return false
    }
    forget(client)
    known.set(client, messages)
    return !isNew
  }

  function keep(client: string, stored: StoredSession): Kept {
    return {
      ...{ client, stored, saved: stored.record, released: new Map(), saving: null },
      ...{ isReleasing: false, isSavedSoon: false, isChanged: false, leaving: null, hasLeft: false },
      wake: () => undefined,
    }
  }

  async function isWiped(connection: Connection, kept: Kept): Promise<boolean> {
    return save(connection, kept).catch(() => false)
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
      if ((await kept.stored.save(record).catch(changed)) === false) return false
      kept.saved = record
      return true
    })

    function changed(error: unknown): never {
      kept.isChanged = true
      throw error
    }
    return kept.saving
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
    else left.set(kept.client, messages)
  }

  function ended({ own }: Connection): void {
    if (own?.kept === null) own.open.forget()
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

  function tick(): void {
    if (store !== null && toWipe.size > 0 && wiping === null) void wipeAll(store)
  }

  /** One after another, until one fails; a client that connects meanwhile sees to itself. */
  async function wipeAll(from: SessionStore): Promise<void> {
    for (const client of toWipe) {
      const ended = from.discard({ principal: '', client })
      wiping = { client, ended }
      const isGone = await ended
      wiping = null
      if (!isGone) return
      toWipe.delete(client)
    }
  }

  function wipeLater(client: string): void {
    toWipe.delete(client)
    toWipe.add(client)
    const [oldest] = toWipe
    if (toWipe.size > WIPED_MAX && oldest !== undefined) toWipe.delete(oldest)
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
