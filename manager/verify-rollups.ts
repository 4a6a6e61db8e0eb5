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
type Counts = ReadonlyMap<string, number>
type CountsRow = Readonly<Record<'expected' | RollupVerdict['table'], Counts>>

const NUMERIC = "kind IN ('number', 'integer', 'bool')"
const asMap = (rows: string) =>
  `(SELECT CAST((groupArray(source), groupArray(n)), 'Map(String, UInt64)') FROM (${rows}))`
const startsOf = (internal: string) =>
  `(SELECT source, max((source_position, source_index)) AS start FROM ${internal}.by_source_from GROUP BY source) AS starts`
/** The join is empty, and reads nothing, where all rollups count by source. */
const countsSql = (internal: string) => `
  SELECT
    ${asMap(`SELECT toString(source) AS source, count() AS n FROM readings WHERE ${NUMERIC} GROUP BY source`)} AS readings,
    ${asMap(`SELECT toString(source) AS source, count() AS n FROM readings INNER JOIN ${startsOf(internal)} USING (source)
      WHERE ${NUMERIC} AND (source_position, source_index) < start GROUP BY source`)} AS before,
    (SELECT (sumMap(by_source), sum(readings)) FROM ${internal}.readings_1m) AS minutely,
    (SELECT (sumMap(by_source), sum(readings)) FROM ${internal}.readings_1h) AS hourly
  FORMAT JSONEachRow`

type OfRollup = readonly [bySource: Record<string, number>, readings: number]
interface Answer {
  readonly readings: Record<string, number>
  readonly before: Record<string, number>
  readonly minutely: OfRollup
  readonly hourly: OfRollup
}

function parseCounts(answer: Answer): CountsRow {
  const expected = new Map(Object.entries(answer.readings))
  for (const [source, n] of Object.entries(answer.before)) expected.set(source, (expected.get(source) ?? 0) - n)
  expected.set('', total(answer.before))
  const ofRollup = ([bySource, readings]: OfRollup) =>
    new Map([...Object.entries(bySource), ['', readings - total(bySource)] as const])
  return { expected, minutely: ofRollup(answer.minutely), hourly: ofRollup(answer.hourly) }
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, n) => sum + n, 0)
}

/** The sums of all sources, each as it was when it was complete, or as it is when that never happens. */
export async function compareRollups(
  view: Pick<PumpView, 'places'>,
  database: Pick<Database, 'queryStream' | 'internal'>,
): Promise<RollupVerdict[]> {
  const counted = new Map<string, Record<keyof CountsRow, number>>()
  const settled = new Set<string>()
  const internal = `\`${await database.internal()}\``
  for (let tries = 1; ; tries++) {
    const before = await view.places()
    const row = parseCounts(JSON.parse(await text(await database.queryStream(countsSql(internal), {}))) as Answer)
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
  return new Set([...row.expected.keys(), ...row.minutely.keys(), ...row.hourly.keys()])
}

function countsOf(row: CountsRow, source: string): Record<keyof CountsRow, number> {
  const of = (counts: Counts) => counts.get(source) ?? 0
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
