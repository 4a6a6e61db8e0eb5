/**
 * From version 3 to 4: every row is written anew, and is the same afterwards, also when it is broken off at any statement, in
 * each of the ways in which the new tables take the place of the old ones.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type MigrateOptions, type MigrationTarget, migrate } from '../../database/migrate.ts'
import { planSlices } from '../../database/rewrite.ts'
import { type Fixture, openFixture, rows, scalar } from './database-fixture.ts'
import { everything, insertOld, makeOld, OLD_RECEIVED_AT, type OldRow, targetOf } from './old-database.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
})
afterAll(() => on.close())

const DAY = 86_400_000

/** A day of receipt, with late readings, ties, text, clocks ahead, and times that were not sent. */
function given(day: number): OldRow[] {
  return Array.from({ length: 60 }, (_, i): OldRow => {
    const receivedAt = OLD_RECEIVED_AT + day * DAY + (i < 30 ? i * 1_123 : i * 700_123)
    return {
      device: `press-${i % 3}`,
      metric: `m${i % 4}`,
      receivedAt,
      sentTs: i % 5 === 0 ? 0 : i % 7 === 0 ? receivedAt + 3_600_000 : receivedAt - (i % 9) * 86_000_001,
      ...(i % 5 !== 0 && i % 7 === 0 ? { ts: receivedAt } : {}),
      value: i % 11 === 0 ? `text ${i}` : i % 13 === 0 ? null : i * 1.5,
    }
  })
}

async function fill(database: string): Promise<void> {
  await makeOld(on, database, 3)
  await insertOld(on, database, given(0), 'log/0', 0)
  await insertOld(on, database, given(1), 'log/1', 1)
}

/** A dozen of migrations, one after another. */
const KILLS_MS_MAX = 600_000

const named = (database: string) => ({ database, cluster: null })

/** The whole of a database in its new layout, and that it is one. */
async function expectNew(database: string, before: unknown[][], apart = true): Promise<void> {
  const internal = apart ? `${database}_internal` : database
  expect(await everything(on, database, internal)).toEqual(before)
  const names = `SELECT database, name FROM system.tables WHERE database IN ('${database}', '${database}_internal') ORDER BY ALL`
  const own = [
    'by_source_from',
    'migrations',
    'readings_1h',
    'readings_1h_feed',
    'readings_1m',
    'readings_1m_feed',
    'state',
    'state_feed',
  ]
  const open = ['daily', 'hourly', 'latest', 'minutely', 'readings']
  expect(await rows(on.writer, names)).toEqual(
    apart
      ? [...open.map(name => [database, name]), ...[...own, 'names_held'].sort().map(name => [internal, name])]
      : [...open, ...own].sort().map(name => [database, name]),
  )
  expect(await scalar(on.writer, `SELECT max(version) FROM ${internal}.migrations`)).toBe(4)
}

/** `every`: of how many statements one is a point to kill at. */
type Way = readonly [words: string, options: MigrateOptions, apart: boolean, every: number]
const WAYS: Way[] = [
  ['by their names, in two databases', {}, true, 7],
  ['by their names, in one database', {}, false, 20],
  ['by partitions, in two databases', { swap: 'replace' }, true, 20],
  ['by partitions, in one database', { swap: 'replace' }, false, 20],
]

describe.each(WAYS)('new tables that take the place of the old ones %s', (_, options, apart, every) => {
  // Some minutes are whole slices, and some several.
  const small = { ...options, rowsMax: 12 }

  test(
    'hold what the old ones held; one that is killed at any statement is completed by the next',
    async () => {
      const id = `${options.swap ?? 'rename'}_${apart ? 'two' : 'one'}`
      await fill(`${id}_whole`)
      const before = await everything(on, `${id}_whole`)
      const target = targetOf(on, apart ? null : /^CREATE DATABASE/)
      await migrate(target, named(`${id}_whole`), small)
      await expectNew(`${id}_whole`, before, apart)
      const statements = target.commands.length
      expect(statements).toBeGreaterThan(30)
      for (let kill = 1; kill < statements; kill += every) {
        const database = `${id}_${kill}`
        await fill(database)
        let left = kill
        const killed: MigrationTarget = {
          all: target.all,
          command: async (sql, params) => {
            if (left-- <= 0) throw new Error('killed')
            await target.command(sql, params)
          },
        }
        await expect(migrate(killed, named(database), small)).rejects.toThrow('killed')
        await migrate(target, named(database), small)
        await expectNew(database, before, apart)
        await on.writer.command({ query: `DROP DATABASE ${database} SYNC` })
        await on.writer.command({ query: `DROP DATABASE IF EXISTS ${database}_internal SYNC` })
      }
    },
    KILLS_MS_MAX,
  )
})

test('slices are minutes put together up to so many rows, and shares of a minute that is larger', () => {
  expect(planSlices([], 10)).toEqual([])
  const slices = planSlices(
    [
      [0, 4],
      [60, 6],
      [120, 1],
      [600, 25],
      [660, 1],
    ],
    10,
  )
  const whole = { share: 0, shares: 1 }
  expect(slices).toEqual([
    { from: 0, to: 120, ...whole, rows: 10 },
    { from: 120, to: 180, ...whole, rows: 1 },
    ...[0, 1, 2].map(share => ({ from: 600, to: 660, share, shares: 3, rows: 8 })),
    { from: 660, to: 720, ...whole, rows: 1 },
  ])
})
