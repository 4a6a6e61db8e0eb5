/**
 * Measures what a reading takes on the disk in several layouts, on the embedded engine: `node dist/test/database/measure-layout.js [days]`.
 * The fleet: 1,000 devices with 4 metrics, one reading in 3 minutes, with a jitter of whole milliseconds within two seconds; received some tens
 * of milliseconds later at whole milliseconds, plus the few microseconds that tell readings of one millisecond apart.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openEngine } from '../../database/embedded/engine.ts'

const DAYS = Number(process.argv[2] ?? 3)
const ROWS_OF_DAY = 1_000 * 4 * 480

/** The columns that differ: their definitions, and what fills them from `t` (the time, µs), `r` (the receipt, µs). */
const LAYOUTS: Readonly<Record<string, { readonly columns: string; readonly values: string; readonly by: string }>> = {
  'ms, as before': {
    columns: `ts DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)), received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)), sent_ts Int64 CODEC(Delta, ZSTD(1))`,
    values: `fromUnixTimestamp64Milli(intDiv(t, 1000), 'UTC'), fromUnixTimestamp64Milli(intDiv(r, 1000), 'UTC'), intDiv(t, 1000)`,
    by: 'received_at',
  },
  'µs, Delta': {
    columns: `ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)), received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)), sent_ts Int64 CODEC(Delta, ZSTD(1))`,
    values: `fromUnixTimestamp64Micro(t, 'UTC'), fromUnixTimestamp64Micro(r, 'UTC'), t`,
    by: 'received_at',
  },
  'µs, GCD, sent_delta': {
    columns: `ts DateTime64(6, 'UTC') CODEC(GCD, Delta, ZSTD(1)), received_at DateTime64(6, 'UTC') CODEC(GCD, Delta, ZSTD(1)), sent_delta Nullable(Int64) CODEC(ZSTD(1))`,
    values: `fromUnixTimestamp64Micro(t, 'UTC'), fromUnixTimestamp64Micro(r, 'UTC'), 0`,
    by: 'received_at',
  },
  'µs, Delta, both deltas': {
    columns: `ts DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)), received_day Date CODEC(ZSTD(1)), received_delta Int64 CODEC(ZSTD(1)), sent_delta Nullable(Int64) CODEC(ZSTD(1))`,
    values: `fromUnixTimestamp64Micro(t, 'UTC'), toDate(fromUnixTimestamp64Micro(r, 'UTC')), r - t, 0`,
    by: 'received_day',
  },
  'µs, GCD, both deltas': {
    columns: `ts DateTime64(6, 'UTC') CODEC(GCD, Delta, ZSTD(1)), received_day Date CODEC(ZSTD(1)), received_delta Int64 CODEC(ZSTD(1)), sent_delta Nullable(Int64) CODEC(ZSTD(1))`,
    values: `fromUnixTimestamp64Micro(t, 'UTC'), toDate(fromUnixTimestamp64Micro(r, 'UTC')), r - t, 0`,
    by: 'received_day',
  },
  'µs, GCD T64, both deltas T64': {
    columns: `ts DateTime64(6, 'UTC') CODEC(GCD, Delta, ZSTD(1)), received_day Date CODEC(ZSTD(1)), received_delta Int64 CODEC(T64, ZSTD(1)), sent_delta Nullable(Int64) CODEC(ZSTD(1))`,
    values: `fromUnixTimestamp64Micro(t, 'UTC'), toDate(fromUnixTimestamp64Micro(r, 'UTC')), r - t, 0`,
    by: 'received_day',
  },
}

const folder = mkdtempSync(join(tmpdir(), 'surgetank-layout-'))
try {
  const engine = openEngine(folder)
  const run = async (sql: string) => (await engine.control.run(sql, 'TSV')).bytes.toString()
  await run('CREATE DATABASE layout ENGINE = Atomic')
  for (const [at, [name, { columns, values, by }]] of Object.entries(LAYOUTS).entries()) {
    await run(`CREATE TABLE layout.t${at} (device LowCardinality(String), metric LowCardinality(String), ${columns},
      kind Enum8('number' = 1), value Nullable(Float64) CODEC(ZSTD(1)), value_str String CODEC(ZSTD(1)),
      source LowCardinality(String), source_position UInt64 CODEC(Delta, ZSTD(1)), source_index UInt32 CODEC(ZSTD(1)))
      ENGINE = MergeTree PARTITION BY toYYYYMMDD(${by}) ORDER BY (metric, device, ts)`)
    for (let day = 0; day < DAYS; day++) {
      await run(`INSERT INTO layout.t${at} SELECT concat('press-', toString(d)), concat('metric-', toString(m)), ${values}, 'number',
        round(20 + 5 * sin(k / 40) + (cityHash64(k, d, m, 1) % 100) / 100, 2), '', 'log/0', k * 10 + d % 10, d * 4 + m
        FROM (SELECT d, m, k, t, (intDiv(t, 1000) + 20 + cityHash64(k, d, 3) % 60) * 1000 + cityHash64(k, d, m, 4) % 4 AS r
          FROM (SELECT number % 1000 AS d, intDiv(number, 1000) % 4 AS m, intDiv(number, 4000) AS k,
            toInt64((toUnixTimestamp(toDateTime('2026-01-15 00:00:00', 'UTC')) + ${day} * 86400 + k * 180) * 1000 + cityHash64(k, d, 2, ${day}) % 2000) * 1000 AS t
            FROM numbers(${ROWS_OF_DAY})))`)
    }
    await run(`OPTIMIZE TABLE layout.t${at} FINAL`)
    const columnsOf =
      await run(`SELECT name, round(data_compressed_bytes / ${DAYS * ROWS_OF_DAY}, 3) FROM system.columns
      WHERE database = 'layout' AND table = 't${at}' AND data_compressed_bytes > 0`)
    const total = await run(
      `SELECT round(sum(bytes_on_disk) / sum(rows), 2) FROM system.parts WHERE database = 'layout' AND table = 't${at}' AND active`,
    )
    process.stdout.write(
      `${name}: ${total.trim()} bytes a reading (${columnsOf.trim().replaceAll('\t', ' ').replaceAll('\n', ', ')})\n`,
    )
  }
  // The rollups are the same in all of them.
  const table = Object.keys(LAYOUTS).length - 1
  for (const [start, every] of [
    ['toStartOfMinute', 'a minute'],
    ['toStartOfHour', 'an hour'],
  ]) {
    await run(`CREATE TABLE layout.${start} (metric LowCardinality(String), device LowCardinality(String), bucket DateTime('UTC') CODEC(Delta, ZSTD(1)),
      readings UInt64, value_sum Float64, value_min Float64, value_max Float64, by_source Map(String, UInt64))
      ENGINE = MergeTree PARTITION BY toYear(bucket) ORDER BY (metric, device, bucket)`)
    await run(`INSERT INTO layout.${start} SELECT metric, device, ${start}(ts) AS bucket, count(), sum(assumeNotNull(value)), min(assumeNotNull(value)),
      max(assumeNotNull(value)), sumMap(map(toString(source), toUInt64(1))) FROM layout.t${table} GROUP BY metric, device, bucket`)
    await run(`OPTIMIZE TABLE layout.${start} FINAL`)
    const bytes = await run(
      `SELECT round(sum(bytes_on_disk) / ${DAYS * ROWS_OF_DAY}, 2) FROM system.parts WHERE database = 'layout' AND table = '${start}' AND active`,
    )
    process.stdout.write(`rollup of ${every}: ${bytes.trim()} bytes a reading\n`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.kill(process.pid, 'SIGKILL')
