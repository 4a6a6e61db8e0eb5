/** The schema of ClickHouse: brought to this version by anybody, at any time, as often as wanted, in a database of any name. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import type { DatabaseAccess } from '../../database/database.ts'
import { type MigrationTarget, migrate } from '../../database/migrate.ts'
import { TOKENS_KEPT } from '../../database/schema.ts'
import { type ClickHouseProxy, openProxy } from './clickhouse-proxy.ts'
import { block, type Fixture, held, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'

const PLAIN = { database: 'telemetry', cluster: null }

let on: Fixture
let access: DatabaseAccess
beforeAll(async () => {
  on = await openFixture()
  access = on.server.access
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
    `SELECT database = '${database}', name, replaceAll(replaceAll(create_table_query, '${database}_internal.', 'internal.'), '${database}.', '')
     FROM system.tables WHERE database IN ('${database}', '${database}_internal') ORDER BY ALL`,
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
    await on.writer.command({ query: 'TRUNCATE TABLE `select_internal`.readings_1m' })
    expect(await database.repairDerived({ source: 'apart', from: 1, to: 2 }, held)).toBe(1)
    expect(await scalar(on.writer, 'SELECT sum(readings) FROM `select_internal`.readings_1m')).toBe(1)
    expect(await scalar(on.writer, 'SELECT sum(readings) FROM telemetry_internal.readings_1m')).toBe(0)
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
    const tables = "database LIKE 'telemetry%' AND name IN ('readings', 'readings_1h', 'readings_1m', 'state')"
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
      "SELECT DISTINCT extract(create_table_query, ' TO telemetry_internal.(\\\\w+)') FROM system.tables WHERE database = 'telemetry_internal' AND engine = 'MaterializedView'",
    )
    expect(targets.flat().sort()).toEqual(['readings_1h', 'readings_1m', 'state'])
  })

  test('refuses a database of a newer version, and changes nothing', async () => {
    const newer = targetOf(on)
    await migrate(newer, { ...PLAIN, database: 'newer' })
    await on.writer.command({
      query: "INSERT INTO newer_internal.migrations (version, name) SELECT 9999, 'from the future'",
    })
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
      "SELECT name, comment FROM system.columns WHERE database = 'telemetry' AND table = 'readings' AND default_kind != 'ALIAS' ORDER BY position",
    )
    for (const [, comment] of columns) expect(String(comment).length).toBeGreaterThan(10)
    const names = columns.map(([name]) => name).join(', ')
    expect(readFileSync(new URL('../../database/row-binary.ts', import.meta.url), 'utf8')).toContain(`'${names}'`)
  })
})

describe('an analyst', () => {
  test('finds five tables, and the types that every client knows', async () => {
    const shown = await rows(on.analyst, 'SHOW TABLES FROM telemetry')
    expect(shown.flat()).toEqual(['daily', 'hourly', 'latest', 'minutely', 'readings'])
    const odd = await rows(
      on.analyst,
      "SELECT table, name, type FROM system.columns WHERE database = 'telemetry' AND (type LIKE '%Aggregate%' OR comment = '')",
    )
    expect(odd).toEqual([])
    const said = "SELECT count() FROM system.tables WHERE database = 'telemetry' AND engine = 'View' AND comment != ''"
    expect(await scalar(on.analyst, said)).toBe(4)
  })

  test('reads the tables and views under the names that they always had', async () => {
    await on.database.insertReadings(block([{ device: 'analyst', value: 7 }], 'analyst', 1), 'analyst/1-2')
    for (const table of ['readings', 'latest', 'minutely', 'hourly', 'daily'])
      expect(await scalar(on.analyst, `SELECT count() FROM telemetry.${table} WHERE device = 'analyst'`)).toBe(1)
    const columns =
      'device, metric, ts, kind, value, value_str, received_at, sent_ts, source, source_position, source_index'
    expect(await rows(on.analyst, `SELECT ${columns} FROM telemetry.readings WHERE device = 'analyst'`)).toHaveLength(1)
  })
})

describe('a user who may not create databases', () => {
  let server: ClickHouseProxy
  beforeAll(async () => {
    server = await openProxy(on.server.url, { answer: sql => (/^CREATE DATABASE/.test(sql) ? 497 : null) })
  })
  afterAll(() => server.close())

  test('works in those that exist, and creates what belongs in them', async () => {
    await on.writer.command({ query: 'CREATE DATABASE given ENGINE = Atomic' })
    await on.writer.command({ query: 'CREATE DATABASE given_internal ENGINE = Atomic' })
    const database = openDatabase({ ...access, url: server.url, database: 'given' })
    await database.migrate()
    expect(await schemaOf('given')).toEqual(await schemaOf('telemetry'))
    await database.close()
  })

  test('has everything in one, when only that exists', async () => {
    await on.writer.command({ query: 'CREATE DATABASE lone ENGINE = Atomic' })
    const database = openDatabase({ ...access, url: server.url, database: 'lone' })
    await database.migrate()
    expect(await database.examine()).toMatchObject({ applied: 4, newest: 4, internal: 'lone' })
    await database.insertReadings(block([{ value: 7 }], 'lone', 1), 'lone/1-2')
    await on.writer.command({ query: 'TRUNCATE TABLE lone.readings_1h' })
    expect(await database.repairDerived({ source: 'lone', from: 1, to: 2 }, held)).toBe(1)
    for await (const page of database.latest()) expect(page.map(({ value }) => value)).toEqual([7])
    expect(await scalar(on.writer, "SELECT count() FROM system.databases WHERE name = 'lone_internal'")).toBe(0)
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
