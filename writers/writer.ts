/**
 * The writer: brings the log into ClickHouse, each reading exactly once [G2]. One claim, one step at a time:
 *
 *   READY(from) → PLAN   choose `to`; commit(from, plan = {to}) durably, before the insert
 *               → INSERT the same rows in the same order, one block, one table partition, token = source/from-to
 *               → DONE   commit(to)
 *
 * An open plan found at a start is settled first, by what ClickHouse really holds (`settle.ts`). While one batch is being
 * inserted the next one is read; nothing of it is written before the first one is done. Memory: two batches.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Database } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { Chunk, Claim, Consumption, PumpOutlet } from '../pump/pump.ts'
import { type BatchLimits, takeBatch } from './batch.ts'
import { insertPlanned, type PlannedBatch } from './insert.ts'

export interface WriterOptions {
  readonly outlet: PumpOutlet
  readonly database: Database
  readonly limits: BatchLimits
  /** How long the first reading of a batch waits for others, ms. */
  readonly batchAgeMsMax: number
  readonly log: Logger
}

/** Follows the log until stopped. `ended` rejects only when an operator must act. */
export function openWriter(options: WriterOptions): Consumption {
  return options.outlet.consume(claim => writeClaim(claim, options))
}

const READ_CHUNKS_MAX = 512
const WAIT_MS = 250

async function writeClaim(claim: Claim, options: WriterOptions): Promise<void> {
  let position = claim.position
  if (claim.plan !== null) position = await finishPlan(claim, options)
  let next = collect(claim, position, options)
  while (!claim.lost.aborted) {
    const chunks = await next
    if (chunks.length === 0) {
      next = collect(claim, position, options)
      continue
    }
    reportGap(claim, position, chunks, options.log)
    const batch = planBatch(claim, position, chunks)
    await claim.commit(batch.from, { to: batch.to, mode: 'whole' })
    next = collect(claim, batch.to, options)
    next.catch(() => {})
    await writePlanned(claim, batch, false, options)
    position = batch.to
  }
}

/** The plan that an earlier life left open: the same range again, settled by what is stored. */
async function finishPlan(claim: Claim, options: WriterOptions): Promise<number> {
  const plan = claim.plan
  if (plan === null) return claim.position
  const chunks: Chunk[] = []
  for (let from = claim.position; from < plan.to; ) {
    const read = await claim.read(from, { chunksMax: READ_CHUNKS_MAX, bytesMax: options.limits.bytesMax })
    const inside = read.filter(chunk => chunk.position < plan.to)
    chunks.push(...inside)
    const last = inside.at(-1)
    if (last === undefined) break
    from = last.position + 1
  }
  reportGap(claim, claim.position, chunks, options.log)
  const batch: PlannedBatch = { source: claim.source, from: claim.position, to: plan.to, mode: plan.mode, chunks }
  options.log.info({ source: batch.source, from: batch.from, to: batch.to }, 'settling the insert that was under way')
  await writePlanned(claim, batch, true, options)
  return batch.to
}

function planBatch(claim: Claim, position: number, chunks: readonly Chunk[]): PlannedBatch {
  const last = chunks.at(-1)
  const to = last === undefined ? position : last.position + 1
  return { source: claim.source, from: position, to, mode: 'whole', chunks }
}

async function writePlanned(claim: Claim, batch: PlannedBatch, unsure: boolean, options: WriterOptions): Promise<void> {
  const deadLetters = await insertPlanned(batch, {
    database: options.database,
    log: options.log,
    lost: claim.lost,
    unsure,
    bisecting: () => claim.commit(batch.from, { to: batch.to, mode: 'bisected' }),
  })
  await claim.commit(batch.to, null, deadLetters)
  const readings = batch.chunks.reduce((sum, chunk) => sum + chunk.readings, 0)
  metrics.persisted.inc(readings - deadLetters.length)
  metrics.batchReadings.observe(readings)
  for (const letter of deadLetters) metrics.deadLetters.inc({ reason: letter.reason })
}

/** Chunks for the next insert: at once when they fill one, otherwise when the oldest has waited long enough. */
async function collect(claim: Claim, from: number, options: WriterOptions): Promise<Chunk[]> {
  const { limits, batchAgeMsMax } = options
  await claim.wait(from, WAIT_MS)
  let chunks: Chunk[] = []
  const deadline = performance.now() + batchAgeMsMax
  for (;;) {
    const at = chunks.at(-1)
    const read = await claim.read(at === undefined ? from : at.position + 1, {
      chunksMax: READ_CHUNKS_MAX,
      bytesMax: limits.bytesMax,
    })
    const { taken, full } = takeBatch([...chunks, ...read], limits)
    chunks = taken
    if (full || chunks.length === 0 || claim.lost.aborted) return chunks
    const leftMs = deadline - performance.now()
    if (leftMs <= 0) return chunks
    if (read.length === 0) await pause(Math.min(leftMs, WAIT_MS / 5))
  }
}

/** Retention must never cut what is not written; if it did, nobody may miss it [G5]. */
function reportGap(claim: Claim, position: number, chunks: readonly Chunk[], log: Logger): void {
  const first = chunks[0]
  if (first === undefined || first.position === position) return
  const gap = new SurgetankError('log_cut', `${claim.source}: positions ${position} to ${first.position - 1} are gone.`)
  log.error({ err: gap, source: claim.source, from: position, to: first.position }, gap.message)
}
