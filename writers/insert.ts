/**
 * One planned batch into ClickHouse, whatever happens to ClickHouse meanwhile.
 *
 * A batch is tried until it is stored: never given up, never split while an attempt is in doubt. After any attempt whose
 * end is unknown the batch is `unsure`, and what is stored decides (`settle.ts`). Only a definite refusal of rows (fate
 * `reject`) bisects; a refusal of schema or user (fate `stop`) is an alarm and a slow retry, because the rows are good.
 */
import type { RowBlock } from '../database/database.ts'
import { hasFate, SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { Chunk, DeadLetter, Plan } from '../pump/pump.ts'
import { rangeToken } from './batch.ts'
import { insertBisected, insertMissing } from './bisect.ts'
import { claimLost } from './fence.ts'
import { type RetryOptions, waitToRetry } from './retry.ts'
import { insertFenced, type StoreOptions, settle } from './settle.ts'

/** A range of the log that a durable plan names. */
export interface PlannedBatch {
  readonly source: string
  readonly from: number
  readonly to: number
  readonly mode: Plan['mode']
  /** Those that the log holds: retention may have cut the first of them, or all. */
  readonly chunks: readonly Chunk[]
  /** Their rows. */
  readonly block: RowBlock
}

export interface InsertOptions extends StoreOptions, RetryOptions {
  /** True when an earlier attempt at this very range may have stored something. */
  readonly unsure: boolean
}

/** Resolves when every reading of the batch is stored, but for those it returns. Rejects only when the claim is lost. */
export async function insertPlanned(batch: PlannedBatch, options: InsertOptions): Promise<DeadLetter[]> {
  if (batch.block.rows === 0 && !options.unsure) return []
  let unsure = options.unsure
  let bisected = batch.mode === 'bisected'
  for (let failures = 0; ; failures++) {
    throwIfLost(options.lost, batch)
    try {
      if (bisected) return await insertBisected(batch, unsure, options)
      const stop = metrics.insertSeconds.startTimer()
      await insertWhole(batch, unsure, options)
      stop()
      options.refusals.inARow = 0
      metrics.batches.inc({ result: 'stored' })
      return []
    } catch (error) {
      throwIfLost(options.lost, batch)
      if (error instanceof SurgetankError && error.code === 'log_claim_lost') throw error
      if (hasFate(error, 'reject') && !bisected) {
        options.log.warn(
          { err: error, source: batch.source, from: batch.from, to: batch.to },
          'ClickHouse refuses rows; bisecting',
        )
        await options.fence.change('bisected')
        bisected = true
        metrics.batches.inc({ result: 'refused' })
        continue
      }
      unsure = true
      metrics.batches.inc({ result: 'failed' })
      await waitToRetry(error, failures, options)
    }
  }
}

async function insertWhole(batch: PlannedBatch, unsure: boolean, options: InsertOptions): Promise<void> {
  const { source, from, to, block, chunks } = batch
  const token = rangeToken(source, from, to)
  if (!unsure) return insertFenced({ block, token }, options)
  const range = { source, from, to }
  if ((await settle({ range, block, token, cut: chunks[0]?.position !== from }, options)) === 'stored') return
  options.log.error({ ...range, rows: block.rows }, 'a range is stored in part; inserting what is missing')
  await insertMissing(batch, options)
}

function throwIfLost(lost: AbortSignal, batch: PlannedBatch): void {
  if (lost.aborted) throw claimLost(batch, batch.from)
}
