/**
 * The protocol of the writers against an ill ClickHouse [G2]: whatever fails and whenever the writer is killed, each reading
 * ends up once in `readings` and once in each rollup. Killed means: its next life knows only what was committed durably.
 */
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import type { RowBlock } from '../../database/database.ts'
import { encodeLine } from '../../model/message.ts'
import type { Chunk, Claim, DeadLetter, Plan, PumpOutlet } from '../../pump/pump.ts'
import { openWriter } from '../../writers/writer.ts'
import { accepted } from '../contracts/pump-samples.ts'
import {
  INSERT_FATES,
  type InsertFate,
  type ModelDatabase,
  type ModelRow,
  openModelDatabase,
} from './model-database.ts'

const DAY = Date.UTC(2026, 10, 20)

describe('the writer', () => {
  it('makes a plan durable before it inserts, and moves on only after [G2]', async () => {
    const run = openRun({ chunks: 3, rowsMax: 1_000, fates: [] })
    await run.life()
    expect(run.steps).toEqual(['commit 0 plan 3 whole', 'insert log/0/0-3', 'commit 3'])
  })

  it('settles the plan that an earlier life left open before anything else [G2]', async () => {
    const run = openRun({ chunks: 3, rowsMax: 1_000, fates: ['killed_after'] })
    await run.life()
    expect(run.finished()).toBe(false)
    run.steps.length = 0
    await run.life()
    expect(run.steps).toEqual(['repair', 'commit 3'])
    run.expectOnce()
  })

  it('stores the rows past their token when that outlived them [G2]', async () => {
    const run = openRun({ chunks: 2, rowsMax: 1_000, fates: ['killed_readings_token_only'] })
    await run.life()
    await run.life()
    expect(run.model.calls).toContain('restore')
    run.expectOnce()
  })

  it('goes on behind what ClickHouse holds when its position was lost [G2]', async () => {
    const run = openRun({ chunks: 5, rowsMax: 4, fates: ['ok', 'ok', 'killed_before'] })
    await run.life()
    run.goBack(0)
    run.steps.length = 0
    await run.life()
    expect(run.steps.filter(step => !step.startsWith('repair'))).toEqual([
      ...['commit 0', 'commit 3 plan 4 whole', 'commit 4'],
      ...['commit 4 plan 5 whole', 'insert log/0/4-5', 'commit 5'],
    ])
    expect(run.alarms.join()).toContain('the position is behind')
    run.expectOnce()
  })

  it('takes the batch behind what is stored for one that may have been tried before, when its position went back [G2]', async () => {
    const run = openRun({ chunks: 3, rowsMax: 2, fates: ['ok', 'ok', 'killed_readings_token_only'] })
    await run.life()
    run.goBack(1)
    await run.life()
    expect(run.model.calls).toContain('restore')
    run.expectOnce()
  })

  it('keeps what was refused of the last stored chunk once more when its position went back, and stores nothing more', async () => {
    const run = openRun({ chunks: 5, rowsMax: 1_000, fates: [], poison: new Set(['2/0', '4/1']) })
    await run.life()
    run.goBack(0)
    await run.life()
    expect(run.finished()).toBe(true)
    expect(run.deadLetters.map(({ position, index }) => `${position}/${index}`)).toEqual(['2/0', '4/1', '4/1'])
    run.expectOnce()
  })

  it('fills a rollup that lost its part [G2]', async () => {
    const run = openRun({ chunks: 2, rowsMax: 1_000, fates: ['killed_rollup_token_only'] })
    await run.life()
    await run.life()
    run.expectOnce()
  })

  it('tries again for as long as ClickHouse is away, under the same token [G5]', async () => {
    const run = openRun({ chunks: 1, rowsMax: 1_000, fates: ['refused_to_connect', 'answer_lost'] })
    await run.life()
    expect(new Set(run.model.calls.filter(call => call.startsWith('insert')))).toEqual(new Set(['insert log/0/0-1']))
    run.expectOnce()
  })

  it('stores all but the rows that ClickHouse refuses, and keeps these as dead letters, once', async () => {
    const run = openRun({ chunks: 4, rowsMax: 1_000, fates: [], poison: new Set(['1/1', '3/0']) })
    await run.life()
    expect(run.deadLetters.map(({ position, index, reason }) => `${position}/${index} ${reason}`)).toEqual([
      '1/1 database_refuses_rows',
      '3/0 database_refuses_rows',
    ])
    run.expectOnce()
  })

  it('makes no more dead letters when ClickHouse refuses row after row: then it is not the rows', async () => {
    const everything = new Set(Array.from({ length: 60 }, (_, position) => [`${position}/0`, `${position}/1`]).flat())
    const run = openRun({ chunks: 60, rowsMax: 1_000, fates: [], poison: everything })
    await Promise.race([run.life(), until(() => run.alarms.length > 0)])
    expect(run.deadLetters.length).toBeLessThanOrEqual(100)
    expect(run.finished()).toBe(false)
    expect(run.alarms[0]).toMatch(/refuses schema or user/)
  })

  it('goes on bisecting after a kill in the middle of it, without a second copy', async () => {
    const fates: InsertFate[] = ['ok', 'ok', 'killed_after', 'ok', 'killed_before']
    const run = openRun({ chunks: 4, rowsMax: 1_000, fates, poison: new Set(['2/0']) })
    for (let life = 0; life < 4; life++) await run.life()
    expect(run.deadLetters.map(letter => `${letter.position}/${letter.index}`)).toEqual(['2/0'])
    run.expectOnce()
  })

  it('stores each reading once when the log forgets its last commits, also with the plan that was open [G2]', async () => {
    // Of a plan that is forgotten and stored nothing, nobody can know that its token is taken.
    const fates = INSERT_FATES.filter(fate => fate !== 'killed_readings_token_only')
    const runs = fc.record({
      chunks: fc.integer({ min: 3, max: 9 }),
      rowsMax: fc.integer({ min: 2, max: 9 }),
      fates: fc.array(fc.constantFrom(...fates), { maxLength: 8 }),
      lives: fc.integer({ min: 1, max: 3 }),
      back: fc.nat(12),
    })
    await fc.assert(
      fc.asyncProperty(runs, async ({ lives, back, ...options }) => {
        const run = openRun({ ...options, killedAtCommits: new Set([12]) })
        for (let life = 0; life < lives && !run.finished(); life++) await run.life()
        run.goBack(back)
        for (let life = 0; life < 40 && !run.finished(); life++) await run.life()
        expect(run.finished()).toBe(true)
        run.expectOnce()
      }),
      { numRuns: 300 },
    )
  })

  it('stores each reading once through any sequence of failures and kills [G2]', async () => {
    const runs = fc.record({
      chunks: fc.integer({ min: 1, max: 8 }),
      rowsMax: fc.integer({ min: 2, max: 9 }),
      fates: fc.array(fc.constantFrom(...INSERT_FATES), { maxLength: 12 }),
      killedAtCommits: fc.uniqueArray(fc.integer({ min: 0, max: 12 }), { maxLength: 4 }),
      poison: fc.uniqueArray(fc.constantFrom('0/0', '2/1', '3/0', '5/1'), { maxLength: 2 }),
    })
    await fc.assert(
      fc.asyncProperty(runs, async ({ poison, killedAtCommits, ...options }) => {
        const run = openRun({ ...options, poison: new Set(poison), killedAtCommits: new Set(killedAtCommits) })
        for (let life = 0; life < 40 && !run.finished(); life++) await run.life()
        expect(run.finished()).toBe(true)
        run.expectOnce()
      }),
      { numRuns: 300 },
    )
  })
})

