/** A rewriting on servers that are set up otherwise: other profiles, other rights, tables that were changed meanwhile. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type MigrationTarget, migrate } from '../../database/migrate.ts'
import { differing, lacking } from '../../database/partitions.ts'
import { type Fixture, openFixture, scalar } from './database-fixture.ts'
import { everything, insertOld, makeOld, OLD_RECEIVED_AT, type OldRow, targetOf } from './old-database.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
})
afterAll(() => on.close())

const DAY = 86_400_000
const named = (database: string) => ({ database, cluster: null })

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
  for (const day of [0, 1]) await insertOld(on, database, given(day), 'log/0', day)
  return everything(on, database)
}

/** Does `work` before the first statement that matches. */
function before(pattern: RegExp, work: () => Promise<unknown>, target = targetOf(on)): MigrationTarget {
  let done = false
  return {
    all: target.all,
    command: async (sql, params) => {
      if (!done && pattern.test(sql)) {
        done = true
        await work()
      }
      await target.command(sql, params)
    },
  }
}

test('a profile with join_use_nulls loses nothing', async () => {
  const whole = await fill('nulls')
  await migrate(targetOf(on, null, { join_use_nulls: 1 }), named('nulls'))
  expect(await everything(on, 'nulls', 'nulls_internal')).toEqual(whole)
})

test('old rows that the new table lacks are not dropped', async () => {
  await fill('short')
  const lose = () => on.writer.command({ query: "ALTER TABLE short.readings DROP PARTITION ID '20260115'" })
  const losing = before(/^CREATE MATERIALIZED VIEW .*readings_1h_feed/, lose)
  await expect(migrate(losing, named('short'))).rejects.toMatchObject({ code: 'database_changed' })
  expect(await scalar(on.writer, 'SELECT count() FROM short_internal.migration_readings_before')).toBe(100)
  expect(await scalar(on.writer, 'SELECT count() FROM short.state')).toBeGreaterThan(0)
})

test.each([
  ['after the readings have their place', /^RENAME TABLE .*migration_state_copy/],
  ['before the old rows are dropped', /^DROP TABLE IF EXISTS .*migration_readings_before/],
  ['before the last word', /^INSERT INTO .*migrations.* \(version, name\)/],
])('what was begun in one database is ended there: killed %s', async (words, kill) => {
  const database = `one_${words.replaceAll(' ', '_')}`
  const whole = await fill(database)
  // That user may not create the other database, the next one may.
  const killed = before(kill, () => Promise.reject(new Error('killed')), targetOf(on, /^CREATE DATABASE/))
  await expect(migrate(killed, named(database))).rejects.toThrow('killed')
  await migrate(targetOf(on), named(database))
  expect(await everything(on, database)).toEqual(whole)
  expect(await scalar(on.writer, `SELECT count() FROM system.tables WHERE database = '${database}_internal'`)).toBe(0)
})

test('a table that another process drops between two looks is no fault of the configuration', async () => {
  const whole = await fill('overtaken')
  const target = targetOf(on)
  let isFaster = true
  const overtaken: MigrationTarget = {
    command: target.command,
    all: async (sql, params) => {
      if (isFaster && sql.includes('max(version)')) {
        isFaster = false
        await migrate(target, named('overtaken'))
      }
      return target.all(sql, params)
    },
  }
  await migrate(overtaken, named('overtaken'))
  expect(await everything(on, 'overtaken', 'overtaken_internal')).toEqual(whole)
})

test('what a try left is dropped by the next one, and a table of somebody else is not', async () => {
  const whole = await fill('left')
  const run = (query: string) => on.writer.command({ query })
  await run('CREATE DATABASE left_internal ENGINE = Atomic')
  for (const name of ['migration_part_0123456789ab', 'migration_plan'])
    await run(`CREATE TABLE left_internal.${name} (a UInt8) ENGINE = MergeTree ORDER BY a AS SELECT 1 AS a`)
  const failed = before(/^ALTER TABLE .* REPLACE PARTITION/, () => Promise.reject(new Error('refused')))
  await expect(migrate(failed, named('left'))).rejects.toThrow('refused')
  const names =
    "SELECT groupArray(name) FROM system.tables WHERE database = 'left_internal' AND name LIKE 'migration_p%'"
  expect(await scalar(on.writer, names)).toEqual(['migration_plan'])
  await migrate(targetOf(on), named('left'))
  expect(await everything(on, 'left', 'left_internal')).toEqual(whole)
  expect(await scalar(on.writer, names)).toEqual(['migration_plan'])
})

test('partitions and tables that are larger than a server lets anybody drop are replaced, moved and dropped', async () => {
  const profile = { max_table_size_to_drop: '1', max_partition_size_to_drop: '1' }
  for (const swap of ['rename', 'replace'] as const) {
    const whole = await fill(`large_${swap}`)
    const killed = before(/^DROP TABLE IF EXISTS .*\.migration_readings/, () => Promise.reject(new Error('killed')))
    await expect(migrate(killed, named(`large_${swap}`), { swap })).rejects.toThrow('killed')
    await migrate(targetOf(on, null, profile), named(`large_${swap}`), { swap })
    expect(await everything(on, `large_${swap}`, `large_${swap}_internal`)).toEqual(whole)
  }
})

test('partitions are compared by their rows, and those that are missing count', () => {
  const old = new Map([
    ['20260101', 5],
    ['20260102', 5],
    ['20260103', 5],
    ['20260104', 5],
  ])
  const now = new Map([
    ['20260101', 5],
    ['20260102', 6],
    ['20260103', 4],
  ])
  expect(differing(old, now)).toEqual(['20260104', '20260103', '20260102'])
  expect(lacking(old, now)).toEqual(['20260104', '20260103'])
})
