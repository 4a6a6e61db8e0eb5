/** [G2] Exactly once into ClickHouse, as far as it is the database's part: tokens, rollups, state, migrations, ranges. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { migrate, readMigrations, splitStatements } from '../../database/migrate.ts'
import { block, type Fixture, type GivenRow, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
})
afterAll(() => on.close())

/** Rows in readings, the sums of both rollups, and devices in the state. */
async function totals(device: string): Promise<unknown[]> {
  const where = `WHERE device = '${device}'`
  const [[readings, minutes, hours, state] = []] = await rows(
    on.writer,
    `SELECT (SELECT count() FROM telemetry.readings ${where}), (SELECT sum(readings) FROM telemetry.readings_1m ${where}),
      (SELECT sum(readings) FROM telemetry.readings_1h ${where}), (SELECT count() FROM telemetry.latest ${where})`,
  )
  return [readings, minutes, hours, state]
}

function readings(device: string, count: number): GivenRow[] {
  return Array.from({ length: count }, (_, i) => ({ device, sentTs: RECEIVED_AT - i * 1000, value: i }))
}

describe('[G2] one token', () => {
  test('twice stores one copy, in the readings, both rollups and the state', async () => {
    const rowsOfBatch = block(readings('twice', 100), 'twice')
    await on.database.insertReadings(rowsOfBatch, 'token-twice')
    await on.database.insertReadings(rowsOfBatch, 'token-twice')
    expect(await totals('twice')).toEqual([100, 100, 100, 1])
  })

  test('from three clients at once stores one copy', async () => {
    const rowsOfBatch = block(readings('at-once', 1000), 'at-once')
    await Promise.all([1, 2, 3].map(() => on.database.insertReadings(rowsOfBatch, 'token-at-once')))
    expect(await totals('at-once')).toEqual([1000, 1000, 1000, 1])
  })

  test('of another block with the same rows stores them again: the token decides, not the content', async () => {
    const same = readings('again', 10)
    await on.database.insertReadings(block(same, 'again'), 'token-a')
    await on.database.insertReadings(block(same, 'again'), 'token-b')
    expect((await totals('again'))[0]).toBe(20)
  })

  test('that is forgotten is no token: the readings are stored again, and what a view feeds is not', async () => {
    const rowsOfBatch = block(readings('forgotten', 10), 'forgotten')
    await on.database.insertReadings(rowsOfBatch, 'token-forgotten')
    await on.database.forgetTokens()
    await on.database.insertReadings(rowsOfBatch, 'token-forgotten')
    expect(await totals('forgotten')).toEqual([20, 10, 10, 1])
  })

  test('an aborted insert rejects as one to try again, and the same token completes it', async () => {
    const rowsOfBatch = block(readings('aborted', 1000), 'aborted')
    const attempt = on.database.insertReadings(rowsOfBatch, 'token-aborted', AbortSignal.timeout(3))
    await attempt.catch(error => expect(error).toMatchObject({ code: 'database_unavailable', fate: 'retry' }))
    await on.database.insertReadings(rowsOfBatch, 'token-aborted')
    expect(await totals('aborted')).toEqual([1000, 1000, 1000, 1])
  })
})

describe('a range of the log', () => {
  beforeAll(async () => {
    for (const position of [5, 6, 7]) {
      await on.database.insertReadings(
        block([...readings('range', position), { device: 'range', value: 'text' }], 'ranges', position),
        `range-${position}`,
      )
    }
  })

  test('is counted from its first position up to, not including, its end', async () => {
    expect(await on.database.countReadings({ source: 'ranges', from: 5, to: 7 })).toBe(13)
    expect(await on.database.countReadings({ source: 'others', from: 5, to: 7 })).toBe(0)
    expect(await on.database.countByPosition({ source: 'ranges', from: 0, to: 100 })).toEqual(
      new Map([
        [5, 6],
        [6, 7],
        [7, 8],
      ]),
    )
    expect((await on.database.countBySource()).get('ranges')).toBe(21)
  })

  test('may begin and end within a chunk', async () => {
    const half = { source: 'ranges', from: 5, fromIndex: 4, to: 6, toIndex: 3 }
    expect(await on.database.countReadings(half)).toBe(5)
    expect(await on.database.storedReadings(half)).toEqual([
      [5, 4],
      [5, 5],
      [6, 0],
      [6, 1],
      [6, 2],
    ])
  })

  test('is listed row by row', async () => {
    expect(await on.database.storedReadings({ source: 'ranges', from: 5, to: 6 })).toEqual(
      [0, 1, 2, 3, 4, 5].map(index => [5, index]),
    )
  })
})

