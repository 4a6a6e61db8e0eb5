/**
 * What a log of format 2 knows of messages: running sums, in the log's own record, so that a batch without lines needs no
 * chunk, and what was counted outlives the chunks.
 *
 * A log of format 1 becomes one of format 2 with its first append, and counts from then on: how many messages it took
 * before is not known any more. Only those that it quarantined are, and they are counted in.
 */
import type { Db, Env } from './lmdb-env.ts'
import { type Counted, FORMAT, type LogMeta, readHeader } from './lmdb-log.ts'
import { putRepeated } from './lmdb-repeated.ts'
import { addMessages, NO_MESSAGES } from './message-counts.ts'
import type { Batch } from './pump.ts'

/** `since`: ms since 1970 UTC; null for a log that is being made. */
export function beginCounting({ quarantineEnd }: LogMeta, since: number | null, lastReceivedAt: number): Counted {
  const known = quarantineEnd - 1
  return {
    since,
    sums: { ...NO_MESSAGES, received: known, quarantined: known },
    lastReceivedAt,
    ...{ repeatedFirst: 1, repeatedEnd: 1, repeatedBytes: 0 },
  }
}

export interface CountOptions {
  /** What counting begins with, in a log of format 1. */
  readonly begin: () => Counted
  readonly pageBytes: number
}

/** Adds what the batch counts, and lists its repetitions. Returns what to put as meta: of format 2 from now on. */
export function countBatch(db: Db, before: LogMeta, batch: Batch, { begin, pageBytes }: CountOptions): LogMeta {
  const counted = before.counted ?? begin()
  const { repeatedFirst, repeatedEnd, repeatedBytes } = putRepeated(db, counted, batch.repeated, pageBytes)
  const sums = addMessages(counted.sums, batch)
  const newest = batch.messages === 0 ? 0 : batch.lastReceivedAt
  const lastReceivedAt = Math.max(counted.lastReceivedAt, newest)
  // Field by field: at a low rate each message pays for this.
  const next = { since: counted.since, sums, lastReceivedAt, repeatedFirst, repeatedEnd, repeatedBytes }
  return { ...before, format: FORMAT, counted: next }
}

const HEADERS_OF_A_READ = 1_000

/** The newest receipt of all chunks held, ms since 1970 UTC: for a log of format 1, which did not keep it. 0 for none. */
export async function newestHeld(log: Env, { first, end }: LogMeta): Promise<number> {
  let newest = 0
  for (let from = first; from < end; from += HEADERS_OF_A_READ) {
    const to = Math.min(end, from + HEADERS_OF_A_READ)
    newest = Math.max(newest, (await log.read(db => newestIn(db, from, to))) ?? 0)
  }
  return newest
}

function newestIn(db: Db, from: number, to: number): number {
  let newest = 0
  for (let at = from; at < to; at++) newest = Math.max(newest, receiptOf(db, at))
  return newest
}

/** A damaged chunk stops whoever reads it, and not the start of the inlet. */
function receiptOf(db: Db, position: number): number {
  try {
    return readHeader(db, position)?.lastReceivedAt ?? 0
  } catch {
    return 0
  }
}
