/**
 * [G2] Writers that freeze at any step and wake at any later one, while others have taken over: before and after each commit, each
 * question and each insert, in the middle of a repair. Nobody tells them. Each reading ends up once in the readings and in
 * the rollup. ClickHouse is a model here, in which every order can be tried; what it does is shown on the real engine in
 * test/database/ and several-writers.test.ts.
 */
import fc from 'fast-check'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import type { Database, Fence, RowBlock, SourceRange } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'
import type { Claim, Consumption } from '../../pump/pump.ts'
import { openWriter } from '../../writers/writer.ts'
import { openMemoryLog, READINGS_PER_CHUNK } from './memory-log.ts'

/** What becomes of an insert. `token_only`: a kill between the token's write and the part's rename. */
const FATES = ['stored', 'answer_lost', 'refused_to_connect', 'token_only'] as const
type Fate = (typeof FATES)[number]

interface Nap {
  /** The step of this writer at which it freezes, and for how many steps of the others. */
  readonly step: number
  readonly sleep: number
}

interface Run {
  readonly chunks: number
  readonly fates: readonly Fate[]
  /** Of one writer after the other: each takes over when the one before it freezes. */
  readonly naps: readonly Nap[]
}

it('stores each reading once, whoever freezes at whichever step and wakes whenever', async () => {
  const runs = fc.record({
    chunks: fc.integer({ min: 1, max: 5 }),
    fates: fc.array(fc.constantFrom(...FATES), { maxLength: 6 }),
    naps: fc.array(fc.record({ step: fc.integer({ min: 1, max: 25 }), sleep: fc.integer({ min: 1, max: 40 }) }), {
      minLength: 1,
      maxLength: 3,
    }),
  })
  await fc.assert(
    fc.asyncProperty(runs, async run => {
      const { readings, rollup, keys } = await play(run)
      const once = keys.map((key): [string, number] => [key, 1])
      expect([...readings].sort()).toEqual(once)
      expect([...rollup].sort()).toEqual(once)
    }),
    { numRuns: 400 },
  )
})

async function play({ chunks, fates, naps }: Run) {
  const log = openMemoryLog(1, { metricOf: (position, index) => `m${position}-${index}.` })
  log.told.overtaken = false
  log.append(0, chunks)
  const model = openModel([...fates])
  const writers: Consumption[] = []
  const sleepers = new Set<{ until: number; wake: () => void }>()
  let steps = 0
  startNext()
  await log.written()
  for (const { wake } of sleepers) wake()
  // A few turns more than any writer takes from any step to the answer of its next commit.
  for (let turns = 0; turns < 30; turns++) await new Promise(resolve => setTimeout(resolve, 0))
  for (const writer of writers) await writer.stop()
  const positions = Array.from({ length: chunks }, (_, position) => position)
  const indexes = Array.from({ length: READINGS_PER_CHUNK }, (_, index) => index)
  const keys = positions.flatMap(position => indexes.map(index => `${position}/${index}`)).sort()
  return { ...model.tables(), keys }

  function startNext(): void {
    const nap = naps[writers.length]
    let own = 0
    const step = async () => {
      steps++
      for (const sleeper of sleepers) if (sleeper.until <= steps) sleeper.wake()
      if (++own !== nap?.step) return
      startNext()
      await new Promise<void>(resolve => {
        const sleeper = { until: steps + nap.sleep, wake: () => resolve() }
        sleepers.add(sleeper)
      })
    }
    const outlet = log.outlet([0])
    const stepping = {
      ...outlet,
      consume: (work: (claim: Claim) => Promise<void>) => outlet.consume(claim => work(stepwise(claim, step))),
    }
    writers.push(
      openWriter({
        outlet: stepping,
        database: model.databaseOf(step),
        limits: { rowsMax: 2 * READINGS_PER_CHUNK, bytesMax: 1 << 20 },
        batchAgeMsMax: 0,
        retryMsMin: 0,
        log: pino({ level: 'silent' }),
      }),
    )
  }
}

type Step = () => Promise<void>

