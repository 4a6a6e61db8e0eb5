/** [G2] Exactly once into ClickHouse, as far as it is the database's part: tokens, rollups, state, migrations, ranges. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { migrate, readMigrations, splitStatements, TOKENS_KEPT } from '../../database/migrate.ts'
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

  test('that a kill was about to forget does not leave the readings without tokens: the next start sets their number again', async () => {
    const rowsOfBatch = block(readings('half-forgotten', 10), 'half-forgotten')
    await on.writer.command({
      query: 'ALTER TABLE telemetry.readings MODIFY SETTING non_replicated_deduplication_window = 0',
    })
    on.child.kill()
    await on.restart()
    await on.database.migrate()
    await on.database.insertReadings(rowsOfBatch, 'token-half-forgotten')
    await on.database.insertReadings(rowsOfBatch, 'token-half-forgotten')
    expect(await totals('half-forgotten')).toEqual([10, 10, 10, 1])
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

describe('[G2] waiting for inserts of others', () => {
  const slow = (table: string, tag: string) =>
    on.writer.command({
      query: `INSERT INTO ${table} (device) SELECT '${tag}' FROM numbers(4) WHERE sleepEachRow(0.25) = 0 SETTINGS async_insert = 0, max_block_size = 1`,
    })
  const under = (text: string) =>
    vi.waitFor(async () =>
      expect(
        await scalar(
          on.writer,
          `SELECT count() FROM system.processes WHERE query LIKE '%${text}%' AND query_kind = 'Insert'`,
        ),
      ).toBe(1),
    )

  test('ends when the last INSERT into the readings has, also one in the quotes of another client', async () => {
    for (const table of ['telemetry.readings', '`telemetry`.`readings`', 'TABLE telemetry . readings']) {
      const tag = `slow-${table.length}`
      const insert = slow(table, tag)
      await under(tag)
      await on.database.waitForInserts()
      expect(await scalar(on.writer, `SELECT count() FROM telemetry.readings WHERE device = '${tag}'`)).toBe(4)
      await insert
    }
  })

  test('does not wait for inserts into other tables, nor for queries that name the readings', async () => {
    await on.writer.command({
      query: 'CREATE TABLE IF NOT EXISTS telemetry.readings_of_mine (device String) ENGINE = Memory',
    })
    let ended = false
    const insert = slow('telemetry.readings_of_mine', 'INSERT INTO telemetry.readings').then(() => (ended = true))
    await under('readings_of_mine')
    await on.database.waitForInserts()
    expect(ended).toBe(false)
    await insert
    await on.writer.command({ query: 'DROP TABLE telemetry.readings_of_mine' })
  })

  test('is given up by its signal, as something to try again', async () => {
    const insert = slow('telemetry.readings', 'slow-signal')
    await under('slow-signal')
    await expect(on.database.waitForInserts(AbortSignal.timeout(100))).rejects.toMatchObject({
      code: 'database_unavailable',
      fate: 'retry',
    })
    await insert
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
      expect(applied.every(sql => /IF NOT EXISTS|^INSERT INTO telemetry\.migrations|MODIFY SETTING/.test(sql))).toBe(
        true,
      )
    }
  })

  test('every materialized view writes into a table with a window of tokens', async () => {
    const targets = await rows(
      on.writer,
      "SELECT name, create_table_query FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree' AND name != 'migrations'",
    )
    expect(targets.map(([name]) => name).sort()).toEqual(['readings', 'readings_1h', 'readings_1m', 'state'])
    for (const [, query] of targets)
      expect(query).toContain(`non_replicated_deduplication_window = ${TOKENS_KEPT}, fsync`)
    const schema = readMigrations().flatMap(({ statements }) => statements)
    const windows = schema.flatMap(sql => sql.match(/(?<=non_replicated_deduplication_window = )\d+/g) ?? [])
    expect(windows).toEqual(targets.map(() => String(TOKENS_KEPT)))
    for (const [table] of targets)
      await on.writer.command({
        query: `ALTER TABLE telemetry.${table} MODIFY SETTING non_replicated_deduplication_window = 0`,
      })
    await on.database.migrate()
    const again = await rows(
      on.writer,
      `SELECT count() FROM system.tables WHERE database = 'telemetry' AND create_table_query LIKE '%window = ${TOKENS_KEPT},%'`,
    )
    expect(again).toEqual([[targets.length]])
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
