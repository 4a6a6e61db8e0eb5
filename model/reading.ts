/**
 * A reading: one value of one metric of one device at one time.
 *
 * Invariants: a value is what the device sent ([G3]); the newest reading of a metric is decided by `isNewer`, a total
 * order, so that memory, Redis, ClickHouse and a rebuild all hold the same state in any order of arrival ([G4]).
 */

/** What a device can say. `bigint` only for integers that a double cannot hold exactly; `null` is a value a device sends. */
export type Value = number | bigint | boolean | string | null

export interface Reading extends Moment {
  readonly metric: string
  /** The time the device gave, µs; null when it gave none. Differs from `ts` when the device's clock was too far ahead. */
  readonly sentTs: number | null
}

/** Names and numbers of ClickHouse's `kind` column. */
export const KIND = { number: 1, integer: 2, bool: 3, string: 4, null: 5 } as const
export type Kind = keyof typeof KIND

/** A device time further ahead of receipt than this would pin its metric for as long; it is replaced, and `sentTs` kept. */
export const CLOCK_AHEAD_MS_MAX = 5 * 60_000

/** The time that orders a reading: the device's, unless it gave none or its clock is too far ahead. */
export function effectiveTs(sentTs: number | null, receivedAt: number): number {
  return sentTs === null || sentTs > receivedAt + CLOCK_AHEAD_MS_MAX ? receivedAt : sentTs
}

export function kindOf(value: Value): Kind {
  if (value === null) return 'null'
  switch (typeof value) {
    case 'number':
      return 'number'
    case 'bigint':
      return 'integer'
    case 'boolean':
      return 'bool'
    default:
      return 'string'
  }
}

/** What [G4] compares: the reading's time, then its receipt, then the value itself. */
export interface Moment {
  readonly ts: number
  readonly receivedAt: number
  readonly value: Value
}

/**
 * True when `a` replaces `b` as the newest reading of a metric [G4].
 *
 * The order is total: ts, then receivedAt, then kind, then the number, then the text bytewise. It is the same as
 * ClickHouse's `max` over the tuple (ts, received_at, kind, value or 0, value_str).
 */
export function isNewer(a: Moment, b: Moment): boolean {
  if (a.ts !== b.ts) return a.ts > b.ts
  if (a.receivedAt !== b.receivedAt) return a.receivedAt > b.receivedAt
  return compareValues(a.value, b.value) > 0
}

/** Negative, zero or positive, as `a` is before, equal to or after `b` in the total order of values. */
export function compareValues(a: Value, b: Value): number {
  const byKind = KIND[kindOf(a)] - KIND[kindOf(b)]
  if (byKind !== 0) return byKind
  if (typeof a === 'string' && typeof b === 'string') return Buffer.compare(Buffer.from(a), Buffer.from(b))
  if (typeof a === 'bigint' && typeof b === 'bigint') {
    const byDouble = Number(a) - Number(b)
    return byDouble !== 0 ? byDouble : Buffer.compare(Buffer.from(String(a)), Buffer.from(String(b)))
  }
  const [x, y] = [Number(a), Number(b)]
  // -0 is before 0: ClickHouse takes the two for equal, and in an exact tie keeps either.
  return x - y || Number(Object.is(y, -0)) - Number(Object.is(x, -0))
}
