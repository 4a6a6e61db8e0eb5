/** Databases of earlier versions, made by the files that made them then, and rows put into them as the writers did. */
import type { ClickHouseSettings } from '@clickhouse/client'
import { type MigrationTarget, readMigrations } from '../../database/migrate.ts'
import { quoteName, renderStatements } from '../../database/schema.ts'
import { SurgetankError } from '../../errors.ts'
import { type Fixture, RECEIVED_AT, rows } from './database-fixture.ts'

const TABLE = `CREATE TABLE IF NOT EXISTS telemetry.migrations
  (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY version`

/** All files up to a version, 1 to 3, into a database that may not exist. */
export async function makeOld(
  on: Fixture,
  database: string,
  version: number,
  edit = (sql: string) => sql,
): Promise<void> {
  const layout = { database, internal: database, cluster: null }
  const run = (query: string) => on.writer.command({ query })
  await run(`CREATE DATABASE IF NOT EXISTS ${quoteName(database)} ENGINE = Atomic`)
  for (const sql of renderStatements([TABLE], layout)) await run(sql)
  for (const migration of readMigrations().filter(one => one.version <= version)) {
    for (const sql of renderStatements(migration.statements.map(edit), layout)) await run(sql)
    await run(
      `INSERT INTO ${quoteName(database)}.migrations (version, name) SELECT ${migration.version}, '${migration.name}'`,
    )
  }
}

export interface OldRow {
  readonly device?: string
  readonly metric?: string
  /** ms; 0 for none. */
  readonly sentTs?: number
  readonly ts?: number
  readonly receivedAt?: number
  readonly value: number | string | null
}

export const OLD_RECEIVED_AT = RECEIVED_AT / 1_000

/** One insert of an earlier writer, through the views. */
export async function insertOld(
  on: Fixture,
  database: string,
  given: readonly OldRow[],
  source = 'log/0',
  position = 0,
) {
  const values = given.map(
    ({ device = 'press-1', metric = 'temperature', sentTs = 0, receivedAt = OLD_RECEIVED_AT, ...rest }, index) => ({
      device,
      metric,
      ts: (rest.ts ?? (sentTs === 0 ? receivedAt : sentTs)) / 1_000,
      kind: typeof rest.value === 'number' ? 'number' : rest.value === null ? 'null' : 'string',
      value: typeof rest.value === 'number' ? rest.value : null,
      value_str: typeof rest.value === 'string' ? rest.value : '',
      received_at: receivedAt / 1_000,
      sent_ts: sentTs,
      source,
      source_position: position,
      source_index: index,
    }),
  )
  await on.writer.insert({
    table: `${quoteName(database)}.readings`,
    values: values.map(row => ({ ...row, ts: row.ts.toFixed(3), received_at: row.received_at.toFixed(3) })),
    format: 'JSONEachRow',
    clickhouse_settings: {
      async_insert: 0,
      insert_deduplication_token: `${source}/${position}-${position + 1}`,
      deduplicate_blocks_in_dependent_materialized_views: 1,
    },
  })
}

/** Everything that somebody could read, in µs, in whichever layout. */
export async function everything(on: Fixture, database: string, internal = database): Promise<unknown[][]> {
  const now = await rows(
    on.writer,
    `SELECT count() FROM system.columns WHERE database = '${database}' AND table = 'readings' AND name = 'received_delta'`,
  )
  const sent = now[0]?.[0] === 0 ? 'if(sent_ts = 0, NULL, sent_ts * 1000)' : 'sent_ts'
  const all = `SELECT 'readings' AS t, device AS d, metric AS m, toUnixTimestamp64Micro(ts) AS a, toUnixTimestamp64Micro(received_at) AS b, toString(kind) AS k,
      value AS v, value_str AS s, toString(${sent}) AS x, source AS src, source_position AS p, source_index AS i FROM ${database}.readings
    UNION ALL SELECT 'latest', device, metric, toUnixTimestamp64Micro(ts), toUnixTimestamp64Micro(received_at), toString(kind), value, value_str,
      toString(toUnixTimestamp64Micro(seen_at)), '', 0, 0 FROM ${database}.latest
    UNION ALL SELECT 'minutes', device, metric, toUnixTimestamp(bucket), 0, '', sum(value_sum), toString(sum(readings)), toString((min(value_min), max(value_max))), toString(sumMap(by_source)), 0, 0
      FROM ${internal}.readings_1m GROUP BY device, metric, bucket
    UNION ALL SELECT 'hours', device, metric, toUnixTimestamp(bucket), 0, '', sum(value_sum), toString(sum(readings)), toString((min(value_min), max(value_max))), toString(sumMap(by_source)), 0, 0
      FROM ${internal}.readings_1h GROUP BY device, metric, bucket
    UNION ALL SELECT DISTINCT 'from', source, '', 0, 0, '', 0, '', '', '', source_position, source_index FROM ${internal}.by_source_from`
  return rows(on.writer, `SELECT * FROM (${all}) ORDER BY ALL`)
}

/**
 * As `openDatabase` speaks to a server; says which statements changed something. `refused`: what this user may not do;
 * `profile`: what the user's profile sets.
 */
export function targetOf(
  on: Fixture,
  refused: RegExp | null = null,
  profile: ClickHouseSettings = {},
): MigrationTarget & { readonly commands: string[] } {
  const commands: string[] = []
  return {
    commands,
    async command(sql, params = {}) {
      if (refused?.test(sql) === true) throw new SurgetankError('database_misconfigured', 'This user may not do that.')
      commands.push(sql)
      await on.writer.command({ query: sql, query_params: { ...params }, clickhouse_settings: profile })
    },
    async all<Row>(sql: string, params = {}) {
      const result = await on.writer.query({
        query: sql,
        query_params: { ...params },
        format: 'JSONCompactEachRow',
        clickhouse_settings: { output_format_json_quote_64bit_integers: 0, ...profile },
      })
      return result.json<Row>()
    },
  }
}

/**
 * As 189cb15 made it, the first commit that ran; as version 2, what the file of that version left of it before the next one
 * failed. Only the state has another form since.
 */
export async function makeFirst(on: Fixture, database: string, version: number): Promise<void> {
  await makeOld(on, database, version, sql =>
    sql
      .replace(/,\s*seen_at +SimpleAggregateFunction\(max, DateTime64\(3, 'UTC'\)\) COMMENT '[^']*'/, '')
      .replace(/, received_at AS seen_at\b/, '')
      .replace('newest.received_at AS received_at, seen_at', 'newest.received_at AS received_at'),
  )
}
