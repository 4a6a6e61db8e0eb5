/** Every version that ever ran can be brought to this one; what no version made is refused before the first change. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type MigrationTarget, migrate, readMigrations, schemaFolder } from '../../database/migrate.ts'
import { renderStatements } from '../../database/schema.ts'
import { type Fixture, openFixture, rows, scalar } from './database-fixture.ts'
import { everything, insertOld, makeFirst, makeOld, OLD_RECEIVED_AT, type OldRow, targetOf } from './old-database.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
})
afterAll(() => on.close())

const given: OldRow[] = Array.from({ length: 40 }, (_, i) => ({
  device: `press-${i % 2}`,
  metric: `m${i % 3}`,
  receivedAt: OLD_RECEIVED_AT + i,
  sentTs: OLD_RECEIVED_AT - i * 61_000,
  value: i % 9 === 0 ? `text ${i}` : i,
}))
const named = (database: string) => ({ database, cluster: null })

/** A file that has run somewhere is not edited any more: what it made there would be known to nobody. */
const FROZEN = {
  '001-readings': '4621a515679d8a7e4c9ab9b0129962fc21bc0c693126f4eb092e3408f37dc500',
  '002-rollups-by-source': '939d429c2a460392bda32f54b7d6a8b7d4f596707d9903f247d0b31a035ba9a9',
  '003-latest-whole': 'c050dbd3c26cc3796118f90b0edd2129ca8073abc35ac506402ec581be59c961',
  '004-microseconds': '000a2162af73c46530057b1124030a1e77587fe809dd07838d4bbc66c3cc168d',
}

test('the files of the schema are as they were when they ran first', () => {
  const found = readMigrations().map(({ name }) => [name, digestOf(name)])
  expect(Object.fromEntries(found)).toEqual(FROZEN)
})

function digestOf(name: string): string {
  return createHash('sha256')
    .update(readFileSync(new URL(`${name}.sql`, schemaFolder())))
    .digest('hex')
}

describe.each([1, 2, 3])('a database of version %i', version => {
  test('holds at the end what a database of version 3 held', async () => {
    const database = `from_${version}`
    await makeOld(on, database, version)
    await insertOld(on, database, given)
    await makeOld(on, `${database}_3`, 3)
    await insertOld(on, `${database}_3`, given)
    const expected = await everything(on, `${database}_3`)
    await migrate(targetOf(on), named(database))
    const found = await everything(on, database, `${database}_internal`)
    const bySource = (all: unknown[][]) =>
      all.map(row => (row[0] === 'minutes' || row[0] === 'hours' ? row.toSpliced(9, 1) : row))
    expect(bySource(found).filter(([what]) => what !== 'from')).toEqual(bySource(expected))
    const versions = await rows(on.writer, `SELECT version FROM ${database}_internal.migrations ORDER BY version`)
    expect(versions.flat()).toEqual([1, 2, 3, 4])
  })
})

describe('a database of the first commit that ran (189cb15), whose state has no seen_at', () => {
  test.each([
    ['as that left it', 1],
    ['half migrated by a later one, which says version 2', 2],
  ])('%s, is brought to this version', async (_, version) => {
    const database = `first_${version}`
    await makeFirst(on, database, version)
    await insertOld(on, database, given)
    // Came late: the last receipt is not that of the newest.
    await insertOld(
      on,
      database,
      [
        {
          device: 'press-0',
          metric: 'm0',
          sentTs: OLD_RECEIVED_AT - 9e6,
          receivedAt: OLD_RECEIVED_AT + 60_000,
          value: 1,
        },
      ],
      'log/0',
      1,
    )
    await makeOld(on, `${database}_3`, 3)
    await insertOld(on, `${database}_3`, given)
    await insertOld(
      on,
      `${database}_3`,
      [
        {
          device: 'press-0',
          metric: 'm0',
          sentTs: OLD_RECEIVED_AT - 9e6,
          receivedAt: OLD_RECEIVED_AT + 60_000,
          value: 1,
        },
      ],
      'log/0',
      1,
    )
    const latest = (all: unknown[][]) => all.filter(([what]) => what === 'latest' || what === 'readings')
    const expected = latest(await everything(on, `${database}_3`))
    await migrate(targetOf(on), named(database))
    expect(latest(await everything(on, database, `${database}_internal`))).toEqual(expected)
  })

  test('is brought there also when that is broken off before what it lacks was counted', async () => {
    await makeFirst(on, 'first_killed', 1)
    await insertOld(on, 'first_killed', given)
    const target = targetOf(on)
    const killed: MigrationTarget = {
      all: target.all,
      command: async (sql, params) => {
        if (/^INSERT INTO `first_killed`.state/.test(sql)) throw new Error('killed')
        await target.command(sql, params)
      },
    }
    await expect(migrate(killed, named('first_killed'))).rejects.toThrow('killed')
    await migrate(target, named('first_killed'))
    const seen = 'SELECT min(seen_at >= received_at), count() FROM first_killed.latest'
    expect(await rows(on.writer, seen)).toEqual([[1, 6]])
  })
})

