/**
 * Ingest, the processing unit: payload → readings, the odd one refused, appended to the pump, merged into the space.
 * The door of this folder.
 *
 * Group commit: what arrives while a batch is being made durable joins the next one; there is no timer when idle. After
 * the commit everything of the batch is handed back in order of arrival, to be acknowledged; the space is merged beside
 * it, so that a space that is away never holds a PUBACK [G1].
 */
import type { Origin } from './repetitions.ts'

/** A publish as the broker hands it over. `held` is the broker's own: what it needs to acknowledge. */
export interface Publish<Held> extends Origin {
  readonly device: string
  /** The metric of a plain-value topic; null when the payload is JSON. */
  readonly metric: string | null
  readonly topic: string
  readonly payload: Buffer
  /** When the broker read it, ms since 1970 UTC. */
  readonly receivedAt: number
  readonly held: Held
}

export interface Ingest<Held> {
  /**
   * Takes a message; `settled` tells when it is durable. At once, never throws, never refuses: the broker stops reading
   * sockets when `pressure` holds, and drops QoS 0 itself, then and when it is `stalled`, before it calls.
   */
  offer(publish: Publish<Held>): void
  /**
   * As `offer`, but the message is quarantined with this reason instead of being read: an unknown topic, a device id that
   * is none. `reason` is a fixed word, never text of a device; `publish.device` may be empty. `payloadBytes` tells how long the
   * whole payload was when `payload` is only its beginning.
   */
  offerRefused(publish: Publish<Held> & { readonly payloadBytes?: number }, reason: string, detail: string): void
  /** Counts messages that are neither stored nor kept; the log keeps how many [G7]. `reason` is a fixed word. */
  letGo(reason: string, messages: number): void
  /** True while what is held is over the bound. */
  readonly pressure: boolean
  /** True while the log refuses appends (disk full, cap): nothing is acknowledged until it takes them again. */
  readonly stalled: boolean
  /** `receivedAt` of the oldest message held that is to be stored, in ms of the clock; null when there is none. */
  readonly oldestHeldAt: number | null
  /** Messages held: offered and not yet settled. */
  readonly held: number
  /** What they take in memory, about. */
  readonly heldBytes: number
  /**
   * Learns what other units have made durable by now, so that what they were sent and is sent again here is recognised.
   * Rejects (fate `retry`) when the log cannot be read. Calls at one time share a look.
   */
  catchUp(): Promise<void>
  /** Resolves when all that was offered is settled, or after `waitMs`. */
  drain(waitMs: number): Promise<void>
}

export interface IngestEvents<Held> {
  /** After each commit: everything that is now durable (stored, quarantined, or a repetition), in order of arrival. */
  settled(held: readonly Held[]): void
  /** `pressure` changed. */
  pressureChanged(pressure: boolean): void
}
