/**
 * Settling rows whose last insert ended nobody knows how: a kill, a lost answer, a restart. ClickHouse tells what it holds,
 * and it is completed exactly [G2].
 *
 * A deduplication token alone is not enough on a plain MergeTree: its log is written before the part is renamed into
 * place, so a kill between the two makes every retry a silent no-op (`docs/decisions/003-plan-before-insert.md`). Hence:
 *
 * - none of the rows stored → insert; still none → the token outlived its rows: they are stored past it. The token stays,
 *   so that a former owner of the claim, should it wake and send its insert, stores nothing.
 * - all stored → they are not inserted again: their token may have been forgotten meanwhile.
 * - some stored → not one insert's doing; the caller decides.
 * - then what the rollups and `state` lack of these rows is filled: each is fed by a view of its own, and can have lost its
 *   part while `readings` has the rows.
 */
import type { Logger } from 'pino'
import type { Database, RowBlock, SourceRange } from '../database/database.ts'
import type { PlanFence } from './fence.ts'
import type { Turns } from './turns.ts'

/** Rows that are inserted together, under a token that stands for exactly these. */
export interface Piece {
  readonly range: SourceRange
  readonly block: RowBlock
  readonly token: string
  /** The log no longer holds all rows of the range: more may be stored than the block has. */
  readonly cut: boolean
}

export interface StoreOptions {
  readonly database: Database
  readonly log: Logger
  readonly lost: AbortSignal
  readonly refusals: Refusals
  readonly fence: PlanFence
  /** Of all claims of this writer: an insert holds one. */
  readonly inserts: Turns
}

/** Of one claim: rows that ClickHouse refused since it last took one. */
export interface Refusals {
  inARow: number
}

/** An insert under a token, behind the fence. Rejects as an insert does, and with `log_claim_lost`. */
export async function insertFenced(
  { block, token }: Pick<Piece, 'block' | 'token'>,
  { database, fence, inserts, lost }: StoreOptions,
): Promise<void> {
  const end = await inserts.take(lost)
  try {
    await fence.check()
    await database.insertReadings(block, token, lost)
  } finally {
    end()
  }
}

/** What is under way for this source ends, and what is stored is seen. To be called before it is counted. */
export async function standStill(source: string, { database, lost }: StoreOptions): Promise<void> {
  // The attempt that ended nobody knows how may still be at work in the engine: what is stored is asked after that.
  await database.waitForInserts(source, lost)
  await database.catchUp()
}

/** `stored`: every row is stored once, rollups included. `partial`: some are, and nothing was done. Rejects as an insert does. */
export async function settle(piece: Piece, options: StoreOptions): Promise<'stored' | 'partial'> {
  const { range, block, cut } = piece
  const { database, log, fence } = options
  await standStill(range.source, options)
  const stored = await database.countReadings(range)
  if (stored > block.rows && !cut) log.error({ ...range, stored, rows: block.rows }, 'rows are stored more than once')
  if (stored !== 0 && stored < block.rows) return 'partial'
  if (stored === 0 && block.rows === 0) return 'stored'
  if (stored === 0) {
    await insertFenced(piece, options)
    if ((await database.countReadings(range)) === 0) {
      log.warn(range, 'a deduplication token outlived its rows; storing them past it')
      await database.restoreReadings(block, range, fence.confirm)
    }
  }
  const lacking = await database.repairDerived(range, fence.confirm)
  if (lacking > 0) log.warn({ ...range, lacking }, 'rollups lacked these rows; they are filled')
  return 'stored'
}
