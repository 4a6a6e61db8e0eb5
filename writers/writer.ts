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
import type { Chunk, Claim, Consumption, Plan, PumpOutlet } from '../pump/pump.ts'
import { type BatchLimits, takeBatch } from './batch.ts'
import { insertPlanned, type PlannedBatch } from './insert.ts'
import { encodeRows } from './rows.ts'
import type { Refusals } from './settle.ts'

export interface WriterOptions {
  readonly outlet: PumpOutlet
  readonly database: Database
  readonly limits: BatchLimits
  /** How long the first reading of a batch waits for others, ms. */
  readonly batchAgeMsMax: number
  /** The pause after a first failure; it doubles up to 5 s. */
  readonly retryMsMin: number
  readonly log: Logger
}

/** Follows the log until stopped. `ended` rejects only when an operator must act. */
export function openWriter(options: WriterOptions): Consumption {
  const work = { ...options, refusals: { inARow: 0 } }
  return options.outlet.consume(claim => writeClaim(claim, work))
}

interface Work extends WriterOptions {
  readonly refusals: Refusals
}

const READ_CHUNKS_MAX = 512
const WAIT_MS = 250

async function writeClaim(claim: Claim, options: Work): Promise<void> {
  let position = claim.position
  if (claim.plan !== null) position = await finishPlan(claim, claim.plan, options)
  let next = nextBatch(claim, position, options)
  while (!claim.lost.aborted) {
    const batch = await next
    if (batch === null) {
      next = nextBatch(claim, position, options)
      continue
    }
    await claim.commit(batch.from, { to: batch.to, mode: batch.mode })
    position = batch.to
    next = nextBatch(claim, position, options)
    // Awaited on the next round, unless this one fails first.
    next.catch(() => {})
    await writePlanned(claim, batch, false, options)
  }
}

/** The plan that an earlier life left open: the same range again, settled by what is stored. */
async function finishPlan(claim: Claim, plan: Plan, options: Work): Promise<number> {
  const chunks: Chunk[] = []
  for (let from = claim.position; from < plan.to; ) {
    const read = await claim.read(from, { chunksMax: READ_CHUNKS_MAX, bytesMax: options.limits.bytesMax })
    const inside = read.filter(chunk => chunk.position < plan.to)
    chunks.push(...inside)
    const last = inside.at(-1)
    if (last === undefined) break
    from = last.position + 1
  }
  const batch = { ...prepare(claim, claim.position, chunks, options), to: plan.to, mode: plan.mode }
  options.log.info({ source: batch.source, from: batch.from, to: batch.to }, 'settling the insert that was under way')
  await writePlanned(claim, batch, true, options)
  return batch.to
}

/** The next batch, ready to be inserted; null when nothing came for a while. */
async function nextBatch(claim: Claim, from: number, options: Work): Promise<PlannedBatch | null> {
  const chunks = await collect(claim, from, options)
  return chunks.length === 0 ? null : prepare(claim, from, chunks, options)
}

function prepare({ source }: Claim, from: number, chunks: readonly Chunk[], options: Work): PlannedBatch {
  reportGap(source, from, chunks, options.log)
  const to = (chunks.at(-1)?.position ?? from - 1) + 1
  return { source, from, to, mode: 'whole', chunks, block: encodeRows(source, chunks) }
}

async function writePlanned(claim: Claim, batch: PlannedBatch, unsure: boolean, options: Work): Promise<void> {
  const { database, log, refusals, retryMsMin } = options
  const bisecting = () => claim.commit(batch.from, { to: batch.to, mode: 'bisected' })
  const deadLetters = await insertPlanned(batch, {
    database,
    log,
    refusals,
    lost: claim.lost,
    retryMsMin,
    unsure,
    bisecting,
  })
  await claim.commit(batch.to, null, deadLetters)
  metrics.persisted.inc(batch.block.rows - deadLetters.length)
  metrics.batchReadings.observe(batch.block.rows)
  for (const letter of deadLetters) metrics.deadLetters.inc({ reason: letter.reason })
}

/** Chunks for the next insert: at once when they fill one, otherwise when the oldest has waited long enough. */
async function collect(claim: Claim, from: number, { limits, batchAgeMsMax }: Work): Promise<Chunk[]> {
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
function reportGap(source: string, position: number, chunks: readonly Chunk[], log: Logger): void {
  const first = chunks[0]
  if (first === undefined || first.position === position) return
  const gap = new SurgetankError('log_cut', `${source}: positions ${position} to ${first.position - 1} are gone.`)
  log.error({ err: gap, source, from: position, to: first.position }, gap.message)
}
