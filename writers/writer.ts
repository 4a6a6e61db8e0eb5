/**
 * The writer: brings the log into ClickHouse, each reading exactly once [G2]. For each claim, one step at a time:
 *
 *   READY(from) → PLAN   choose `to`; commit(from, plan = {to}) durably, before the insert
 *               → INSERT the same rows in the same order, one block, one table partition, token = source/from-to
 *               → DONE   commit(to)
 *
 * A claim begins with what ClickHouse really holds: a position that is behind it moves on (`behind.ts`), and an open plan
 * is settled (`settle.ts`). While one batch is being inserted the next one is read; nothing of it is written before the
 * first one is done.
 *
 * A writer may hold the claims of many partitions. They share nothing but turns and memory: `insertsMax` inserts are under
 * way at one time, and the claims divide the bytes of a batch, so that all together hold about two batches [G5]. A plan
 * that another writer made may be larger than that share: few are settled at one time.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Database } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { Chunk, Claim, Consumption, DeadLetter, Plan, PumpOutlet } from '../pump/pump.ts'
import { type BatchLimits, takeBatch } from './batch.ts'
import { goToStored } from './behind.ts'
import { openFence } from './fence.ts'
import { reportGap, reportGapOfPlan } from './gap.ts'
import { type InsertOptions, insertPlanned, type PlannedBatch } from './insert.ts'
import { encodeRows } from './rows.ts'
import type { Refusals } from './settle.ts'
import { openTurns, type Turns } from './turns.ts'

export interface WriterOptions {
  readonly outlet: PumpOutlet
  readonly database: Database
  /** Of one insert; `bytesMax` is divided among the claims that are held. */
  readonly limits: BatchLimits
  /** How long the first reading of a batch waits for others, ms. */
  readonly batchAgeMsMax: number
  /** The pause after a first failure; it doubles up to 5 s. */
  readonly retryMsMin: number
  /** Inserts under way at one time, of all claims. */
  readonly insertsMax?: number
  readonly log: Logger
}

/** As many as the embedded engine runs at one time; a server takes few large inserts better than many small ones. */
const INSERTS_MAX = 2
const SETTLING_MAX = 2
/** However many claims there are: less would make inserts too small to be worth one. */
const BATCH_BYTES_MIN = 1 << 20

/** Follows the log until stopped. `ended` rejects only when an operator must act. */
export function openWriter(options: WriterOptions): Consumption {
  const shared = {
    inserts: openTurns(options.insertsMax ?? INSERTS_MAX),
    settling: openTurns(SETTLING_MAX),
    claims: 0,
  }
  return options.outlet.consume(async claim => {
    shared.claims++
    try {
      await writeClaim(claim, { ...options, shared, refusals: { inARow: 0 } })
    } finally {
      shared.claims--
    }
  })
}

interface Work extends WriterOptions {
  readonly shared: { readonly inserts: Turns; readonly settling: Turns; claims: number }
  readonly refusals: Refusals
}

const READ_CHUNKS_MAX = 512
const WAIT_MS = 250

async function writeClaim(claim: Claim, options: Work): Promise<void> {
  let unsure = await goToStored(claim, options)
  let position = claim.plan === null ? claim.position : await finishPlan(claim, claim.plan, options)
  let next = readAhead(claim, position, options)
  while (!claim.lost.aborted) {
    const batch = await next
    if (batch === null) {
      next = readAhead(claim, position, options)
      continue
    }
    const plan = { to: batch.to, mode: batch.mode }
    const fence = openFence(claim, batch.from, plan, Date.now())
    await claim.commit(batch.from, plan)
    position = batch.to
    next = readAhead(claim, position, options)
    await moveOn(claim, batch, await insertPlanned(batch, storing(claim, { fence, unsure }, options)))
    unsure = false
  }
}

