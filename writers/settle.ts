/**
 * Settling a range whose last insert ended nobody knows how: a kill, a lost answer, a restart. ClickHouse tells what it
 * holds, and the range is completed exactly [G2].
 *
 * A deduplication token alone is not enough on a plain MergeTree: its log is written before the part is renamed into
 * place, so a kill between the two makes every retry a silent no-op (`docs/decisions/003-plan-before-insert.md`). Hence:
 *
 * - none of the rows stored → insert; still none → the token outlived its rows: forget it, insert again.
 * - all stored → insert again under the same token: ClickHouse drops the rows, and fills rollups that lack them.
 * - some stored cannot come from one block; if it does, exactly the missing ones are inserted.
 * - `state` keeps the newest only, so it may take the rows twice: its token is always forgotten.
 * - a rollup that lacks exactly these readings lost its part while its token was kept: forget it, insert again.
 */
import type { Logger } from 'pino'
import type { Database, RowBlock } from '../database/database.ts'
import { rangeToken } from './batch.ts'
import { insertMissing } from './bisect.ts'
import type { PlannedBatch } from './insert.ts'

export interface SettleOptions {
  readonly database: Database
  readonly log: Logger
  readonly lost: AbortSignal
}

/** Resolves when every row of the batch is stored once, rollups included. Rejects as `Database.insertReadings` does. */
export async function settleRange(batch: PlannedBatch, block: RowBlock, options: SettleOptions): Promise<void> {
  const { database, log, lost } = options
  const token = rangeToken(batch.source, batch.from, batch.to)
  const insert = () => database.insertReadings(block, token, lost)
  const stored = await database.countReadings(batch)
  if (stored !== 0 && stored !== block.rows) {
    log.error({ ...rangeOf(batch), stored, rows: block.rows }, 'a range is stored in part; inserting what is missing')
    await insertMissing(batch, database, lost)
    return
  }
  await database.forgetTokens('state')
  await insert()
  if (stored === 0 && (await database.countReadings(batch)) === 0) {
    log.warn(rangeOf(batch), 'a deduplication token outlived its rows; inserting them again')
    await database.forgetTokens('readings')
    await insert()
  }
  for (const rollup of await database.rollupsLacking(batch)) {
    log.warn({ ...rangeOf(batch), rollup }, 'a rollup lost the rows of this range; inserting them again')
    await database.forgetTokens(rollup)
    await insert()
  }
}

function rangeOf(batch: PlannedBatch): { source: string; from: number; to: number } {
  return { source: batch.source, from: batch.from, to: batch.to }
}
