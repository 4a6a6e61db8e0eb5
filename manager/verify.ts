/**
 * `surgetank verify` [G7]: do the books balance? Every reading that was accepted is in ClickHouse, or a dead letter, or
 * still in the log; no other row came from this log; and the rollups count what the readings count.
 *
 * It holds at any moment, also under load: what lies before the writers' committed position is final, so exactly that is
 * counted. Rollups are compared while nothing is half-way into them.
 */
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import type { Database } from '../database/database.ts'
import type { Chunk, PartitionBooks, PumpBooks, PumpView } from '../pump/pump.ts'

export interface PartitionVerdict {
  readonly source: string
  /** Readings that were ever accepted into this log. */
  readonly accepted: number
  /** Of them: rows in ClickHouse, dead letters, and those that the writers have not committed yet. */
  readonly stored: number
  readonly deadLetters: number
  readonly inLog: number
  /** accepted − stored − deadLetters − inLog: more than 0 is lost, less than 0 is duplicated. */
  readonly difference: number
  /** Chunks still held whose rows in ClickHouse are not exactly theirs. */
  readonly chunksChecked: number
  readonly chunksWrong: readonly { position: number; readings: number; stored: number }[]
}

export interface Verdict {
  readonly balanced: boolean
  readonly partitions: readonly PartitionVerdict[]
  readonly quarantined: number
  /** Rows of sources that this log does not know: an earlier log of the same database. */
  readonly otherSources: number
  readonly rollups: readonly { table: string; readings: number; expected: number }[]
}

const SLICE = 5_000
const READ = { chunksMax: 500, bytesMax: 16 << 20 }
const ROLLUP_TRIES = 10

/** Reads the log's books and ClickHouse; changes nothing. Rejects when either cannot be read. */
export async function verify(view: PumpView, database: Database): Promise<Verdict> {
  const books = await view.books()
  const bySource = await database.countBySource()
  const partitions: PartitionVerdict[] = []
  for (const partition of books.partitions) partitions.push(await verifyPartition(partition, view, database))
  const own = new Set(books.partitions.map(partition => partition.source))
  const otherSources = [...bySource].reduce((sum, [source, rows]) => sum + (own.has(source) ? 0 : rows), 0)
  const rollups = await compareRollups(view, database)
  const balanced =
    partitions.every(({ difference, chunksWrong }) => difference === 0 && chunksWrong.length === 0) &&
    rollups.every(({ readings, expected }) => readings === expected)
  return { balanced, partitions, quarantined: books.quarantined, otherSources, rollups }
}

async function verifyPartition(books: PartitionBooks, view: PumpView, database: Database): Promise<PartitionVerdict> {
  const { source, committed, end } = books
  const stored = await database.countReadings({ source, from: 0, to: committed })
  // The writers may have gone on since; but beyond the end, as it was, plus what was appended since, no row may be.
  const { partitions } = await view.books()
  const endNow = partitions.find(partition => partition.source === source)?.end ?? end
  const beyond = await database.countReadings({ source, from: endNow, to: Number.MAX_SAFE_INTEGER })
  const { checked, wrong } = await verifyChunks(books, view, database)
  const inLog = books.readingsAppended - books.readingsCommitted
  return {
    source,
    accepted: books.readingsAppended,
    stored: stored + beyond,
    deadLetters: books.deadLetters,
    inLog,
    difference: books.readingsAppended - stored - beyond - books.deadLetters - inLog,
    chunksChecked: checked,
    chunksWrong: wrong,
  }
}

/** Every committed chunk that the log still holds against its rows. A position with dead letters may hold fewer. */
async function verifyChunks(books: PartitionBooks, view: PumpView, database: Database) {
  const wrong: { position: number; readings: number; stored: number }[] = []
  let checked = 0
  for (let from = books.first; from < books.committed; ) {
    const to = Math.min(from + SLICE, books.committed)
    const stored = await database.countByPosition({ source: books.source, from, to })
    for await (const chunk of chunksOf(view, books.partition, from, to)) {
      checked++
      const rows = stored.get(chunk.position) ?? 0
      const short = rows < chunk.readings && books.deadLetters === 0
      if (short || rows > chunk.readings)
        wrong.push({ position: chunk.position, readings: chunk.readings, stored: rows })
    }
    from = to
  }
  return { checked, wrong }
}

async function* chunksOf(view: PumpView, partition: number, from: number, to: number): AsyncGenerator<Chunk> {
  for (let at = from; at < to; ) {
    const chunks = await view.read(partition, at, READ)
    const last = chunks.at(-1)
    if (last === undefined) return
    for (const chunk of chunks) if (chunk.position < to) yield chunk
    at = last.position + 1
  }
}

const ROLLUPS_SQL = `
  SELECT (SELECT count() FROM telemetry.readings WHERE kind IN ('number', 'integer', 'bool')) AS expected,
         (SELECT sum(readings) FROM telemetry.readings_1m) AS minutely,
         (SELECT sum(readings) FROM telemetry.readings_1h) AS hourly
  FORMAT JSONEachRow`

/** An insert shows in `readings` before it shows in the rollups, so a difference counts only while no insert is under way. */
async function compareRollups(view: PumpView, database: Database): Promise<Verdict['rollups']> {
  for (let tries = 1; ; tries++) {
    const before = await view.books()
    const row = JSON.parse(await text(await database.queryStream(ROLLUPS_SQL, {}))) as Record<string, string | number>
    const expected = Number(row.expected)
    const rollups = ['minutely', 'hourly'].map(table => ({ table, readings: Number(row[table]), expected }))
    const equal = rollups.every(({ readings }) => readings === expected)
    const still = isStill(before, await view.books())
    if (equal || still || tries === ROLLUP_TRIES) return rollups
    await pause(300)
  }
}

function isStill(before: PumpBooks, after: PumpBooks): boolean {
  const place = ({ partitions }: PumpBooks) =>
    partitions.map(({ committed, plan }) => `${committed}/${plan?.to}`).join()
  return before.partitions.every(({ plan }) => plan === null) && place(before) === place(after)
}

/** The verdict for a person. */
export function describeVerdict(verdict: Verdict): string {
  const lines = verdict.partitions.flatMap(partition => [
    `log ${partition.source}`,
    `  accepted        ${count(partition.accepted)} readings`,
    `  in ClickHouse   ${count(partition.stored)}`,
    `  dead letters    ${count(partition.deadLetters)}`,
    `  still in log    ${count(partition.inLog)}`,
    `  difference      ${count(partition.difference)}${partition.difference === 0 ? '' : partition.difference > 0 ? '  LOST' : '  DUPLICATED'}`,
    `  chunk by chunk  ${count(partition.chunksChecked)} checked, ${count(partition.chunksWrong.length)} wrong`,
    ...partition.chunksWrong
      .slice(0, 10)
      .map(wrong => `    position ${wrong.position}: ${wrong.readings} readings, ${wrong.stored} rows`),
  ])
  const rollups = verdict.rollups.map(
    ({ table, readings, expected }) => `${table.padEnd(15)} ${count(readings)} of ${count(expected)} numeric readings`,
  )
  const others =
    verdict.otherSources === 0
      ? []
      : [`other logs        ${count(verdict.otherSources)} rows of earlier logs, not checked`]
  return [
    ...lines,
    `quarantined       ${count(verdict.quarantined)} messages`,
    ...others,
    ...rollups,
    verdict.balanced ? 'The books balance.' : 'THE BOOKS DO NOT BALANCE.',
  ].join('\n')
}

function count(number: number): string {
  return number.toLocaleString('en-US').padStart(12)
}
