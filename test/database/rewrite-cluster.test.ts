/**
 * A rewriting on a cluster. There is none here: each statement is read by the engine's parser as it is sent, and then run on plain
 * tables, without what only a cluster has. So its order is tried, and its words; not what replicas make of them.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type MigrationTarget, migrate } from '../../database/migrate.ts'
import { type Fixture, openFixture, scalar } from './database-fixture.ts'
import { everything, insertOld, makeOld, OLD_RECEIVED_AT, type OldRow, targetOf } from './old-database.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
})
afterAll(() => on.close())

const CLUSTER = { database: 'fleet', cluster: 'main' }
const AT = "('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"

const given: OldRow[] = Array.from({ length: 80 }, (_, i) => ({
  device: `press-${i % 3}`,
  receivedAt: OLD_RECEIVED_AT + i * 3_600_000,
  sentTs: OLD_RECEIVED_AT + i * 60_000,
  value: i,
}))

/** What a server of a cluster would get, in `sent`. */
function clusterTarget(): MigrationTarget & { readonly sent: string[] } {
  const plain = targetOf(on)
  const sent: string[] = []
  const bare = (sql: string) =>
    sql
      .replaceAll(" ON CLUSTER 'main'", '')
      .replaceAll(AT, '')
      .replaceAll('ENGINE = Replicated', 'ENGINE = ')
      .replaceAll(
        /(?<!non_)replicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+/g,
        'non_replicated_deduplication_window = $1',
      )
      .replaceAll("clusterAllReplicas('main', system.processes)", 'system.processes')
  return {
    sent,
    async command(sql, params) {
      sent.push(sql)
      if (!sql.startsWith('SYSTEM SYNC REPLICA')) await plain.command(bare(sql), params)
    },
    async all<Row>(sql: string, params = {}) {
      if (sql.includes('FROM system.clusters')) return [[1]] as Row[]
      const found = await plain.all<unknown[]>(bare(sql), params)
      if (!sql.startsWith('SELECT database, name, engine')) return found as Row[]
      return found.map(row => row.map(field => (field === 'MergeTree' ? 'ReplicatedMergeTree' : field))) as Row[]
    },
  }
}

test('moves old rows aside and takes new ones by partitions: no table is renamed, and what is of parts is said to one replica', async () => {
  await makeOld(on, 'fleet', 3)
  await insertOld(on, 'fleet', given)
  const before = await everything(on, 'fleet')
  const target = clusterTarget()
  await migrate(target, CLUSTER)
  expect(await everything(on, 'fleet', 'fleet_internal')).toEqual(before)
  for (const sql of target.sent) {
    expect(sql).not.toMatch(/^RENAME|^EXCHANGE|telemetry|non_replicated/)
    const ofOne = /^(?:INSERT|SYSTEM)|^ALTER TABLE \S+ (?:MOVE|REPLACE) PARTITION|migration_part_/.test(sql)
    expect(/ON CLUSTER 'main'/.test(sql), sql).toBe(!ofOne)
    const text = sql.replaceAll(/\{partition:String\}/g, "'20260115'")
    const formatted = `SELECT formatQuery($query$${text}$query$)`
    if (!/\{\w+:\w+\}/.test(text)) expect(await scalar(on.writer, formatted)).toEqual(expect.any(String))
  }
  const tables = target.sent.filter(sql => /^CREATE TABLE/.test(sql) && !/migration_part_|ENGINE = Null/.test(sql))
  for (const sql of tables) expect(sql).toContain(`MergeTree${AT}`)
  const order = (text: string) => target.sent.findIndex(sql => sql.includes(text))
  const steps = [
    'SYSTEM SYNC REPLICA `fleet`.readings',
    'MOVE PARTITION',
    'DROP TABLE IF EMPTY `fleet`.readings',
    'ALTER TABLE `fleet`.readings REPLACE PARTITION',
    'DROP TABLE IF EXISTS `fleet_internal`.migration_readings_before',
  ]
  const places = steps.map(order)
  expect(places.every(place => place >= 0)).toBe(true)
  expect(places).toEqual([...places].sort((a, b) => a - b))
})
