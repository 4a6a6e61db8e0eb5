/** [G2] The repair of what a kill took from the tables behind the views of the readings, and what it reads for that. */
import { createClient } from '@clickhouse/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Statement } from '../../database/history.ts'
import { repairDerived } from '../../database/repair.ts'
import { block, type Fixture, type GivenRow, held, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
})
afterAll(() => on.close())

describe('[G2] repair of what a kill took from a table behind a view', () => {
  const range = { source: 'repair', from: 3, to: 5 }
  const spread = (count: number): GivenRow[] =>
    Array.from({ length: count }, (_, i) => ({
      device: 'repair',
      metric: `m${i % 3}`,
      sentTs: RECEIVED_AT - i * 400_000_000,
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
      query: `ALTER TABLE telemetry_internal.${table} DELETE WHERE device = 'repair' SETTINGS mutations_sync = 1`,
    })
  let whole: unknown[][] = []

  beforeAll(async () => {
    await on.database.insertReadings(block(spread(400), 'repair', 3), 'repair-3')
    await on.database.insertReadings(block(spread(200), 'repair', 4), 'repair-4')
    whole = await everything()
  })

  test('nothing is filled where nothing is lacking', async () => {
    expect(await on.database.repairDerived(range, held)).toBe(0)
    expect(await everything()).toEqual(whole)
  })

  test('is the same under a profile with join_use_nulls', async () => {
    await take('readings_1m')
    const { url, user: username, password } = on.server
    const settings = { join_use_nulls: 1, output_format_json_quote_64bit_integers: 0 } as const
    const client = createClient({ url, username, password, database: 'telemetry' })
    const target = {
      internal: '`telemetry_internal`',
      command: async (query: string, params = {}) => {
        await client.command({ query, query_params: { ...params }, clickhouse_settings: settings })
      },
      all: async <Row>({ sql, params }: Statement): Promise<Row[]> => {
        const format = 'JSONCompactEachRow'
        const answer = await client.query({
          query: sql,
          query_params: { ...params },
          format,
          clickhouse_settings: settings,
        })
        return answer.json<Row>()
      },
    }
    for (const from of [3, 4])
      expect(await repairDerived(target, { ...range, from, to: from + 1 }, held)).toBeGreaterThan(0)
    await client.close()
    expect(await everything()).toEqual(whole)
  })

  test.each([[['readings_1m']], [['readings_1h']], [['state']], [['readings_1m', 'readings_1h', 'state']]])(
    '%j is filled, and no other',
    async tables => {
      for (const table of tables) await take(table)
      const filled =
        (await on.database.repairDerived({ ...range, to: 4 }, held)) +
        (await on.database.repairDerived({ ...range, from: 4 }, held))
      if (tables.includes('readings_1m') || tables.includes('readings_1h')) expect(filled).toBeGreaterThan(0)
      expect(await everything()).toEqual(whole)
      expect(await on.database.repairDerived(range, held)).toBe(0)
      expect(await everything()).toEqual(whole)
    },
  )

  test('rows of another range in the same buckets are left as they are', async () => {
    await on.database.insertReadings(block(spread(100), 'repair-other', 9), 'repair-other')
    const both = await everything()
    expect(await on.database.repairDerived(range, held)).toBe(0)
    expect(await on.database.repairDerived({ source: 'repair-other', from: 9, to: 10 }, held)).toBe(0)
    expect(await everything()).toEqual(both)
    expect(
      await scalar(
        on.writer,
        "SELECT count() FROM system.tables WHERE database LIKE 'telemetry%' AND name LIKE 'repair%'",
      ),
    ).toBe(0)
  })
})

describe('[G2] repair of the last insert, whose beginning nobody knows', () => {
  const range = { source: 'newest', from: 9, to: 14 }
  const rollup = (table: string) =>
    rows(
      on.writer,
      `SELECT metric, sum(readings), sum(value_sum), min(value_min), max(value_max) FROM telemetry_internal.${table}
       WHERE device = 'newest' GROUP BY metric ORDER BY metric`,
    )

  test('fills its rows and no older ones, whatever stands between them and however often it is broken off', async () => {
    const rowOf = (position: number, value: number | string, metric = 'm') =>
      block([{ device: 'newest', metric, sentTs: RECEIVED_AT + position, value }], 'newest', position)
    await on.database.insertReadings(rowOf(9, 10), 'newest/9-10')
    // Past the views. A text is in no rollup, and 13 is the only one of its bucket.
    const cutShort = [rowOf(10, 1), rowOf(11, 'text'), rowOf(12, 3), rowOf(13, 7, 'other')]
    for (const [at, one] of cutShort.entries())
      await on.database.restoreReadings(one, { source: 'newest', from: 10 + at, to: 11 + at }, held)
    let filled = 0
    for (let breaks = 1; filled === 0; breaks++) {
      let asked = 0
      const fence = async () => {
        if (++asked === breaks) throw new Error('broken off')
      }
      filled = await on.database.repairNewest(range, fence).catch(() => 0)
      expect(breaks).toBeLessThan(10)
    }
    for (const table of ['readings_1m', 'readings_1h'])
      expect(await rollup(table)).toEqual([
        ['m', 3, 14, 1, 10],
        ['other', 1, 7, 7, 7],
      ])
    expect(await on.database.repairNewest(range, held)).toBe(0)
    expect(await on.database.repairDerived({ ...range, from: 13 }, held)).toBe(0)
  })
})

describe('[G2] repair of a batch with one reading of 30 days ago', () => {
  /** µs */
  const DAY = 24 * 3600_000_000
  const old = (position: number): GivenRow[] => [
    { device: 'old', metric: 'm0', sentTs: RECEIVED_AT - 30 * DAY, value: position },
    ...Array.from({ length: 90 }, (_, i) => ({
      device: i % 2 === 0 ? 'old' : 'old-too',
      metric: `m${i % 3}`,
      sentTs: RECEIVED_AT - i * 1_000_000,
      value: position * 100 + i,
    })),
  ]
  const between: GivenRow[] = Array.from({ length: 300 }, (_, i) => ({
    device: i % 2 === 0 ? 'old' : 'old-too',
    metric: `m${i % 3}`,
    sentTs: RECEIVED_AT - (i % 30) * DAY - i * 60_000_000,
    value: i,
  }))
  const rollup = (table: string) =>
    rows(
      on.writer,
      `SELECT metric, device, toString(bucket), sum(readings), sum(value_sum), min(value_min), max(value_max) FROM telemetry_internal.${table}
       WHERE device LIKE 'old%' GROUP BY metric, device, bucket ORDER BY ALL`,
    )
  const both = async () => [await rollup('readings_1m'), await rollup('readings_1h')]

  /** A rollup as a kill leaves it: with all inserts but the one. */
  async function without(table: 'readings_1m' | 'readings_1h', source: string): Promise<void> {
    const bucket = table === 'readings_1m' ? 'toStartOfMinute' : 'toStartOfHour'
    await on.writer.command({
      query: `ALTER TABLE telemetry_internal.${table} DELETE WHERE device LIKE 'old%' SETTINGS mutations_sync = 1`,
    })
    await on.writer.command({ query: `CREATE TABLE telemetry.kept AS telemetry_internal.${table}` })
    await on.writer.command({
      query: `INSERT INTO telemetry.kept SELECT metric, device, ${bucket}(ts) AS b, count(), sum(assumeNotNull(value)), min(assumeNotNull(value)),
        max(assumeNotNull(value)), sumMap(map(toString(source), toUInt64(1))) FROM telemetry.readings WHERE device LIKE 'old%' AND source != '${source}' GROUP BY metric, device, b`,
    })
    for (const [year] of await rows(on.writer, 'SELECT DISTINCT toYear(bucket) FROM telemetry.kept')) {
      await on.writer.command({
        query: `ALTER TABLE telemetry_internal.${table} ATTACH PARTITION ${year} FROM telemetry.kept`,
      })
    }
    await on.writer.command({ query: 'DROP TABLE telemetry.kept SYNC' })
  }

  test('fills exactly the buckets that lack it, in every series, and leaves those in between', async () => {
    await on.database.insertReadings(block(between, 'old-between', 1), 'old-between')
    await on.database.insertReadings(block(old(1), 'old-first', 1), 'old-first')
    await on.database.insertReadings(block(old(2), 'old-second', 1), 'old-second')
    const whole = await both()
    const range = { source: 'old-second', from: 1, to: 2 }
    expect(await on.database.repairDerived(range, held)).toBe(0)
    for (const table of ['readings_1m', 'readings_1h'] as const) {
      await without(table, 'old-second')
      expect(await both()).not.toEqual(whole)
      expect(await on.database.repairDerived(range, held)).toBeGreaterThan(0)
      expect(await both()).toEqual(whole)
      expect(await on.database.repairDerived(range, held)).toBe(0)
    }
  })

  test('reads the buckets of the batch, not all from the first to the last', async () => {
    // The batch stays a part of its own: in a merged one, the granules in which its rows lie are most of this table.
    await on.writer.command({ query: 'SYSTEM STOP MERGES telemetry.readings' })
    // Ten series, each many times longer than what the engine reads at once.
    const at = `fromUnixTimestamp64Micro(${RECEIVED_AT}, 'UTC')`
    const rowsOfFleet = 1_000_000
    await on.writer.command({
      query: `INSERT INTO telemetry.readings (device, metric, ts, kind, value, received_delta, source, source_position)
        SELECT concat('old-', toString(number % 10)), 'm', ${at} - toIntervalSecond(26 * intDiv(number, 10)), 'number', 1, 26000000 * intDiv(number, 10), 'old-fleet', 1000
        FROM numbers(${rowsOfFleet}) SETTINGS async_insert = 0`,
    })
    const wide: GivenRow[] = Array.from({ length: 10 }, (_, i) => ({
      device: `old-${i}`,
      metric: 'm',
      sentTs: i === 0 ? RECEIVED_AT - 30 * DAY : RECEIVED_AT,
      value: i,
    }))
    await on.database.insertReadings(block(wide, 'old-wide', 1), 'old-wide')
    const read: number[] = []
    const { url, user: username, password } = on.server
    const client = createClient({ url, username, password, database: 'telemetry' })
    const target = {
      internal: '`telemetry_internal`',
      command: async () => {},
      all: async <Row>({ sql, params }: Statement): Promise<Row[]> => {
        const answer = await client.query({ query: sql, query_params: { ...params }, format: 'JSONCompact' })
        const { data, statistics } = await answer.json<Row>()
        read.push(statistics?.rows_read ?? 0)
        return data
      },
    }
    expect(await repairDerived(target, { source: 'old-wide', from: 1, to: 2 }, held)).toBe(0)
    await client.close()
    // What is left of earlier tries, where counting by source begins, and the two rollups.
    expect(read).toHaveLength(4)
    read.splice(0, 2)
    expect(Math.min(...read)).toBeGreaterThan(wide.length)
    expect(Math.max(...read)).toBeLessThan(rowsOfFleet / 2)
    await on.writer.command({ query: 'SYSTEM START MERGES telemetry.readings' })
  })
})