/** The plan that an earlier life left open: the same range again, settled by what is stored. */
async function finishPlan(claim: Claim, plan: Plan, options: Work): Promise<number> {
  const end = await options.shared.settling.take(claim.lost)
  try {
    const chunks = await readPlan(claim, plan, options)
    const { source, position: from } = claim
    const batch = { source, from, to: plan.to, mode: plan.mode, chunks, block: encodeRows(source, chunks) }
    options.log.info({ source, from, to: plan.to }, 'settling the insert that was under way')
    const fence = openFence(claim, from, plan, 0)
    const deadLetters = await insertPlanned(batch, storing(claim, { fence, unsure: true }, options))
    await reportGapOfPlan(batch, options)
    await moveOn(claim, batch, deadLetters)
    return plan.to
  } finally {
    end()
  }
}

/**
 * Of a planned range, what the log still holds. It may have been cut at its beginning, and nowhere else: a log that ends before the
 * plan does is one that does not show all of it at the moment, and must be asked again.
 */
async function readPlan(claim: Claim, plan: Plan, { limits }: Work): Promise<Chunk[]> {
  const chunks: Chunk[] = []
  for (let from = claim.position; from < plan.to; ) {
    const read = await claim.read(from, { chunksMax: READ_CHUNKS_MAX, bytesMax: limits.bytesMax })
    const inside = read.filter(chunk => chunk.position < plan.to)
    chunks.push(...inside)
    const last = inside.at(-1)
    if (last !== undefined) from = last.position + 1
    else if ((await claim.begins()) >= plan.to) break
    else
      throw new SurgetankError(
        'log_unavailable',
        `${claim.source} does not show ${from} to ${plan.to - 1} at the moment.`,
      )
  }
  return chunks
}

/** As `nextBatch`, awaited on the next round, unless the claim is lost or this round fails first. */
function readAhead(claim: Claim, from: number, options: Work): Promise<PlannedBatch | null> {
  const next = nextBatch(claim, from, options)
  next.catch(() => {})
  return next
}

/** The next batch, ready to be inserted; null when nothing came for a while. */
async function nextBatch(claim: Claim, from: number, options: Work): Promise<PlannedBatch | null> {
  const chunks = await collect(claim, from, options)
  const last = chunks.at(-1)
  if (last === undefined) return null
  const { source } = claim
  reportGap({ source, from, to: chunks[0]?.position ?? from }, options.log)
  return { source, from, to: last.position + 1, mode: 'whole', chunks, block: encodeRows(source, chunks) }
}

type OfPlan = Pick<InsertOptions, 'fence' | 'unsure'>

function storing(
  { lost }: Claim,
  ofPlan: OfPlan,
  { database, log, retryMsMin, refusals, shared }: Work,
): InsertOptions {
  return { ...ofPlan, lost, database, log, retryMsMin, refusals, inserts: shared.inserts }
}

/** All is stored: the claim moves beyond the batch, and what was refused is kept in the same step. */
async function moveOn(claim: Claim, batch: PlannedBatch, deadLetters: readonly DeadLetter[]): Promise<void> {
  await claim.commit(batch.to, null, deadLetters)
  metrics.persisted.inc(batch.block.rows - deadLetters.length)
  metrics.batchReadings.observe(batch.block.rows)
  for (const letter of deadLetters) metrics.deadLetters.inc({ reason: letter.reason })
}

/** Chunks for the next insert: at once when they fill one, otherwise when the oldest has waited long enough. */
async function collect(claim: Claim, from: number, options: Work): Promise<Chunk[]> {
  await claim.wait(from, WAIT_MS)
  let chunks: Chunk[] = []
  const deadline = performance.now() + options.batchAgeMsMax
  for (;;) {
    const limits = shareOf(options)
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

/** Claims come and go: asked for at each step. */
function shareOf({ limits, shared }: Work): BatchLimits {
  const { rowsMax, bytesMax } = limits
  const share = Math.floor(bytesMax / Math.max(1, shared.claims))
  return { rowsMax, bytesMax: Math.min(bytesMax, Math.max(share, BATCH_BYTES_MIN)) }
}
