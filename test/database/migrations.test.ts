/** The schema of ClickHouse: brought to this version by anybody, at any time, as often as wanted, in a database of any name. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { ACCESS_DEFAULTS, type DatabaseAccess } from '../../database/database.ts'
import { type MigrationTarget, migrate, readMigrations } from '../../database/migrate.ts'
import { TOKENS_KEPT } from '../../database/schema.ts'
import { type ClickHouseProxy, openProxy } from './clickhouse-proxy.ts'
import { block, type Fixture, held, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'

const PLAIN = { database: 'telemetry', cluster: null }

let on: Fixture
let access: DatabaseAccess
beforeAll(async () => {
  on = await openFixture()
  access = { url: on.url, user: 'surgetank', password: on.password, ...ACCESS_DEFAULTS }
  await on.database.migrate()
})
afterAll(() => on.close())

/** By the client itself, as `openDatabase` does it; says which statements changed something. */
function targetOf(fixture: Fixture): MigrationTarget & { readonly commands: string[] } {
  const commands: string[] = []
  return {
    commands,
    async command(sql, params = {}) {
      commands.push(sql)
      await fixture.writer.command({ query: sql, query_params: { ...params } })
    },
    async all<Row>(sql: string, params = {}) {
      const result = await fixture.writer.query({
        query: sql,
        query_params: { ...params },
        format: 'JSONCompactEachRow',
        clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
      })
      return result.json<Row>()
    },
  }
}

function schemaOf(database: string): Promise<unknown[][]> {
  return rows(
    on.writer,
    `SELECT name, replaceAll(create_table_query, '${database}.', '') FROM system.tables WHERE database = '${database}' ORDER BY name`,
  )
}

describe('a migration', () => {
  test('that has nothing to do changes nothing', async () => {
    const target = targetOf(on)
    await migrate(target, PLAIN)
    expect(target.commands).toEqual([])
  })

  test('of several processes at once, in a database of its own name, gives the schema that one alone gives', async () => {
    for (let round = 0; round < 5; round++) {
      const database = `fleet_${round}`
      const opened = [1, 2, 3, 4].map(() => openDatabase({ ...access, database }))
      await Promise.all(opened.map(each => each.migrate()))
      expect(await schemaOf(database)).toEqual(await schemaOf('telemetry'))
      await Promise.all(opened.map(each => each.close()))
    }
  })

  test('keeps databases of one server apart, from the first insert to the last question', async () => {
    const database = openDatabase({ ...access, database: 'select' })
    await database.migrate()
    await database.insertReadings(block([{ value: 7 }], 'apart', 1), 'apart/1-2')
    expect(await database.countBySource()).toEqual(new Map([['apart', 1]]))
    expect((await on.database.countBySource()).get('apart')).toBeUndefined()
    const query = { device: 'press-1', metrics: null, from: 0, to: RECEIVED_AT + 1, order: 'asc', limit: 10 } as const
    expect((await database.history(query, null)).map(({ value }) => value)).toEqual([7])
    expect((await database.historyBuckets(query, 60_000, ['avg'])).map(({ values }) => values)).toEqual([[7]])
    for await (const page of database.latest()) expect(page.map(({ value }) => value)).toEqual([7])
    await on.writer.command({ query: 'TRUNCATE TABLE `select`.readings_1m' })
    expect(await database.repairDerived({ source: 'apart', from: 1, to: 2 }, held)).toBe(1)
    expect(await scalar(on.writer, 'SELECT sum(readings) FROM `select`.readings_1m')).toBe(1)
    expect(await scalar(on.writer, 'SELECT sum(readings) FROM telemetry.readings_1m')).toBe(0)
    await database.close()
  })

  test('that is killed after any statement is completed by the next', async () => {
    const statements = targetOf(on)
    await migrate(statements, { ...PLAIN, database: 'counted' })
    const schema = await schemaOf('counted')
    for (let kill = 1; kill < statements.commands.length; kill += 2) {
      const database = `killed_${kill}`
      const target = targetOf(on)
      let left = kill
      const killed = {
        ...target,
        command: async (sql: string, params?: Readonly<Record<string, unknown>>) => {
          if (left-- === 0) throw new Error('killed')
          await target.command(sql, params)
        },
      }
      await expect(migrate(killed, { ...PLAIN, database })).rejects.toThrow('killed')
      await migrate(target, { ...PLAIN, database })
      expect(await schemaOf(database)).toEqual(schema)
    }
  })

  test('gives every table that an insert reaches a window of tokens, and sets it again where an older version left none', async () => {
    const tables = "database = 'telemetry' AND name IN ('readings', 'readings_1h', 'readings_1m', 'state')"
    const withWindow = `SELECT count() FROM system.tables WHERE ${tables}
      AND engine_full LIKE '%non_replicated_deduplication_window = ${TOKENS_KEPT}, fsync_after_insert = 1, fsync_part_directory = 1%'`
    expect(await scalar(on.writer, withWindow)).toBe(4)
    await on.writer.command({
      query: 'ALTER TABLE telemetry.readings MODIFY SETTING non_replicated_deduplication_window = 0',
    })
    expect(await scalar(on.writer, withWindow)).toBe(3)
    const target = targetOf(on)
    await migrate(target, PLAIN)
    expect(target.commands).toHaveLength(1)
    expect(await scalar(on.writer, withWindow)).toBe(4)
    const targets = await rows(
      on.writer,
      "SELECT DISTINCT extract(create_table_query, ' TO telemetry.(\\\\w+)') FROM system.tables WHERE database = 'telemetry' AND engine = 'MaterializedView'",
    )
    expect(targets.flat().sort()).toEqual(['readings_1h', 'readings_1m', 'state'])
  })

  test('refuses a database of a newer version, and changes nothing', async () => {
    const newer = targetOf(on)
    await migrate(newer, { ...PLAIN, database: 'newer' })
    await on.writer.command({ query: "INSERT INTO newer.migrations (version, name) SELECT 9999, 'from the future'" })
    newer.commands.length = 0
    await expect(migrate(newer, { ...PLAIN, database: 'newer' })).rejects.toMatchObject({
      code: 'database_newer',
      fate: 'stop',
    })
    expect(newer.commands).toEqual([])
  })

  test('explains each column of the readings where analysts see it', async () => {
    const columns = await rows(
      on.analyst,
      "SELECT name, comment FROM system.columns WHERE database = 'telemetry' AND table = 'readings' ORDER BY position",
    )
    for (const [, comment] of columns) expect(String(comment).length).toBeGreaterThan(10)
    const names = columns.map(([name]) => name).join(', ')
    expect(readFileSync(new URL('../../database/row-binary.ts', import.meta.url), 'utf8')).toContain(`'${names}'`)
  })
})

