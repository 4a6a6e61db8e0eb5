/**
 * Restless clients: ids that are taken over again and again, because two devices use one id and each connects again as soon
 * as it is closed. Each such take-over waits before it closes the connection that is served, the longer the more there were,
 * so that each device is served for a while and nobody else feels it.
 *
 * Of each id the take-overs are counted in a bucket that runs empty. How many are allowed in a row is far more than a device
 * needs that comes back over a poor line.
 */

/** Take-overs of one id that cost nothing, and how long it takes until one more does, ms. */
const FREE_MAX = 5
const FREE_EVERY_MS = 2_000
/** The wait grows by this with each take-over beyond, up to the most. */
const WAIT_STEP_MS = 100
const WAIT_MS_MAX = 1_000
/** A bucket takes no more, so that an id is quick again soon after its second device has gone. */
const COUNT_MAX = FREE_MAX + WAIT_MS_MAX / WAIT_STEP_MS
/** Ids that are counted; the one taken over longest ago is forgotten. */
const IDS_MAX = 10_000

export interface Restless {
  /** A live connection of the client was closed for another one. */
  count(client: string): void
  /** How long a take-over of the client is to wait now, ms; 0 nearly always. */
  waitMs(client: string): number
}

interface Bucket {
  readonly count: number
  readonly at: number
}

export function openRestless(clock: () => number): Restless {
  /** In order of the last take-over. */
  const buckets = new Map<string, Bucket>()

  return { count, waitMs }

  function count(client: string): void {
    const at = clock()
    const level = Math.min(levelOf(client, at) + 1, COUNT_MAX)
    buckets.delete(client)
    buckets.set(client, { count: level, at })
    const [oldest] = buckets.keys()
    if (buckets.size > IDS_MAX && oldest !== undefined) buckets.delete(oldest)
  }

  function waitMs(client: string): number {
    const beyond = Math.ceil(levelOf(client, clock()) - FREE_MAX)
    return Math.min(Math.max(0, beyond) * WAIT_STEP_MS, WAIT_MS_MAX)
  }

  function levelOf(client: string, now: number): number {
    const bucket = buckets.get(client)
    // A clock that was set back empties nothing.
    return bucket === undefined ? 0 : Math.max(0, bucket.count - Math.max(0, now - bucket.at) / FREE_EVERY_MS)
  }
}