describe('[G2] repair of what a kill took from a table behind a view', () => {
  const range = { source: 'repair', from: 3, to: 5 }
  const spread = (count: number): GivenRow[] =>
    Array.from({ length: count }, (_, i) => ({
      device: 'repair',
      metric: `m${i % 3}`,
      sentTs: RECEIVED_AT - i * 400_000,
      value: i % 7 === 0 ? `t${i}` : i * 1.5,
    }))
  const everything = () =>
    rows(
      on.writer,
      `SELECT * FROM (SELECT 'm' AS what, metric, toString(bucket) AS at, readings, avg, min, max FROM telemetry.minutely WHERE device = 'repair'
       UNION ALL SELECT 'h', metric, toString(bucket), readings, avg, min, max FROM telemetry.hourly WHERE device = 'repair'
       UNION ALL SELECT value_str, metric, toString(ts), 0, ifNull(value, 0), 0, 0 FROM telemetry.latest WHERE device = 'repair') ORDER BY ALL`,
    )
  const take = (table: string) =>
    on.writer.command({
      query: `ALTER TABLE telemetry.${table} DELETE WHERE device = 'repair' SETTINGS mutations_sync = 1`,
    })
  let whole: unknown[][] = []

  beforeAll(async () => {
    await on.database.insertReadings(block(spread(400), 'repair', 3), 'repair-3')
    await on.database.insertReadings(block(spread(200), 'repair', 4), 'repair-4')
    whole = await everything()
  })

  test('nothing is filled where nothing is lacking', async () => {
    expect(await on.database.repairDerived(range)).toBe(0)
    expect(await everything()).toEqual(whole)
  })

  test.each([[['readings_1m']], [['readings_1h']], [['state']], [['readings_1m', 'readings_1h', 'state']]])(
    '%j is filled, and no other',
    async tables => {
      for (const table of tables) await take(table)
      const filled =
        (await on.database.repairDerived({ ...range, to: 4 })) +
        (await on.database.repairDerived({ ...range, from: 4 }))
      if (tables.includes('readings_1m') || tables.includes('readings_1h')) expect(filled).toBeGreaterThan(0)
      expect(await everything()).toEqual(whole)
      expect(await on.database.repairDerived(range)).toBe(0)
      expect(await everything()).toEqual(whole)
    },
  )

  test('rows of another range in the same buckets are left as they are', async () => {
    await on.database.insertReadings(block(spread(100), 'repair-other', 9), 'repair-other')
    const both = await everything()
    expect(await on.database.repairDerived(range)).toBe(0)
    expect(await on.database.repairDerived({ source: 'repair-other', from: 9, to: 10 })).toBe(0)
    expect(await everything()).toEqual(both)
    expect(
      await scalar(on.writer, "SELECT count() FROM system.tables WHERE database = 'telemetry' AND name LIKE 'repair%'"),
    ).toBe(0)
  })
})

describe('migrations', () => {
  test('may run again, and from several processes at once', async () => {
    const before = await totals('twice')
    await Promise.all([on.database.migrate(), on.database.migrate(), on.database.migrate()])
    expect(await totals('twice')).toEqual(before)
    expect(await scalar(on.writer, 'SELECT max(version) FROM telemetry.migrations')).toBe(
      readMigrations().at(-1)?.version,
    )
  })

  test('a kill after any statement leaves what the next run completes', async () => {
    const migrations = readMigrations()
    const statements = migrations.flatMap(({ statements }) => statements).length
    for (let kill = 0; kill <= statements; kill += 3) {
      const applied: string[] = []
      let left = kill
      const target = {
        command: async (sql: string) => {
          if (left-- === 0) throw new Error('killed')
          applied.push(sql)
        },
        scalar: async () => 0,
      }
      await migrate(target, migrations).catch(() => {})
      left = Number.POSITIVE_INFINITY
      await migrate(target, migrations)
      expect(
        applied.every(sql => sql.includes('IF NOT EXISTS') || sql.startsWith('INSERT INTO telemetry.migrations')),
      ).toBe(true)
    }
  })

  test('every materialized view writes into a table with a window of tokens', async () => {
    const targets = await rows(
      on.writer,
      "SELECT name, create_table_query FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree' AND name != 'migrations'",
    )
    expect(targets.map(([name]) => name).sort()).toEqual(['readings', 'readings_1h', 'readings_1m', 'state'])
    for (const [, query] of targets) expect(query).toMatch(/non_replicated_deduplication_window = 10000/)
    for (const [, query] of targets) expect(query).toMatch(/fsync_after_insert = 1, fsync_part_directory = 1/)
  })

  test('a database of a newer version is refused, and nothing is changed', async () => {
    await on.writer.command({
      query: "INSERT INTO telemetry.migrations (version, name) SELECT 9999, 'from the future'",
    })
    await expect(on.database.migrate()).rejects.toMatchObject({ code: 'database_newer', fate: 'stop' })
    await on.writer.command({
      query: 'ALTER TABLE telemetry.migrations DELETE WHERE version = 9999 SETTINGS mutations_sync = 1',
    })
  })

  test('a statement ends at the end of a line, and comments are left out', () => {
    expect(splitStatements("-- a;\nSELECT 1, -- b;\n ';' AS c;\n\nSELECT 2;\n")).toEqual([
      "SELECT 1,\n ';' AS c",
      'SELECT 2',
    ])
  })

  test('each column of the readings is explained where analysts see it', async () => {
    const columns = await rows(
      on.analyst,
      "SELECT name, comment FROM system.columns WHERE database = 'telemetry' AND table = 'readings' ORDER BY position",
    )
    for (const [, comment] of columns) expect(String(comment).length).toBeGreaterThan(10)
    const names = columns.map(([name]) => name).join(', ')
    expect(readFileSync(new URL('../../database/row-binary.ts', import.meta.url), 'utf8')).toContain(`'${names}'`)
  })
})
