/**
 * A claim on the log on this disk. Each commit is one durable transaction that first looks whether a newer claim was
 * taken, in this process or another: then it changes nothing, rejects with `log_claim_lost`, and `lost` fires [G2].
 */
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../errors.ts'
import type { Env } from './lmdb-env.ts'
import { behindPositions, readChunksOf, readHeader, readLogMeta, sourceOf } from './lmdb-log.ts'
import {
  LETTER_BOUNDS,
  putLetters,
  putPositionsMeta,
  putSource,
  readPositionsMeta,
  readSource,
  type SourceRecord,
} from './lmdb-positions.ts'
import type { Chunk, Claim, DeadLetter, Plan, ReadLimits } from './pump.ts'

export interface HeldClaim {
  readonly claim: Claim
  /** Lets the step under way be committed, then fires `lost`; at once when there is none. */
  finish(): void
  /** Fires `lost` now. */
  drop(): void
  /** True once a commit succeeded. */
  readonly fruitful: boolean
  /** True when a newer claim was seen. */
  readonly overtaken: boolean
  /** To be called when `work` has returned: the claim does nothing more. */
  release(): void
}

export interface ClaimEnvs {
  readonly log: Env
  readonly positions: Env
}

const POLL_MS = 25
const LOOK_MS = 500
const BEHIND_MS_MAX = 4_000

/** Takes the claim over from whoever has it. Rejects with `log_cut` when the log is an older copy. */
export async function takeClaim(envs: ClaimEnvs): Promise<HeldClaim | 'no log'> {
  const { log, positions } = envs
  const found = await log.read(readLogMeta)
  if (found === null) return 'no log'
  const source = sourceOf(found)
  const { epoch, record } = await positions.write(db => {
    const before = readPositionsMeta(db)
    putPositionsMeta(db, { ...before, epoch: before.epoch + 1 })
    return { epoch: before.epoch + 1, record: readSource(db, source) }
  })
  const reached = Math.max(record.position, record.plan?.to ?? 0)
  // Right after this process opened the log it may see it as it was a moment ago, see `lmdb-env.ts`.
  const deadline = performance.now() + BEHIND_MS_MAX
  for (let end = await endOf(log); end < reached; end = await endOf(log)) {
    if (performance.now() > deadline) throw behindPositions(end, reached)
    await pause(LOOK_MS)
  }
  return holdClaim(envs, { source, epoch, record })
}

async function endOf(log: Env): Promise<number> {
  return (await log.read(readLogMeta))?.end ?? 0
}

function holdClaim(
  { log, positions }: ClaimEnvs,
  taken: { source: string; epoch: number; record: SourceRecord },
): HeldClaim {
  const { source, epoch } = taken
  const lost = new AbortController()
  let { record } = taken
  let finishing = false
  let fruitful = false
  let overtaken = false
  // A claim that is inserting for minutes learns it too.
  const looking = setInterval(() => void look().catch(() => {}), LOOK_MS)
  looking.unref()

  const claim: Claim = {
    partition: 0,
    source,
    get position() {
      return record.position
    },
    get plan() {
      return record.plan
    },
    lost: lost.signal,
    begins: async () => (await log.read(readLogMeta))?.first ?? 0,
    ends: () => endOf(log),
    read,
    wait,
    commit,
  }
  return {
    claim,
    finish,
    drop: () => lost.abort(),
    get fruitful() {
      return fruitful
    },
    get overtaken() {
      return overtaken
    },
    release,
  }

  function read(from: number, limits: ReadLimits): Promise<Chunk[]> {
    return readChunksOf(log, from, limits)
  }

  async function wait(position: number, waitMs: number): Promise<void> {
    const deadline = performance.now() + waitMs
    while (!lost.signal.aborted) {
      const meta = await log.read(readLogMeta)
      const leftMs = deadline - performance.now()
      if ((meta !== null && meta.end > position) || leftMs <= 0) return
      await pause(Math.min(POLL_MS, leftMs), undefined, { signal: lost.signal }).catch(() => {})
    }
  }

  async function commit(position: number, plan: Plan | null, deadLetters: readonly DeadLetter[] = []): Promise<void> {
    if (finishing && lost.signal.aborted && plan !== null) throw claimLost()
    const readings = position === record.position ? record.readings : await readingsBefore(position)
    try {
      record = await positions.write(db => {
        const meta = readPositionsMeta(db)
        if (meta.epoch !== epoch) throw claimLost()
        const before = readSource(db, source)
        if (position < before.position)
          throw new RangeError(`A position never goes back: ${before.position} to ${position}.`)
        const letters = putLetters(db, meta, deadLetters, LETTER_BOUNDS)
        const next = { position, plan, readings, deadLetters: before.deadLetters + letters.added }
        putPositionsMeta(db, letters.meta)
        putSource(db, source, next)
        return next
      })
    } catch (error) {
      if (error instanceof SurgetankError && error.code === 'log_claim_lost') overtake()
      throw error
    }
    fruitful = true
    if (finishing && plan === null) lost.abort()
  }

  /** Of the chunks before `position`; the books are exact only because this is kept with it. */
  async function readingsBefore(position: number): Promise<number> {
    const readings = await log.read(db => {
      const meta = readLogMeta(db)
      if (meta === null || position > meta.end) throw new RangeError(`The log ends before ${position}.`)
      if (position === meta.end) return meta.readings
      return (readHeader(db, Math.max(position, meta.first)) as { readingsBefore: number }).readingsBefore
    })
    return readings ?? 0
  }

  async function look(): Promise<void> {
    const newest = await positions.read(db => readPositionsMeta(db).epoch)
    if (newest !== null && newest > epoch) overtake()
  }

  function overtake(): void {
    overtaken = true
    lost.abort()
  }

  function release(): void {
    clearInterval(looking)
    lost.abort()
  }

  function finish(): void {
    finishing = true
    if (record.plan === null) lost.abort()
  }
}

function claimLost(): SurgetankError {
  return new SurgetankError('log_claim_lost', 'Its commit was refused.')
}
