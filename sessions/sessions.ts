/**
 * Sessions: what is kept of a client that connects with clean=0 when its connection ends [MQTT-3.1.2-4], and the door of this
 * folder. CONNACK says whether something was kept [MQTT-3.2.2-2]: a client that hears "no session" may throw away what was
 * not acknowledged, and one that hears "session present" does not subscribe again.
 *
 * Nothing is queued for a client that is away, so a session is small: that it exists, the filters that were granted, and the
 * QoS 2 messages that it sent and has not released.
 *
 * Which broker serves a client is another question: `Sessions` of `space/space.ts`.
 */

/** What every store has in common. */
export { type Commits, openCommits } from './commits.ts'
export { encodeRecord, nameOf, newRecord, OPEN_MESSAGES_MAX, type ParsedRecord, parseRecord } from './record.ts'
export { openCounted, openStored } from './stored-session.ts'

/** Whose session it is. `principal` is empty until there is authentication. */
export interface SessionKey {
  readonly principal: string
  readonly client: string
}

/** A filter as it was granted. */
export interface SessionFilter {
  readonly filter: string
  readonly qos: 0 | 1 | 2
}

/** A QoS 2 message between its PUBREC and its PUBREL. */
export interface OpenMessage {
  /** Its packet identifier, 1 to 65,535. */
  readonly packet: number
  /** A short text that is the same for the same topic and payload. */
  readonly print: string
}

export interface SessionRecord {
  /**
   * Random: another one for each session that is begun anew, also of the same client, and for each connection that has saved it.
   * Up to 32 characters, printable ASCII without space, quote and backslash. A store keeps it and makes nothing of it.
   */
  readonly life: string
  readonly filters: readonly SessionFilter[]
  /**
   * How many QoS 2 messages the connection that gave it its `life` had opened; the log may hold newer ones, which say that life and
   * their number.
   */
  readonly opened: number
  readonly open: readonly OpenMessage[]
}

export interface SessionStore {
  /**
   * The session of a client that connects with clean=0: the one that is kept, or a new one, durable when it resolves. Until
   * `leave` it does not expire. Whoever opened it before can change it no more. Null when nothing can be kept: the bound is
   * reached by clients that are connected, or the store is away. Then the client hears that it has no session, and what may be kept
   * of it is the store's to remove: no later `open` finds it, unless the process was killed before, or the client has opened it
   * elsewhere meanwhile. Within a second or two; never rejects.
   */
  open(key: SessionKey): Promise<StoredSession | null>
  /**
   * A client connects with clean=1: what was kept of it is gone, durably, when it resolves [MQTT-3.1.2-6]. With false when that is
   * not known; it is removed later then, as after an `open` that gave null. Never rejects.
   */
  discard(key: SessionKey): Promise<boolean>
  /** Sessions that are kept, of clients connected or away; an estimate where several processes share the store. */
  count(): Promise<number>
  close(): Promise<void>
}

export interface StoredSession {
  /** It was kept from an earlier connection: "session present" in CONNACK. */
  readonly isPresent: boolean
  /**
   * As it was when it was opened, or as it was handed over last, durable or not; what a rejected `save` brought is taken back. The
   * later of two calls replaces the earlier one whole, so whoever changes something begins with this.
   */
  readonly record: SessionRecord
  /**
   * Replaces the record; durable when it resolves. Calls at one time share a commit. Rejects with `sessions_unavailable` (retry)
   * when it is not durable within two seconds, and with `session_too_large` (reject) beyond 64 KiB; it may become durable later,
   * unless another call replaces it. Of a session that somebody else has opened since, it changes nothing, and resolves with false.
   */
  save(record: SessionRecord): Promise<boolean>
  /** As `save`, within a second or with the next commit, whichever comes first, and without a word when that fails. */
  saveSoon(record: SessionRecord): void
  /** The client has left: what was saved last is durable when it resolves, and expires from now on. Never rejects. */
  leave(): Promise<void>
}
