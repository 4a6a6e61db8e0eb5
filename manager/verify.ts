/**
 * `surgetank verify` [G7]: do the books balance? Every reading that was accepted is in ClickHouse, or a dead letter, or
 * still in the log, once; no other row came from this log; and the rollups count what the readings count.
 *
 * It holds at any moment, also under load: what lies before the writers' committed position is final, so exactly that is
 * counted. Rollups are compared source by source (`verify-rollups.ts`).
 */
import { text } from 'node:stream/consumers'
import type { Database } from '../database/database.ts'
import type { Chunk, PartitionBooks, PumpView } from '../pump/pump.ts'
import { compareRollups, type RollupVerdict } from './verify-rollups.ts'

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
  /** Rows beyond the first of the same place in the log: a lost reading and a doubled one must not make up for each other. */
  readonly repeated: number
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
  readonly rollups: readonly RollupVerdict[]
}

const SLICE = 5_000
/** Of one query that holds the place of each row in memory: about 100 MB. */
const DISTINCT_ROWS = 2_000_000
const READ = { chunksMax: 500, bytesMax: 16 << 20 }

/** What `verify` asks of ClickHouse. */
export type VerifiedDatabase = Pick<
  Database,
  'countBySource' | 'countReadings' | 'countByPosition' | 'queryStream' | 'internal'
>

/** Reads the log's books and ClickHouse; changes nothing. Rejects when either cannot be read. */
export async function verify(view: PumpView, database: VerifiedDatabase): Promise<Verdict> {
  const books = await view.books()
  const bySource = await database.countBySource()
  const partitions: PartitionVerdict[] = []
  for (const partition of books.partitions) partitions.push(await verifyPartition(partition, view, database))
  const own = new Set(books.partitions.map(partition => partition.source))
  const otherSources = [...bySource].reduce((sum, [source, rows]) => sum + (own.has(source) ? 0 : rows), 0)
  const rollups = await compareRollups(view, database)
  const balanced = partitions.every(isBalanced) && rollups.every(({ sourcesWrong }) => sourcesWrong === 0)
  return { balanced, partitions, quarantined: books.quarantined, otherSources, rollups }
}

function isBalanced({ difference, repeated, chunksWrong }: PartitionVerdict): boolean {
  return difference === 0 && repeated === 0 && chunksWrong.length === 0
}

async function verifyPartition(
  books: PartitionBooks,
  view: PumpView,
  database: VerifiedDatabase,
): Promise<PartitionVerdict> {
  const { source, end, deadLetters, readingsAppended: accepted } = books
  const { stored, repeated } = await countCommitted(books, database)
  // The writers may have gone on since; but beyond the end, as it was, plus what was appended since, no row may be.
  const { partitions } = await view.books()
  const endNow = partitions.find(partition => partition.source === source)?.end ?? end
  const beyond = await database.countReadings({ source, from: endNow, to: Number.MAX_SAFE_INTEGER })
  const { checked, wrong } = await verifyChunks(books, view, database)
  const inLog = accepted - books.readingsCommitted
  return {
    source,
    accepted,
    stored: stored + beyond,
    deadLetters,
    inLog,
    difference: accepted - stored - beyond - deadLetters - inLog,
    repeated,
    chunksChecked: checked,
    chunksWrong: wrong,
  }
}

const DISTINCT_SQL = `
  SELECT count() AS stored, uniqExact(source_position, source_index) AS places FROM readings
  WHERE source = {source:String} AND source_position >= {from:UInt64} AND source_position < {to:UInt64}
  FORMAT JSONEachRow`

/** Every row before the committed position, in ranges that a query can hold in memory. */
async function countCommitted(
  { source, committed, readingsCommitted }: PartitionBooks,
  database: VerifiedDatabase,
): Promise<{ stored: number; repeated: number }> {
  const step = Math.max(1, Math.floor((committed * DISTINCT_ROWS) / Math.max(1, readingsCommitted)))
  let stored = 0
  let repeated = 0
  for (let from = 0; from < committed; from += step) {
    const range = { source, from, to: Math.min(from + step, committed) }
    const counts = await queryRow(database, DISTINCT_SQL, range)
    stored += Number(counts.stored)
    repeated += Number(counts.stored) - Number(counts.places)
  }
  return { stored, repeated }
}

/**
 * Every committed chunk that the log still holds against its rows. One with dead letters holds fewer: all of them together
 * may be short of as many as there are dead letters.
 */
async function verifyChunks(books: PartitionBooks, view: PumpView, database: VerifiedDatabase) {
  const different: PartitionVerdict['chunksWrong'][number][] = []
  let checked = 0
  let short = 0
  for (let from = books.first; from < books.committed; ) {
    const to = Math.min(from + SLICE, books.committed)
    const stored = await database.countByPosition({ source: books.source, from, to })
    for await (const { position, readings } of chunksOf(view, books.partition, from, to)) {
      checked++
      const rows = stored.get(position) ?? 0
      if (rows !== readings) different.push({ position, readings, stored: rows })
      short += Math.max(0, readings - rows)
    }
    from = to
  }
  return { checked, wrong: different.filter(({ readings, stored }) => stored > readings || short > books.deadLetters) }
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

async function queryRow(
  database: VerifiedDatabase,
  sql: string,
  params: Readonly<Record<string, unknown>>,
): Promise<Record<string, string | number>> {
  return JSON.parse(await text(await database.queryStream(sql, params))) as Record<string, string | number>
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
    `  repeated        ${count(partition.repeated)}${partition.repeated === 0 ? '' : '  DUPLICATED'}`,
    `  chunk by chunk  ${count(partition.chunksChecked)} checked, ${count(partition.chunksWrong.length)} wrong`,
    ...partition.chunksWrong
      .slice(0, 10)
      .map(wrong => `    position ${wrong.position}: ${wrong.readings} readings, ${wrong.stored} rows`),
  ])
  const rollups = verdict.rollups.map(
    ({ table, readings, expected, sourcesWrong }) =>
      `${table.padEnd(15)} ${count(readings)} of ${count(expected)} numeric readings${sourcesWrong === 0 ? '' : `  WRONG for ${sourcesWrong} of the sources`}`,
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
