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
   * Merges readings; a reading replaces the state of its metric only when `isNewer` says so. Rejects (fate `retry`) when
   * the space is away: the readings are in the log, and a rebuild brings them.
   */
  merge(messages: readonly Message[]): Promise<void>
  /** Merges presence: the newer of two, by `at`, stays. Only of devices that the space knows or that were claimed. */
  mergePresence(changes: readonly Presence[]): Promise<void>
  /**
   * Reserves room for a metric of a device, at once and before its message is accepted, so that the bounds hold exactly.
   * Called for each reading; a metric that is known costs a look-up.
   */
  claimMetric(device: string, metric: string): 'ok' | 'too_many_metrics' | 'too_many_devices'
  get(device: string): Promise<DeviceState | null>
  getMany(devices: readonly string[]): Promise<DeviceState[]>
  /** Devices in order of their ids, bytewise, after `after`. */
  page(query: PageQuery): Promise<DeviceState[]>
  counts(): Promise<{ readonly devices: number; readonly online: number }>
  /** Calls `changed` with the ids of devices whose state changed since the last call, at most every `everyMs`. Returns the way to stop. */
  watch(everyMs: number, changed: (devices: readonly string[]) => void): () => void
  /** False until the state was rebuilt after a start ([G4]). */
  readonly warm: boolean
  markWarm(): Promise<void>
  close(): Promise<void>
}

export interface PageQuery {
  readonly after: string | null
  readonly limit: number
  /** A part of the device id, any case; null for all. */
  readonly search: string | null
  readonly online: boolean | null
}