describe('a table that no version made', () => {
  test.each([
    [
      'ALTER TABLE changed.readings ADD COLUMN location String',
      /changed\.readings .* it has the column location besides/,
    ],
    ['ALTER TABLE changed.readings DROP COLUMN source_index', /changed\.readings .* it lacks the column source_index/],
    [
      'ALTER TABLE changed.readings MODIFY COLUMN value_str LowCardinality(String)',
      /its column value_str is LowCardinality\(String\), not String/,
    ],
  ])('is named before the first change: %s', async (change, sentence) => {
    await makeOld(on, 'changed', 3)
    await on.writer.command({ query: change })
    const target = targetOf(on)
    await expect(migrate(target, named('changed'))).rejects.toMatchObject({
      code: 'database_changed',
      fate: 'stop',
      detail: expect.stringMatching(sentence),
    })
    expect(target.commands).toEqual([])
    await on.writer.command({ query: 'DROP DATABASE changed SYNC' })
  })
})

test('a disk without room for the copy is refused before the first change, with the bytes that are needed', async () => {
  await makeOld(on, 'narrow', 3)
  await insertOld(on, 'narrow', given)
  const target = targetOf(on)
  const narrow: MigrationTarget = {
    command: target.command,
    all: (sql, params) => target.all(sql.replaceAll('unreserved_space', 'toUInt64(1048576)'), params),
  }
  await expect(migrate(narrow, named('narrow'))).rejects.toMatchObject({
    code: 'database_no_room',
    fate: 'stop',
    detail: expect.stringMatching(/^40 readings are to be written anew, which needs \d\d MiB .* 1 MiB are free/),
  })
  expect(target.commands).toEqual([])
})

test('an older surgetank finds names that are taken where it would make its tables, and changes nothing', async () => {
  await migrate(targetOf(on), named('newer'))
  const all =
    "SELECT database, name, create_table_query FROM system.tables WHERE database IN ('newer', 'newer_internal') ORDER BY ALL"
  const before = await rows(on.writer, all)
  const layout = { database: 'newer', internal: 'newer', cluster: null }
  const old = [
    'CREATE TABLE IF NOT EXISTS telemetry.migrations (version UInt32) ENGINE = MergeTree ORDER BY version',
    ...(readMigrations()[0]?.statements ?? []),
  ]
  const run = async () => {
    for (const query of renderStatements(old, layout)) await on.writer.command({ query })
  }
  await expect(run()).rejects.toMatchObject({ code: '60', message: expect.stringContaining('newer.state') })
  expect(await rows(on.writer, all)).toEqual(before)
  // And should its tables be there, its inserts name a column that is not stored any more.
  const insert = "INSERT INTO newer.readings (device, metric, ts, sent_ts) VALUES ('d', 'm', 0, 1)"
  await expect(on.writer.command({ query: insert })).rejects.toMatchObject({
    code: expect.stringMatching(/^(?:16|44)$/),
  })
  expect(await scalar(on.writer, 'SELECT count() FROM newer.readings')).toBe(0)
})