describe('a user who may not create databases', () => {
  let server: ClickHouseProxy
  beforeAll(async () => {
    server = await openProxy(on.url, { answer: sql => (/^CREATE DATABASE/.test(sql) ? 497 : null) })
  })
  afterAll(() => server.close())

  test('works in one that exists, and creates what belongs in it', async () => {
    await on.writer.command({ query: 'CREATE DATABASE given ENGINE = Atomic' })
    const database = openDatabase({ ...access, url: server.url, database: 'given' })
    await database.migrate()
    expect(await schemaOf('given')).toEqual(await schemaOf('telemetry'))
    await database.close()
  })

  test('is told to create one that does not exist', async () => {
    const database = openDatabase({ ...access, url: server.url, database: 'absent' })
    await expect(database.migrate()).rejects.toMatchObject({
      code: 'database_misconfigured',
      fate: 'stop',
      detail: expect.stringMatching(/^The database absent does not exist, and this user may not create it: create it/),
    })
    await database.close()
  })
})

describe('[G2] rollups from before version 2', () => {
  const VERSION_1 = readMigrations().filter(({ version }) => version === 1)
  const spread = (from: number) =>
    Array.from({ length: 60 }, (_, i) => ({ sentTs: RECEIVED_AT - (from + i) * 7_000, value: from + i }))
  const totals = async () =>
    (
      await rows(
        on.writer,
        'SELECT (SELECT sum(readings) FROM old.readings_1m), (SELECT sum(readings) FROM old.readings_1h), (SELECT sum(value_sum) FROM old.readings_1h)',
      )
    )[0]

  test('count on: what they lack of an older or a newer insert is filled, and nothing twice', async () => {
    await migrate(targetOf(on), { ...PLAIN, database: 'old' }, VERSION_1)
    const database = openDatabase({ ...access, database: 'old' })
    await database.insertReadings(block(spread(0), 'log', 0), 'log/0-1')
    // Of this one a kill took the rollups.
    const minutes = 'SELECT * FROM old.readings_1m'
    await on.writer.command({ query: `CREATE TABLE old.kept ENGINE = MergeTree ORDER BY tuple() AS ${minutes}` })
    await database.insertReadings(block(spread(30), 'log', 1), 'log/1-2')
    const whole = await totals()
    await on.writer.command({ query: 'TRUNCATE TABLE old.readings_1h' })
    await on.writer.command({ query: 'TRUNCATE TABLE old.readings_1m' })
    await on.writer.command({ query: 'INSERT INTO old.readings_1m SELECT * FROM old.kept SETTINGS async_insert = 0' })
    await on.writer.command({ query: 'DROP TABLE old.kept SYNC' })
    expect(await totals()).toEqual([60, 60, 1770])

    await Promise.all([database.migrate(), database.migrate()])
    expect(
      await rows(on.writer, 'SELECT DISTINCT source, source_position, source_index FROM old.by_source_from'),
    ).toEqual([['log', 1, 60]])
    expect(await database.repairDerived({ source: 'log', from: 1, to: 2 }, held)).toBeGreaterThan(0)
    expect(await totals()).toEqual(whole)
    expect(await database.repairDerived({ source: 'log', from: 1, to: 2 }, held)).toBe(0)
    expect(await database.repairDerived({ source: 'log', from: 0, to: 1 }, held)).toBe(0)

    await database.insertReadings(block(spread(20), 'log', 2), 'log/2-3')
    await database.insertReadings(block(spread(10), 'other', 0), 'other/0-1')
    expect(await totals()).toEqual([240, 240, expect.any(Number)])
    for (const range of [
      { source: 'log', from: 2, to: 3 },
      { source: 'other', from: 0, to: 1 },
    ])
      expect(await database.repairDerived(range, held)).toBe(0)
    await database.close()
  })
})
