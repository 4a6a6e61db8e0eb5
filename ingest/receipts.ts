/**
 * The clock of receipts: µs since 1970 UTC, each greater than all before, so that of one connection the later message is the
 * newer one, and of one list the later element [G4].
 *
 * It follows the clock of the day. Where that stands still for more messages than a ms has µs, or was set back, receipts
 * go on from the last one, 1 µs each, until the clock has caught up. After a restart they begin above the last receipt of the log.
 */
import { toMs, US_PER_MS } from '../model/time.ts'
import { utcDay } from '../model/utc-day.ts'

export interface Receipts {
  /** The receipt of a message that came at `now`, in ms of the clock. It counts only once it is used. */
  next(now: number): number
  /** The same where the elements of a message from this receipt on would reach into the next UTC day: the begin of that day. */
  nextDay(receipt: number): number
  /** All receipts up to this one are given out. */
  use(last: number): void
  /** How far receipts run ahead of the clock, ms. */
  aheadMs(now: number): number
}

/** `newest`: the last receipt of the log, in ms; 0 for none. */
export function openReceipts(newest: number): Receipts {
  let last = (newest + 1) * US_PER_MS - 1
  return {
    next: now => Math.max(now * US_PER_MS, last + 1),
    nextDay: receipt => (utcDay(toMs(receipt)) + 1) * 86_400_000 * US_PER_MS,
    use: used => {
      last = used
    },
    aheadMs: now => Math.max(0, toMs(last) - now),
  }
}

/** True when a message from the one receipt to the other lies in two UTC days: its rows would not be of one partition. */
export function crossesMidnight(first: number, last: number): boolean {
  return last !== first && utcDay(toMs(first)) !== utcDay(toMs(last))
}