type Place = Pick<Claim, 'position' | 'plan'>

interface RunOptions {
  readonly chunks: number
  readonly rowsMax: number
  readonly fates: readonly InsertFate[]
  readonly poison?: ReadonlySet<string>
  /** Numbers of commits at which the process is killed: even ones before the commit is durable, odd ones after. */
  readonly killedAtCommits?: ReadonlySet<number>
}

const READINGS_PER_CHUNK = 2

/** A log of `chunks` chunks, two readings each, and as many lives of a writer as asked for. */
function openRun(options: RunOptions) {
  const chunks = Array.from({ length: options.chunks }, (_, position) => makeChunk(position))
  const all = chunks.flatMap(({ position }) => [`${position}/0`, `${position}/1`])
  const fates = [...options.fates]
  const poison = options.poison ?? new Set<string>()
  const model: ModelDatabase = openModelDatabase({
    nextFate: () => fates.shift() ?? 'ok',
    kill: () => kill(),
    rowsIn,
    isPoison: row => poison.has(row.key),
  })
  const alarms: string[] = []
  const log = pino({ level: 'error' }, { write: line => void alarms.push(line) })
  let durable: Place = { position: 0, plan: null }
  /** As each commit left it; those of a life that knew less come after all others. */
  const places: Place[] = [durable]
  const deadLetters: DeadLetter[] = []
  const steps = model.calls
  let commits = 0
  let die = () => {}
  const never = new Promise<never>(() => {})

  return {
    life,
    goBack,
    steps,
    model,
    alarms,
    deadLetters,
    expectOnce,
    finished: () => durable.position === chunks.length,
  }

  /** One process: ends when it is killed or has nothing left to do. */
  async function life(): Promise<void> {
    const lost = new AbortController()
    const claim: Claim = {
      get position() {
        return durable.position
      },
      get plan() {
        return durable.plan
      },
      partition: 0,
      source: 'log/0',
      lost: lost.signal,
      begins: async () => 0,
      ends: async () => chunks.length,
      read,
      wait,
      commit,
    }
    const outlet: PumpOutlet = {
      consume: work => ({ ended: work(claim), stop: async () => lost.abort() }),
      close: async () => {},
    }
    const limits = { rowsMax: options.rowsMax, bytesMax: 1 << 20 }
    const writer = openWriter({ outlet, database: model.database, limits, batchAgeMsMax: 0, log, retryMsMin: 0 })
    await Promise.race([writer.ended, new Promise<void>(resolve => (die = resolve))])
    lost.abort()

    async function read(from: number): Promise<Chunk[]> {
      return chunks.slice(from, from + 3)
    }
    async function wait(position: number): Promise<void> {
      if (position < chunks.length) return
      // The writer looks for more while it inserts; its life ends when all is written.
      while (!lost.signal.aborted && durable.position < chunks.length) await turn()
      lost.abort()
    }
    async function commit(position: number, plan: Plan | null, letters: readonly DeadLetter[] = []): Promise<void> {
      const number = commits++
      const killed = options.killedAtCommits?.has(number) === true
      if (killed && number % 2 === 0) return kill()
      steps.push(plan === null ? `commit ${position}` : `commit ${position} plan ${plan.to} ${plan.mode}`)
      durable = { position, plan }
      places.push(durable)
      deadLetters.push(...letters)
      if (killed) return kill()
    }
  }

  /** The log forgets all commits after the first so many. */
  function goBack(commits: number): void {
    places.splice(commits + 1)
    durable = places.at(-1) ?? durable
  }

  function kill(): Promise<never> {
    die()
    return never
  }

  function expectOnce(): void {
    const good = all.filter(key => !poison.has(key))
    for (const table of ['readings', 'readings_1m', 'readings_1h'] as const) {
      expect([...model.rowsOf(table)].sort(), table).toEqual(good.map(key => [key, 1]).sort())
    }
    expect([...model.rowsOf('state').keys()].sort()).toEqual(good.sort())
    // The log keeps each of them once.
    expect([...new Set(deadLetters.map(letter => `${letter.position}/${letter.index}`))].sort()).toEqual(
      [...poison].filter(key => all.includes(key)).sort(),
    )
  }
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn()
}

function makeChunk(position: number): Chunk {
  const at = DAY + position
  const receivedAt = at * 1_000
  const readings = [0, 1].map(index => ({
    metric: `m${position}-${index}`,
    ts: receivedAt,
    receivedAt,
    value: position * 10 + index,
    sentTs: receivedAt,
  }))
  const line = encodeLine({ device: 'd', receivedAt, readings })
  const lines = Buffer.from(line)
  return {
    partition: 0,
    position,
    ...accepted(1),
    readings: READINGS_PER_CHUNK,
    firstReceivedAt: at,
    lastReceivedAt: at,
    lines,
  }
}

/** The metric names in the bytes of a block say which rows it holds. */
function rowsIn(block: RowBlock): ModelRow[] {
  const text = Buffer.concat(block.bytes).toString('latin1')
  return [...text.matchAll(/m(\d+)-(\d)/g)].map(([, position, index]) => ({
    key: `${position}/${index}`,
    position: Number(position),
    index: Number(index),
  }))
}
