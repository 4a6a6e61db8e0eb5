/**
 * Settling rows whose last insert ended nobody knows how: a kill, a lost answer, a restart. ClickHouse tells what it holds,
 * and it is completed exactly [G2].
 *
 * A deduplication token alone is not enough on a plain MergeTree: its log is written before the part is renamed into
 * place, so a kill between the two makes every retry a silent no-op (`docs/decisions/003-plan-before-insert.md`). Hence:
 *
 * - none of the rows stored → insert; still none → the token outlived its rows: forget it, insert again.
 * - all stored → they are not inserted again: their token may have been forgotten meanwhile.
 * - some stored → not one insert's doing; the caller decides.
 * - then what the rollups and `state` lack of these rows is filled: each is fed by a view of its own, and can have lost its
 *   part while `readings` has the rows.
 */
import type { Logger } from 'pino'
import type { Database, RowBlock, SourceRange } from '../database/database.ts'

/** Rows that are inserted together, under a token that stands for exactly these. */
export interface Piece {
  readonly range: SourceRange
  readonly block: RowBlock
  readonly token: string
}

export interface StoreOptions {
  readonly database: Database
  readonly log: Logger
  readonly lost: AbortSignal
  readonly refusals: Refusals
}

/** Of one writer: rows that ClickHouse refused since it last took one. */
export interface Refusals {
  inARow: number
}

/** `stored`: every row is stored once, rollups included. `partial`: some are, and nothing was done. Rejects as an insert does. */
export async function settle({ range, block, token }: Piece, options: StoreOptions): Promise<'stored' | 'partial'> {
  const { database, log, lost } = options
  const insert = () => database.insertReadings(block, token, lost)
  // The attempt that ended nobody knows how may still be at work in the engine: what is stored is asked after that.
  await database.waitForInserts(lost)
  const stored = await database.countReadings(range)
  if (stored > block.rows) log.error({ ...range, stored, rows: block.rows }, 'rows are stored more than once')
  if (stored !== 0 && stored < block.rows) return 'partial'
  if (stored === 0) {
    await insert()
    if ((await database.countReadings(range)) === 0) {
      log.warn(range, 'a deduplication token outlived its rows; inserting them again')
      await database.forgetTokens()
      await insert()
    }
  }
  const lacking = await database.repairDerived(range)
  if (lacking > 0) log.warn({ ...range, lacking }, 'rollups lacked these rows; they are filled')
  return 'stored'
}
