/**
 * The space: the newest state of every device, and the door of this folder.
 *
 * It is a projection of the log. Every merge is idempotent and commutative ([G4]): the state depends only on the set of
 * readings that were merged, not on their order, their batches or how often each came. It holds no counters that need
 * exactness, so anything may be merged again.
 */
import type { DeviceState, Presence } from '../model/device-state.ts'
import type { Message } from '../model/message.ts'

export interface Space {
  /**
   * Merges readings; a reading replaces the state of its metric only when `isNewer` says so. A message without readings
   * tells only that its device was heard of. What this process merged, its own reads show from then on; a space in another
   * process has it soon after, see `settled`. Never waits for a space that is away: what it cannot hold meanwhile it lets
   * go, counts, and is not warm until a rebuild has brought it from the log.
   */
  merge(messages: readonly Message[]): Promise<void>
  /**
   * Tells the space how to ask, at any time until it is closed, when the oldest message came by the clock that may be in the log and
   * that this process has not merged; null for none, ms since 1970 UTC. Should the process end, or have such a message when it
   * closes the space, the log is read again from there.
   */
  trackUnmerged(oldestAt: () => number | null): void
  /** Resolves when all that this process merged before is in the space. Rejects (fate `retry`) while the space is away. */
  settled(): Promise<void>
  /**
   * Merges presence: the newer of two, by `at`, stays. Only of devices that the space knows or that were claimed. Where
   * several units share a space, a device that is online is so for as long as the unit lives that told it.
   */
  mergePresence(changes: readonly Presence[]): Promise<void>
  /**
   * Reserves room for a metric of a device, at once and before its message is accepted. Called for each reading; a metric
   * that is known costs a look-up. The bounds hold exactly for what this process has seen itself: where several units
   * share a space, each counts its own devices, and together they may hold as many times more.
   */
  claimMetric(device: string, metric: string): 'ok' | 'too_many_metrics' | 'too_many_devices'
  get(device: string): Promise<DeviceState | null>
  getMany(devices: readonly string[]): Promise<DeviceState[]>
  /** Devices in order of their ids, bytewise, after `after`. */
  page(query: PageQuery): Promise<DeviceState[]>
  counts(): Promise<{ readonly devices: number; readonly online: number }>
  /** Calls `changed` with the ids of devices whose state changed since the last call, at most every `everyMs`. Returns the way to stop. */
  watch(everyMs: number, changed: (devices: readonly string[]) => void): () => void
  /**
   * False until the state was rebuilt, after a start or after the space lost anything ([G4]), and while nobody can tell. Asked
   * right after a read, it speaks of what was read, too.
   */
  readonly warm: boolean
  /**
   * The right to rebuild a state that is not warm. One process at a time has it; null while another one does, and while
   * there is nothing to rebuild. Rejects (fate `retry`) while the space is away.
   */
  claimRebuild(): Promise<Rebuild | null>
  /**
   * The units, processes with a broker, that have said nothing for seconds. Their devices show as offline by now. One may have
   * ended, and what it made durable last is missing here; or it still runs, cut off from the space, and more is missing all the time.
   * One process at a time is given them, again and again: until they are back, for an hour at most. Null when there are none.
   */
  claimLostUnits(): Promise<LostUnits | null>
  close(): Promise<void>
}

export interface Rebuild {
  /** Fires when the right is lost, or the space was emptied again: begin anew. What was merged until then is harmless. */
  readonly lost: AbortSignal
  /** All was merged: the space is warm. Rejects when the right was lost before. */
  finish(): Promise<void>
  /** Gives the right up. Harmless after `finish`. */
  release(): Promise<void>
}

export interface LostUnits {
  readonly units: readonly string[]
  /** All that they made durable before this time was merged; ms since 1970 UTC, by their own clocks. */
  readonly mergedThrough: number
  /**
   * All was merged that the log held at this time, ms since 1970 UTC. A unit that was back before it was given out, or had
   * been lost for an hour, is forgotten. Rejects (fate `retry`) while the space is away.
   */
  merged(through: number): Promise<void>
}

/** Which broker serves which client: one at a time, whatever the number of brokers [MQTT-3.1.4-2]. */
export interface Sessions {
  /**
   * This broker serves the client from now on; called again when it connects again here. One that served it before is told,
   * and has a moment to close the connection and to settle what it held; resolves then. Never rejects.
   */
  take(client: string): Promise<Taken>
  /** The last connection of the client here has ended. Says within a second whose the client is. Never rejects. */
  release(client: string): Promise<Whose>
  /**
   * `taken` is called when another broker serves the client now, with no `release` to follow. It resolves within a second,
   * with true when nothing of the client is on its way into the log any more.
   */
  onTaken(taken: (client: string) => Promise<boolean>): void
  /** Another broker speaks for the presence of this device: what this one told of it is not to be told again. */
  disown(device: string): void
}

export interface Taken {
  /** Another broker served the client of late, or nobody can tell: messages may be sent again here which that one made durable. */
  readonly moved: boolean
  /** False when that one may still make some durable. */
  readonly settled: boolean
}

/** Whose a client is that has left: `ours`, nobody else has served it since; `theirs`, another broker serves it now. */
export type Whose = 'ours' | 'theirs' | 'unknown'

export interface PageQuery {
  readonly after: string | null
  readonly limit: number
  /** A part of the device id, any case; null for all. */
  readonly search: string | null
  readonly online: boolean | null
}
