/**
 * Filling what the tables behind a materialized view lack of a range that `readings` has: a kill can take the part of one
 * table and leave the others [G2].
 *
 * A view's part of one insert is there whole or not at all, so a bucket either has a range's readings or lacks them all:
 * it lacks them when the source's readings of that bucket outnumber those it counts of this source by at least those of
 * the range. Other sources are not looked at: their inserts may be half-way between the tables. Of one source, only one
 * insert is under way at a time, and none during a repair.
 *
 * The missing rows are attached, not inserted: an INSERT into the minutes would run the view that feeds the hours, which
 * may lack nothing. A kill between the steps leaves what the next repair does again.
 */
import { type ApartTarget, dropApart, openApart } from './apart.ts'
import type { Fence, SourceRange } from './database.ts'

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

/** How a bucket's readings are counted on both sides, and what a row that is filled in says of its source. */
interface Counting {
  readonly ofReadings: string
  readonly ofRollup: string
  readonly label: string
  readonly params: Readonly<Record<string, unknown>>
}

/**
 * Which rows of a range a bucket may lack. `all`: the range is one insert, and the bucket lacks all of its rows or none. `newest`:
 * the range ends with an insert whose beginning nobody knows, and the bucket lacks that one's rows or none. These are its
 * newest, so as many as are lacking; what was filled lacks nothing when it is asked again.
 */
export type Which = 'all' | 'newest'

const NEWEST_FIRST = 'ORDER BY source_position DESC, source_index DESC'
const WHICH = {
  all: { place: () => 'toInt64(0)', isLacking: 'lacks >= toInt64(count())' },
  newest: {
    place: (start: string) => `toInt64(row_number() OVER (PARTITION BY metric, device, ${start}(ts) ${NEWEST_FIRST}))`,
    isLacking: 'lacks = toInt64(count())',
  },
} as const

/** Returns how many rows of rollups were filled. The state takes its rows in any case: to repeat a maximum changes nothing. */
export async function repairDerived(
  target: ApartTarget,
  range: SourceRange,
  fence: Fence,
  which: Which = 'all',
): Promise<number> {
  await dropApart(target, range.source, fence)
  await target.command(`INSERT INTO ${target.internal}.state ${STATE_OF_RANGE}`, rangeParams(range))
  const counting = await chooseCounting(target, range)
  let filled = 0
  for (const rollup of ROLLUPS) filled += await repairRollup(target, { rollup, range, counting, fence, which })
  return filled
}

/** Not by a token: a repair of the same rows must not be dropped as a repetition of one that was lost. */
const STATE_OF_RANGE = `(device, metric, newest, seen_at) SETTINGS insert_deduplicate = 0, async_insert = 0
  SELECT device, metric, max(tuple(ts, received_at, kind, ifNull(value, 0), value_str)), max(received_at)
  FROM readings WHERE ${OF_RANGE} GROUP BY device, metric`

/**
 * By source where the rollups count by source. A range from before they did is compared over all sources, as it was then: there
 * was one writer, and there is one as long as its plan is open.
 */
async function chooseCounting(
  { all, internal }: ApartTarget,
  { source, from, fromIndex = 0 }: SourceRange,
): Promise<Counting> {
  const [start] = await all<[position: number, index: number]>({
    sql: `SELECT source_position, source_index FROM ${internal}.by_source_from WHERE source = {source:String}
      ORDER BY source_position DESC, source_index DESC LIMIT 1`,
    params: { source },
  })
  const [startPosition, startIndex] = start ?? [0, 0]
  const before = from < startPosition || (from === startPosition && fromIndex < startIndex)
  if (before) return { ofReadings: '1', ofRollup: 'readings', label: "CAST(map(), 'Map(String, UInt64)')", params: {} }
  return {
    ofReadings:
      'source = {source:String} AND (source_position, source_index) >= ({startPosition:UInt64}, {startIndex:UInt32})',
    ofRollup: 'by_source[{source:String}]',
    label: 'map({source:String}, mine.readings)',
    params: { startPosition, startIndex },
  }
}

interface RollupRepair {
  readonly rollup: Rollup
  readonly range: SourceRange
  readonly counting: Counting
  readonly fence: Fence
  readonly which: Which
}

async function repairRollup(
  target: ApartTarget,
  { rollup, range, counting, fence, which }: RollupRepair,
): Promise<number> {
  const lacking = lackingRows({ ...rollup, name: `${target.internal}.${rollup.name}` }, counting, which)
  const params = { ...rangeParams(range), ...counting.params }
  const [counted] = await target.all<[number]>({
    sql: `SELECT count() FROM (${lacking}) SETTINGS join_use_nulls = 0`,
    params,
  })
  const rows = counted?.[0] ?? 0
  if (rows === 0) return 0
  const apart = await openApart(target, range.source, rollup.name)
  const columns = 'metric, device, bucket, readings, value_sum, value_min, value_max, by_source'
  const fill = `INSERT INTO ${apart.name} (${columns}) SETTINGS insert_deduplicate = 0, async_insert = 0, join_use_nulls = 0 ${lacking}`
  await apart.use(() => target.command(fill, params))
  await apart.attach(fence)
  await apart.drop()
  return rows
}

/**
 * The rows of a rollup that a range makes and the rollup does not hold, in the order of its columns.
 *
 * Both sides are read for the buckets of the range only, by membership and not from the first of them to the last: one old
 * reading among new ones would make every bucket of every series between the two be read. The three columns are the
 * primary keys, so that only the granules of these buckets are touched.
 *
 * To be run with `join_use_nulls = 0`, which a server's profile may have set: a bucket that is missing holds 0, not NULL.
 */
function lackingRows(
  { name, start }: { name: string; start: Rollup['start'] },
  { ofReadings, ofRollup, label }: Counting,
  which: Which,
): string {
  const ofRange = `FROM readings WHERE ${OF_RANGE} AND ${NUMERIC}`
  const buckets = `(SELECT DISTINCT metric, device, ${start}(ts) ${ofRange})`
  const values = `count() AS readings, sum(number) AS value_sum, min(number) AS value_min, max(number) AS value_max`
  const { place, isLacking } = WHICH[which]
  return `SELECT mine.metric, mine.device, mine.bucket, mine.readings, mine.value_sum, mine.value_min, mine.value_max, ${label}
    FROM (
      SELECT metric, device, bucket, lacks, ${values}
      FROM (
        SELECT metric, device, ${start}(ts) AS bucket, assumeNotNull(value) AS number, ${place(start)} AS place ${ofRange}
      ) AS one
      INNER JOIN (
        SELECT metric, device, bucket, toInt64(whole.n) - toInt64(held.n) AS lacks
        FROM (
          SELECT metric, device, ${start}(ts) AS bucket, count() AS n FROM readings
          WHERE ${NUMERIC} AND ${ofReadings} AND (metric, device, ${start}(ts)) IN ${buckets} GROUP BY metric, device, bucket
        ) AS whole
        LEFT JOIN (
          SELECT metric, device, bucket, sum(${ofRollup}) AS n FROM ${name}
          WHERE (metric, device, bucket) IN ${buckets} GROUP BY metric, device, bucket
        ) AS held USING (metric, device, bucket)
        WHERE lacks > 0
      ) AS bucket_lacks USING (metric, device, bucket)
      WHERE place <= lacks GROUP BY metric, device, bucket, lacks HAVING ${isLacking}
    ) AS mine`
}
