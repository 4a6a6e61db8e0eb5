/** A rewriting among others: other processes that migrate, a killed engine, older writers, readers, and inserts cut short before. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import type { Database, MigrationStep } from '../../database/database.ts'
import { type MigrationTarget, migrate } from '../../database/migrate.ts'
import { block, type Fixture, held, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'
import { everything, insertOld, makeOld, OLD_RECEIVED_AT, type OldRow, targetOf } from './old-database.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
})
afterAll(() => on.close())

const DAY = 86_400_000
const named = (database: string) => ({ database, cluster: null })
const openAs = (database: string): Database => openDatabase({ ...on.access, database })

const given = (day: number): OldRow[] =>
  Array.from({ length: 50 }, (_, i) => ({
    device: `press-${i % 5}`,
    metric: `m${i % 2}`,
    receivedAt: OLD_RECEIVED_AT + day * DAY + i * 1_000,
    sentTs: OLD_RECEIVED_AT + day * DAY - i * 60_000,
    value: i,
  }))

async function fill(database: string): Promise<unknown[][]> {
  await makeOld(on, database, 3)
  for (const day of [0, 1, 2]) await insertOld(on, database, given(day), 'log/0', day)
  return everything(on, database)
}

test('several processes at once write every row anew, and none twice', async () => {
  const before = await fill('together')
  // Of a repair that a kill cut short, as an older writer left it.
  const apart = 'repair_0123456789abcdef_readings_0123456789ab'
  await on.writer.command({ query: `CREATE TABLE together.${apart} AS together.readings` })
  const opened = [1, 2, 3].map(() => openAs('together'))
  const steps: MigrationStep[] = []
  await Promise.all(opened.map(each => each.migrate(step => steps.push(step))))
  expect(await everything(on, 'together', 'together_internal')).toEqual(before)
  const left = "SELECT count() FROM system.tables WHERE name LIKE 'repair%' OR match(name, '^migration_')"
  expect(await scalar(on.writer, left)).toBe(0)
  expect(steps.length).toBeGreaterThan(3)
  expect(steps.at(-1)).toMatchObject({ from: 3, to: 4, rowsAll: expect.any(Number) })
  for (const each of opened) await each.close()
})

test('an engine that is killed at any moment loses nothing of it', async () => {
  const before = await fill('power')
  const database = openAs('power')
  let ended = false
  for (let kills = 0; !ended; kills++) {
    const migrated = database.migrate().then(
      () => (ended = true),
      () => {},
    )
    const timer = setTimeout(() => on.child.kill(), 300 + kills * 350)
    await migrated
    clearTimeout(timer)
    if (!ended) await on.restart()
    expect(kills).toBeLessThan(60)
  }
  expect(await everything(on, 'power', 'power_internal')).toEqual(before)
  await database.close()
})

test('whoever reads meanwhile finds all of it, in the old place or in the new one', async () => {
  await fill('readers')
  const database = openAs('readers')
  const query = { device: 'press-1', metrics: null, from: 0, to: RECEIVED_AT * 2, order: 'asc', limit: 1_000 } as const
  const read = async () => {
    const raw = (await database.history(query, null)).length
    const buckets = await database.historyBuckets(query, 3_600_000, ['count'])
    let latest = 0
    for await (const page of database.latest()) latest += page.length
    return [raw, buckets.reduce((sum, { values }) => sum + (values[0] ?? 0), 0), latest]
  }
  const before = await read()
  expect(before).toEqual([30, 30, 10])
  const reads: number[][] = []
  const target = targetOf(on)
  const slow: MigrationTarget = {
    all: target.all,
    command: async (sql, params) => {
      await target.command(sql, params)
      reads.push(await read())
    },
  }
  await migrate(slow, named('readers'))
  expect(reads.length).toBeGreaterThan(20)
  for (const one of reads) expect(one).toEqual(before)
  await database.close()
})

test.each([
  ['rename', /^RENAME TABLE .*readings_copy/],
  ['replace', /^ALTER TABLE .* MOVE PARTITION/],
] as const)('what an older writer stored at the very moment of the swap is not lost: %s', async (swap, moment) => {
  const database = `late_${swap}`
  await fill(database)
  await fill(`${database}_expected`)
  const row: OldRow = {
    device: 'late',
    metric: 'm',
    receivedAt: OLD_RECEIVED_AT + 1,
    sentTs: OLD_RECEIVED_AT,
    value: 7,
  }
  await insertOld(on, `${database}_expected`, [row], 'log/1', 9)
  const target = targetOf(on)
  let isLate = false
  const late: MigrationTarget = {
    all: target.all,
    command: async (sql, params) => {
      if (!isLate && moment.test(sql)) {
        isLate = true
        await insertOld(on, database, [row], 'log/1', 9)
      }
      await target.command(sql, params)
    },
  }
  await migrate(late, named(database), { swap })
  expect(isLate).toBe(true)
  expect(await everything(on, database, `${database}_internal`)).toEqual(await everything(on, `${database}_expected`))
})

test('[G2] a plan that was open is settled afterwards: what a kill took from the tables behind the views is filled, and nothing twice', async () => {
  const whole = await fill('plan')
  // A kill took the rollups and the state of the last insert, and only those.
  for (const table of ['readings_1m', 'readings_1h', 'state']) {
    await on.writer.command({ query: `TRUNCATE TABLE plan.${table}` })
  }
  const database = openAs('plan')
  await database.migrate()
  const ranges = [0, 1, 2].map(day => ({ source: 'log/0', from: day, to: day + 1 }))
  for (const range of ranges) expect(await database.countReadings(range)).toBe(50)
  for (const range of ranges) expect(await database.repairDerived(range, held)).toBeGreaterThan(0)
  expect(await everything(on, 'plan', 'plan_internal')).toEqual(whole)
  for (const range of ranges) expect(await database.repairDerived(range, held)).toBe(0)
  await database.insertReadings(block([{ device: 'new', value: 1 }], 'log/0', 3), 'log/0/3-4')
  expect(await database.repairDerived({ source: 'log/0', from: 3, to: 4 }, held)).toBe(0)
  expect(await scalar(on.writer, 'SELECT sum(readings) FROM plan.hourly')).toBe(151)
  await database.close()
})

test('[G2] rollups from before version 2 count on: what they lack is filled, and nothing twice', async () => {
  await makeOld(on, 'old', 1)
  const spread = (from: number) =>
    Array.from({ length: 60 }, (_, i) => ({ sentTs: OLD_RECEIVED_AT - (from + i) * 7_000, value: from + i }))
  const totals = async (internal: string) =>
    (
      await rows(
        on.writer,
        `SELECT (SELECT sum(readings) FROM ${internal}.readings_1m), (SELECT sum(readings) FROM ${internal}.readings_1h), (SELECT sum(value_sum) FROM ${internal}.readings_1h)`,
      )
    )[0]
  await insertOld(on, 'old', spread(0), 'log', 0)
  // Of this one a kill took the rollups.
  await on.writer.command({
    query: 'CREATE TABLE old.kept ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM old.readings_1m',
  })
  await insertOld(on, 'old', spread(30), 'log', 1)
  const whole = await totals('old')
  await on.writer.command({ query: 'TRUNCATE TABLE old.readings_1h' })
  await on.writer.command({ query: 'TRUNCATE TABLE old.readings_1m' })
  await on.writer.command({ query: 'INSERT INTO old.readings_1m SELECT * FROM old.kept SETTINGS async_insert = 0' })
  await on.writer.command({ query: 'DROP TABLE old.kept SYNC' })
  const database = openAs('old')
  await database.migrate()
  expect(await database.repairDerived({ source: 'log', from: 1, to: 2 }, held)).toBeGreaterThan(0)
  expect(await totals('old_internal')).toEqual(whole)
  for (const from of [0, 1]) expect(await database.repairDerived({ source: 'log', from, to: from + 1 }, held)).toBe(0)
  const micros = (all: readonly { sentTs: number; value: number }[]) =>
    all.map(row => ({ ...row, sentTs: row.sentTs * 1_000 }))
  await database.insertReadings(block(micros(spread(20)), 'log', 2), 'log/2-3')
  await database.insertReadings(block(micros(spread(10)), 'other', 0), 'other/0-1')
  expect(await totals('old_internal')).toEqual([240, 240, expect.any(Number)])
  for (const range of [
    { source: 'log', from: 2, to: 3 },
    { source: 'other', from: 0, to: 1 },
  ])
    expect(await database.repairDerived(range, held)).toBe(0)
  await database.close()
})
