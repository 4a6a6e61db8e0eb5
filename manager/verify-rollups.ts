/**
 * Do the rollups count what the readings count [G7]? Source by source, while writers insert.
 *
 * An insert shows in `readings` before it shows in the rollups, so a difference counts only while no insert of its source is
 * under way. With several writers there is always one of some source, but each source is now and then complete.
 */
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import type { Database } from '../database/database.ts'
import type { PartitionPlace, PumpView } from '../pump/pump.ts'

export interface RollupVerdict {
  readonly table: 'minutely' | 'hourly'
  readonly readings: number
  readonly expected: number
  /** Sources whose readings are not as many: too few of one and too many of another must not make up for each other. */
  readonly sourcesWrong: number
}

const TRIES = 20
const TRY_EVERY_MS = 300

/** Numeric readings of each source; those from before rollups counted by source are together under the empty name. */
type Counts = Readonly<Record<string, number>>
type CountsRow = Readonly<Record<'expected' | RollupVerdict['table'], Counts>>

const OF_ROLLUP = `sumMap(mapAdd(by_source, map('', toUInt64(readings - arraySum(mapValues(by_source))))))`
const COUNTS_SQL = `
  SELECT (
      SELECT CAST((groupArray(label), groupArray(n)), 'Map(String, UInt64)') FROM (
        SELECT if((source_position, source_index) < start, '', toString(source)) AS label, count() AS n
        FROM readings
        LEFT JOIN (SELECT source, max((source_position, source_index)) AS start FROM by_source_from GROUP BY source) AS starts
        USING (source)
        WHERE kind IN ('number', 'integer', 'bool') GROUP BY label)
    ) AS expected,
    (SELECT ${OF_ROLLUP} FROM readings_1m) AS minutely,
    (SELECT ${OF_ROLLUP} FROM readings_1h) AS hourly
  FORMAT JSONEachRow`

/** The sums of all sources, each as it was when it was complete, or as it is when that never happens. */
export async function compareRollups(
  view: Pick<PumpView, 'places'>,
  database: Pick<Database, 'queryStream'>,
): Promise<RollupVerdict[]> {
  const counted = new Map<string, Record<keyof CountsRow, number>>()
  const settled = new Set<string>()
  for (let tries = 1; ; tries++) {
    const before = await view.places()
    const row = JSON.parse(await text(await database.queryStream(COUNTS_SQL, {}))) as CountsRow
    const still = stillSources(before, await view.places())
    for (const source of sourcesOf(row)) {
      if (settled.has(source)) continue
      const counts = countsOf(row, source)
      counted.set(source, counts)
      if (isEqual(counts) || still(source)) settled.add(source)
    }
    if (settled.size === counted.size || tries === TRIES) break
    await pause(TRY_EVERY_MS)
  }
  return (['minutely', 'hourly'] as const).map(table => ({
    table,
    readings: sum(counted.values(), table),
    expected: sum(counted.values(), 'expected'),
    sourcesWrong: [...counted.values()].filter(counts => counts[table] !== counts.expected).length,
  }))
}

function sourcesOf(row: CountsRow): Set<string> {
  return new Set([...Object.keys(row.expected), ...Object.keys(row.minutely), ...Object.keys(row.hourly)])
}

function countsOf(row: CountsRow, source: string): Record<keyof CountsRow, number> {
  const of = (counts: Counts) => Number(counts[source] ?? 0)
  return { expected: of(row.expected), minutely: of(row.minutely), hourly: of(row.hourly) }
}

function isEqual({ expected, minutely, hourly }: Record<keyof CountsRow, number>): boolean {
  return minutely === expected && hourly === expected
}

function sum(all: Iterable<Record<keyof CountsRow, number>>, of: keyof CountsRow): number {
  return [...all].reduce((total, counts) => total + counts[of], 0)
}

/** Of which sources no insert was under way between the two looks: also of those that the log does not know, nobody inserts any. */
function stillSources(
  before: readonly PartitionPlace[],
  after: readonly PartitionPlace[],
): (source: string) => boolean {
  const places = new Map(before.map(place => [place.source, place]))
  const moved = new Set(after.filter(place => !isStill(places.get(place.source), place)).map(({ source }) => source))
  return source => !moved.has(source)
}

function isStill(before: PartitionPlace | undefined, after: PartitionPlace): boolean {
  return before?.plan === null && after.plan === null && before.committed === after.committed
}
