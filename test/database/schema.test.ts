/** The schema as text: what a plain server gets, and what the replicas of a cluster get. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { underWay } from '../../database/inserts.ts'
import { readMigrations } from '../../database/migrate.ts'
import { createDatabase, renderStatements, splitStatements } from '../../database/schema.ts'
import { type Fixture, openFixture, scalar } from './database-fixture.ts'

const FILES = readMigrations().flatMap(({ statements }) => statements)
const PLAIN = { database: 'telemetry', internal: 'telemetry_internal', cluster: null }
const CLUSTER = { database: 'fleet', internal: 'fleet_internal', cluster: 'main' }
const AT = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"

describe('a statement', () => {
  test('ends at the end of a line, and comments are left out', () => {
    expect(splitStatements("-- a;\nSELECT 1, -- b;\n ';' AS c;\n\nSELECT 2;\n")).toEqual([
      "SELECT 1,\n ';' AS c",
      'SELECT 2',
    ])
  })

  test.each<[string, string, string]>([
    [
      'CREATE TABLE IF NOT EXISTS telemetry.t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10000, x = 1',
      'CREATE TABLE IF NOT EXISTS `telemetry`.t (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10000, x = 1',
      `CREATE TABLE IF NOT EXISTS \`fleet\`.t ON CLUSTER 'main' (a Int8) ENGINE = ReplicatedMergeTree(${AT}) ORDER BY a SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800, x = 1`,
    ],
    [
      'CREATE TABLE IF NOT EXISTS telemetry.t (a Int8)\nENGINE = AggregatingMergeTree\nORDER BY a',
      'CREATE TABLE IF NOT EXISTS `telemetry`.t (a Int8)\nENGINE = AggregatingMergeTree\nORDER BY a',
      `CREATE TABLE IF NOT EXISTS \`fleet\`.t ON CLUSTER 'main' (a Int8)\nENGINE = ReplicatedAggregatingMergeTree(${AT})\nORDER BY a`,
    ],
    [
      'CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.v TO telemetry.t AS SELECT a FROM telemetry.s',
      'CREATE MATERIALIZED VIEW IF NOT EXISTS `telemetry`.v TO `telemetry`.t AS SELECT a FROM `telemetry`.s',
      "CREATE MATERIALIZED VIEW IF NOT EXISTS `fleet`.v ON CLUSTER 'main' TO `fleet`.t AS SELECT a FROM `fleet`.s",
    ],
    [
      'CREATE VIEW IF NOT EXISTS telemetry.v AS SELECT a FROM telemetry.t FINAL',
      'CREATE VIEW IF NOT EXISTS `telemetry`.v AS SELECT a FROM `telemetry`.t FINAL',
      "CREATE VIEW IF NOT EXISTS `fleet`.v ON CLUSTER 'main' AS SELECT a FROM `fleet`.t FINAL",
    ],
    [
      'CREATE OR REPLACE VIEW telemetry.v AS SELECT a FROM telemetry.t',
      'CREATE OR REPLACE VIEW `telemetry`.v AS SELECT a FROM `telemetry`.t',
      "CREATE OR REPLACE VIEW `fleet`.v ON CLUSTER 'main' AS SELECT a FROM `fleet`.t",
    ],
    [
      'ALTER TABLE telemetry.v MODIFY QUERY\nSELECT a FROM telemetry.t',
      'ALTER TABLE `telemetry`.v MODIFY QUERY\nSELECT a FROM `telemetry`.t',
      "ALTER TABLE `fleet`.v ON CLUSTER 'main' MODIFY QUERY\nSELECT a FROM `fleet`.t",
    ],
    [
      "INSERT INTO telemetry.t (a) SELECT a FROM telemetry.s WHERE database = 'telemetry'",
      "INSERT INTO `telemetry`.t (a) SELECT a FROM `telemetry`.s WHERE database = 'telemetry'",
      "INSERT INTO `fleet`.t (a) SELECT a FROM `fleet`.s WHERE database = 'fleet'",
    ],
  ])('%s', (sql, plain, replicated) => {
    expect(renderStatements([sql], PLAIN)).toEqual([plain])
    expect(renderStatements([sql], CLUSTER)).toEqual([replicated])
  })

  test('that creates the database is not one of the schema: it has its own, where it may be run', () => {
    expect(renderStatements(['CREATE DATABASE IF NOT EXISTS telemetry ENGINE = Atomic'], CLUSTER)).toEqual([])
    expect(createDatabase('telemetry', null)).toBe('CREATE DATABASE IF NOT EXISTS `telemetry` ENGINE = Atomic')
    expect(createDatabase('fleet', 'main')).toBe(
      "CREATE DATABASE IF NOT EXISTS `fleet` ON CLUSTER 'main' ENGINE = Atomic",
    )
  })
})

describe('the files for a cluster', () => {
  const rendered = renderStatements(FILES, CLUSTER)
  let on: Fixture
  beforeAll(async () => {
    on = await openFixture()
  })
  afterAll(() => on.close())

  test('leave nothing that is of one server, and no other database', () => {
    expect(rendered.length).toBeGreaterThan(15)
    for (const sql of rendered) {
      expect(sql).not.toMatch(/telemetry|non_replicated|= \w*(?<!Replicated)(?<!Aggregating)MergeTree\b|= Aggregating/)
      expect(/ON CLUSTER 'main'/.test(sql)).toBe(!sql.startsWith('INSERT'))
    }
  })

  test('can run twice', () => {
    for (const sql of rendered)
      expect(sql).toMatch(/IF NOT EXISTS|OR REPLACE|MODIFY QUERY|^INSERT INTO `fleet`\.by_source_from/)
  })

  test('replicate every table, and keep the tokens of each that an insert reaches for a week', () => {
    const tables = rendered.filter(sql => sql.startsWith('CREATE TABLE'))
    const tokens = tables.filter(sql => sql.includes('replicated_deduplication_window_seconds = 604800'))
    expect(tables.map(sql => sql.includes(`(${AT})`))).toEqual(tables.map(() => true))
    // The first three files, and the newest, which is the whole schema.
    expect(tokens.map(sql => /`fleet(?:_internal)?`\.(\w+)/.exec(sql)?.[1])).toEqual([
      'readings',
      'state',
      'readings_1m',
      'readings_1h',
      'readings',
      'state',
      'readings_1m',
      'readings_1h',
    ])
  })

  test('are statements to the engine, which cannot run them here; so is the look for inserts on all replicas', async () => {
    const look = underWay('log/0', 'main').sql
    expect(await scalar(on.writer, `SELECT formatQuery($$${look.replace('{prefix:String}', "'log/0/'")}$$)`)).toMatch(
      /clusterAllReplicas\('main', system.processes\)[\s\S]+skip_unavailable_shards = 1/,
    )
    for (const sql of rendered) {
      const result = await on.writer.query({
        query: 'SELECT formatQuery({sql:String})',
        query_params: { sql },
        format: 'JSONCompactEachRow',
      })
      const [[formatted]] = (await result.json<[string]>()) as [[string]]
      expect(/ON CLUSTER main/.test(formatted)).toBe(!sql.startsWith('INSERT'))
    }
  })
})
