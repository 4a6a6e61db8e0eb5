/**
 * Filling what the tables behind a materialized view lack of a range that `readings` has: a kill can take the part of one
 * table and leave the others [G2].
 *
 * A view's part of one insert is there whole or not at all, so a bucket either has a range's readings or lacks them all:
 * it lacks them when the readings of that bucket outnumber it by at least those of the range. The missing rows are put
 * together in a table of their own and attached from there: an INSERT into the minutes would run the view that feeds the
 * hours, which may lack nothing. A kill between the steps leaves what the next repair does again.
 */
import type { SourceRange } from './database.ts'
import type { Statement } from './history.ts'

/**
 * The rows of a range, by the parameters of `rangeParams`. The positions alone let parts be passed over; the pairs are exact.
 */
export const OF_RANGE = `source = {source:String} AND source_position >= {from:UInt64} AND source_position <= {to:UInt64}
  AND (source_position, source_index) >= ({from:UInt64}, {fromIndex:UInt32})
  AND (source_position, source_index) < ({to:UInt64}, {toIndex:UInt32})`

export function rangeParams({ source, from, fromIndex = 0, to, toIndex = 0 }: SourceRange): Record<string, unknown> {
  return { source, from, fromIndex, to, toIndex }
}

const NUMERIC = "kind IN ('number', 'integer', 'bool')"

const ROLLUPS = [
  { name: 'readings_1m', start: 'toStartOfMinute' },
  { name: 'readings_1h', start: 'toStartOfHour' },
] as const
type Rollup = (typeof ROLLUPS)[number]

/** What a repair needs of a database. */
export interface RepairTarget {
  command(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void>
  all<Row>(statement: Statement): Promise<Row[]>
}

/** Returns how many rows of rollups were filled. The state takes its rows in any case: to repeat a maximum changes nothing. */
export async function repairDerived(target: RepairTarget, range: SourceRange): Promise<number> {
  await target.command(STATE_OF_RANGE, rangeParams(range))
  let filled = 0
  for (const rollup of ROLLUPS) filled += await repairRollup(target, rollup, range)
  return filled
}

/** Not by a token: a repair of the same rows must not be dropped as a repetition of one that was lost. */
const STATE_OF_RANGE = `INSERT INTO telemetry.state (device, metric, newest, seen_at) SETTINGS insert_deduplicate = 0, async_insert = 0
  SELECT device, metric, max(tuple(ts, received_at, kind, ifNull(value, 0), value_str)), max(received_at)
  FROM telemetry.readings WHERE ${OF_RANGE} GROUP BY device, metric`

async function repairRollup({ command, all }: RepairTarget, rollup: Rollup, range: SourceRange): Promise<number> {
  const lacking = lackingRows(rollup)
  const [counted] = await all<[number]>({ sql: `SELECT count() FROM (${lacking})`, params: rangeParams(range) })
  const rows = counted?.[0] ?? 0
  if (rows === 0) return 0
  const apart = `telemetry.repair_${rollup.name}`
  await command(`DROP TABLE IF EXISTS ${apart} SYNC`)
  await command(`CREATE TABLE ${apart} AS telemetry.${rollup.name}`)
  await command(
    `INSERT INTO ${apart} (metric, device, bucket, readings, value_sum, value_min, value_max) SETTINGS insert_deduplicate = 0, async_insert = 0 ${lacking}`,
    rangeParams(range),
  )
  const years = await all<[number]>({ sql: `SELECT DISTINCT toYear(bucket) FROM ${apart}`, params: {} })
  for (const [year] of years)
    await command(`ALTER TABLE telemetry.${rollup.name} ATTACH PARTITION ${Number(year)} FROM ${apart}`)
  await command(`DROP TABLE ${apart} SYNC`)
  return rows
}

/**
 * The rows of a rollup that a range makes and the rollup does not hold, in the order of its columns.
 *
 * Both sides are read for the buckets of the range only, by membership and not from the first of them to the last: one old
 * reading among new ones would make every bucket of every series between the two be read. The three columns are the
 * primary keys, so that only the granules of these buckets are touched.
 */
function lackingRows({ name, start }: Rollup): string {
  const ofRange = `FROM telemetry.readings WHERE ${OF_RANGE} AND ${NUMERIC}`
  const buckets = `(SELECT DISTINCT metric, device, ${start}(ts) ${ofRange})`
  return `SELECT mine.metric, mine.device, mine.bucket, mine.readings, mine.value_sum, mine.value_min, mine.value_max
    FROM (
      SELECT metric, device, ${start}(ts) AS bucket, count() AS readings, sum(assumeNotNull(value)) AS value_sum,
        min(assumeNotNull(value)) AS value_min, max(assumeNotNull(value)) AS value_max
      ${ofRange} GROUP BY metric, device, bucket
    ) AS mine
    LEFT JOIN (
      SELECT metric, device, ${start}(ts) AS bucket, count() AS n FROM telemetry.readings
      WHERE ${NUMERIC} AND (metric, device, ${start}(ts)) IN ${buckets} GROUP BY metric, device, bucket
    ) AS whole ON whole.metric = mine.metric AND whole.device = mine.device AND whole.bucket = mine.bucket
    LEFT JOIN (
      SELECT metric, device, bucket, sum(readings) AS n FROM telemetry.${name}
      WHERE (metric, device, bucket) IN ${buckets} GROUP BY metric, device, bucket
    ) AS held ON held.metric = mine.metric AND held.device = mine.device AND held.bucket = mine.bucket
    WHERE toInt64(whole.n) - toInt64(held.n) >= toInt64(mine.readings)`
}
