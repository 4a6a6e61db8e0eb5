/**
 * `surgetank verify` [G7]: do the books balance? Every message that was received was accepted, repeated, quarantined or let go
 * (`verify-messages.ts`). Every reading that was accepted is in ClickHouse, or a dead letter, or still in the log, once; no
 * other row came from this log; and the rollups count what the readings count.
 *
 * It holds at any moment, also under load: what lies before the writers' committed position is final, so exactly that is
 * counted. Rollups are compared source by source (`verify-rollups.ts`).
 */
import { text } from 'node:stream/consumers'
import type { Database, SourceRange } from '../database/database.ts'
import type { Chunk, PartitionBooks, PumpView } from '../pump/pump.ts'
import {
  areBalanced,
  type ChunkFault,
  count,
  describeFault,
  describeMessages,
  findFault,
  judgeMessages,
  type MessageVerdict,
} from './verify-messages.ts'
import { compareRollups, type RollupVerdict } from './verify-rollups.ts'

export interface PartitionVerdict {
  readonly source: string
  /** Readings that were ever accepted into this log. */
  readonly accepted: number
  /** Of them: rows in ClickHouse, dead letters, and those that the writers have not committed yet. */
  readonly stored: number
  readonly deadLetters: number
  readonly inLog: number
  /** Removed by intent: nothing can be deleted yet. */
  readonly removed: number
  /** accepted − stored − deadLetters − inLog − removed: more than 0 is lost, less than 0 is duplicated. */
  readonly difference: number
  /** Rows beyond the first of the same place in the log: a lost reading and a doubled one must not make up for each other. */
  readonly repeated: number
  /** Chunks still held whose rows in ClickHouse are not exactly theirs. */
  readonly chunksChecked: number
  readonly chunksWrong: readonly { position: number; readings: number; stored: number }[]
  /** All chunks still held, and those whose lines are not what they count; of these the first FAULTS_MAX. */
  readonly linesChecked: number
  readonly linesWrong: readonly ChunkFault[]
}

type ChunksVerdict = Pick<PartitionVerdict, 'chunksChecked' | 'chunksWrong' | 'linesChecked' | 'linesWrong'>

export interface Verdict {
  readonly balanced: boolean
  readonly messages: MessageVerdict
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
const FAULTS_MAX = 1_000
/** Of a list, for a person. */
const SHOWN_MAX = 10

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
  const messages = judgeMessages(books)
  const areRollupsRight = rollups.every(({ sourcesWrong }) => sourcesWrong === 0)
  const balanced = areBalanced(messages) && partitions.every(isBalanced) && areRollupsRight
  return { balanced, messages, partitions, quarantined: books.quarantined, otherSources, rollups }
}

function isBalanced({ difference, repeated, chunksWrong, linesWrong }: PartitionVerdict): boolean {
  return difference === 0 && repeated === 0 && chunksWrong.length === 0 && linesWrong.length === 0
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
  const chunks = await verifyChunks(books, view, database)
  const inLog = accepted - books.readingsCommitted
  const removed = 0
  return {
    source,
    accepted,
    stored: stored + beyond,
    deadLetters,
    inLog,
    removed,
    difference: accepted - stored - beyond - deadLetters - inLog - removed,
    repeated,
    ...chunks,
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
 * Every chunk that the log still holds: its lines against what it counts, also while it is not committed, so that a message
 * which was dropped behind its PUBACK shows; and once it is, its rows against its readings. One with dead letters has fewer
 * rows: all of them together may be short of as many as there are dead letters.
 */
async function verifyChunks(books: PartitionBooks, view: PumpView, database: VerifiedDatabase): Promise<ChunksVerdict> {
  const { source, partition, committed, end } = books
  const different: PartitionVerdict['chunksWrong'][number][] = []
  const linesWrong: ChunkFault[] = []
  let [chunksChecked, linesChecked, short] = [0, 0, 0]
  for (let from = books.first; from < end; ) {
    const to = Math.min(from + SLICE, end)
    const stored = await storedIn(database, { source, from, to: Math.min(to, committed) })
    for await (const chunk of chunksOf(view, partition, from, to)) {
      const { position, readings } = chunk
      const fault = findFault(chunk)
      linesChecked++
      if (fault !== null && linesWrong.length < FAULTS_MAX) linesWrong.push(fault)
      if (position >= committed) continue
      chunksChecked++
      const rows = stored.get(position) ?? 0
      if (rows !== readings) different.push({ position, readings, stored: rows })
      short += Math.max(0, readings - rows)
    }
    from = to
  }
  const chunksWrong = different.filter(({ readings, stored }) => stored > readings || short > books.deadLetters)
  return { chunksChecked, chunksWrong, linesChecked, linesWrong }
}

async function storedIn(database: VerifiedDatabase, range: SourceRange): Promise<Map<number, number>> {
  return range.from < range.to ? database.countByPosition(range) : new Map()
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
  const rollups = verdict.rollups.map(
    ({ table, readings, expected, sourcesWrong }) =>
      `${table.padEnd(15)} ${count(readings)} of ${count(expected)} numeric readings${sourcesWrong === 0 ? '' : `  WRONG for ${sourcesWrong} of the sources`}`,
  )
  const others =
    verdict.otherSources === 0
      ? []
      : [`other logs        ${count(verdict.otherSources)} rows of earlier logs, not checked`]
  return [
    ...describeMessages(verdict.messages),
    ...verdict.partitions.flatMap(describePartition),
    `quarantined       ${count(verdict.quarantined)} messages`,
    ...others,
    ...rollups,
    verdict.balanced ? 'The books balance.' : 'THE BOOKS DO NOT BALANCE.',
  ].join('\n')
}

function describePartition(partition: PartitionVerdict): string[] {
  const { difference, chunksWrong, linesWrong } = partition
  return [
    `log ${partition.source}`,
    `  accepted        ${count(partition.accepted)} readings`,
    `  in ClickHouse   ${count(partition.stored)}`,
    `  dead letters    ${count(partition.deadLetters)}`,
    `  still in log    ${count(partition.inLog)}`,
    `  removed         ${count(partition.removed)}`,
    `  difference      ${count(difference)}${difference === 0 ? '' : difference > 0 ? '  LOST' : '  DUPLICATED'}`,
    `  doubled         ${count(partition.repeated)}${partition.repeated === 0 ? '' : '  DUPLICATED'}`,
    `  chunk by chunk  ${count(partition.chunksChecked)} checked, ${count(chunksWrong.length)} wrong`,
    ...chunksWrong
      .slice(0, SHOWN_MAX)
      .map(wrong => `    position ${wrong.position}: ${wrong.readings} readings, ${wrong.stored} rows`),
    `  line by line    ${count(partition.linesChecked)} checked, ${count(linesWrong.length)} wrong`,
    ...linesWrong.slice(0, SHOWN_MAX).map(fault => `    ${describeFault(fault)}`),
  ]
}