function stepwise(claim: Claim, step: Step): Claim {
  return Object.create(claim, {
    commit: {
      value: async (...given: Parameters<Claim['commit']>) => {
        await step()
        await claim.commit(...given)
        await step()
      },
    },
  }) as Claim
}

/** The tables of one source, whose rows all share one bucket: a rollup knows how many it counts, and not which. */
function openModel(fates: Fate[]) {
  const readings = new Map<string, number>()
  const rollup = new Map<string, number>()
  const tokens = { readings: new Set<string>(), rollup: new Set<string>() }
  /** Each attempt at tables apart drops those of the earlier ones. */
  let newestApart = 0
  return { databaseOf, tables: () => ({ readings, rollup }) }

  function databaseOf(step: Step): Database {
    const around = async <Result>(work: () => Result): Promise<Result> => {
      await step()
      const result = work()
      await step()
      return result
    }
    return {
      insertReadings: (block: RowBlock, token: string) => around(() => insert(block, token)).then(throwIfLost),
      waitForInserts: () => around(() => {}),
      storedThrough: (range: SourceRange) =>
        around(() => Math.max(range.from, ...keysIn(range, readings).map(key => Number(key.split('/')[0]) + 1))),
      catchUp: async () => {},
      countReadings: (range: SourceRange) => around(() => keysIn(range, readings).length),
      storedReadings: (range: SourceRange) =>
        around(() => keysIn(range, readings).map(key => key.split('/').map(Number))),
      restoreReadings: (block: RowBlock, range: SourceRange, fence: Fence) => restore(block, range, fence, step),
      repairDerived: (range: SourceRange, fence: Fence) => repair(range, fence, step),
    } as unknown as Database
  }

  function insert(block: RowBlock, token: string): Fate {
    const fate = fates.shift() ?? 'stored'
    if (fate === 'refused_to_connect') return fate
    const known = tokens.readings.has(token)
    tokens.readings.add(token)
    if (fate === 'token_only' && !known) return fate
    if (!known) addAll(readings, keysOf(block))
    if (!tokens.rollup.has(token)) addAll(rollup, keysOf(block))
    tokens.rollup.add(token)
    return fate
  }

  function throwIfLost(fate: Fate): void {
    if (fate !== 'stored') throw new SurgetankError('database_unavailable', fate)
  }

  async function restore(block: RowBlock, range: SourceRange, fence: Fence, step: Step): Promise<void> {
    await step()
    await fence()
    await step()
    const apart = ++newestApart
    await step()
    if (keysIn(range, readings).length > 0) return
    await attach({ apart, keys: keysOf(block), table: readings }, fence, step)
  }

  async function repair(range: SourceRange, fence: Fence, step: Step): Promise<number> {
    await step()
    await fence()
    await step()
    const apart = ++newestApart
    await step()
    const keys = keysIn(range, readings)
    if (total(readings) - total(rollup) < keys.length || keys.length === 0) return 0
    await attach({ apart, keys, table: rollup }, fence, step)
    return keys.length
  }

  async function attach(
    { apart, keys, table }: { apart: number; keys: readonly string[]; table: Map<string, number> },
    fence: Fence,
    step: Step,
  ): Promise<void> {
    await step()
    await fence()
    await step()
    if (apart !== newestApart) throw new SurgetankError('database_unavailable', 'another has begun')
    addAll(table, keys)
    await step()
  }
}

function keysOf(block: RowBlock): string[] {
  const text = Buffer.concat(block.bytes).toString('latin1')
  return [...text.matchAll(/m(\d+)-(\d+)\./g)].map(([, position, index]) => `${position}/${index}`)
}

function keysIn({ from, to }: SourceRange, table: ReadonlyMap<string, number>): string[] {
  return [...table.keys()].filter(key => {
    const position = Number(key.split('/')[0])
    return position >= from && position < to
  })
}

function addAll(table: Map<string, number>, keys: readonly string[]): void {
  for (const key of keys) table.set(key, (table.get(key) ?? 0) + 1)
}

function total(table: ReadonlyMap<string, number>): number {
  return [...table.values()].reduce((sum, count) => sum + count, 0)
}
