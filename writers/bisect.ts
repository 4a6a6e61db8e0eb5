/**
 * A batch with rows that ClickHouse refuses: halves under their own tokens, down to the single rows that are refused, which
 * become dead letters. The halves are the same each time, so that after a kill in the middle every half is settled under
 * the token it had. What is refused is taken to be a matter of the rows: while a batch is taken apart, nobody changes the table.
 *
 * A rollup tells how many readings it counts, and not which. So what it lacks is a matter of one piece only: the last one that
 * is stored, whose insert may have been cut short; it is filled before anything else. To ask for an earlier piece
 * would fill that one a second time, in the place of the one that is lacking.
 */
import { createHash } from 'node:crypto'
import type { SourceRange } from '../database/database.ts'
import { hasFate, SurgetankError } from '../errors.ts'
import type { DeadLetter } from '../pump/pump.ts'
import { rangeToken } from './batch.ts'
import { claimLost } from './fence.ts'
import type { PlannedBatch } from './insert.ts'
import { encodeRows, listRows, type RowPlace } from './rows.ts'
import { insertFenced, type Piece, type StoreOptions, settle, standStill } from './settle.ts'

/** When more rows in a row are refused and none is taken, it is not the rows. */
const REFUSALS_MAX = 100

/**
 * Stores all rows of the batch but those that ClickHouse refuses; returns these. `unsure` when an earlier attempt may have
 * stored some. Rejects with any fate but `reject`.
 */
export async function insertBisected(
  batch: PlannedBatch,
  unsure: boolean,
  options: StoreOptions,
): Promise<DeadLetter[]> {
  const rows = listRows(batch.chunks)
  if (unsure) await standStill(batch.source, options)
  const storedBefore = unsure ? await countStoredBefore(batch, rows, options) : new Uint32Array(rows.length + 1)
  await repairInterrupted(batch, rows, storedBefore, options)
  const deadLetters: DeadLetter[] = []
  const open: Span[] = [[0, rows.length]]
  // Depth first from the left: at most log2(rows) halves wait.
  for (let span = open.pop(); span !== undefined; span = open.pop()) {
    if (options.lost.aborted) throw claimLost(batch, batch.from)
    const [from, to] = span
    const stored = storedIn(storedBefore, span)
    if (stored === to - from) continue
    const refusal = stored > 0 ? 'partial' : await store(cut(batch, rows, span), unsure, options)
    if (refusal === null) {
      options.refusals.inARow = 0
      continue
    }
    const only = rows[from]
    if (refusal !== 'partial' && to - from === 1 && only !== undefined) {
      if (++options.refusals.inARow > REFUSALS_MAX) throw refusesAll(refusal)
      deadLetters.push(toDeadLetter(batch, only, refusal))
      continue
    }
    const half = (from + to) >> 1
    open.push([half, to], [from, half])
  }
  return deadLetters
}

/** Rows by their ordinals: from the first up to, not including, the second. */
type Span = readonly [from: number, to: number]

/** For each n, how many of the first n rows are stored: one question for the whole batch. */
async function countStoredBefore(
  batch: PlannedBatch,
  rows: readonly RowPlace[],
  { database }: StoreOptions,
): Promise<Uint32Array> {
  const stored = new Set((await database.storedReadings(batch)).map(([position, index]) => `${position}/${index}`))
  const before = new Uint32Array(rows.length + 1)
  for (const { ordinal, position, index } of rows) {
    before[ordinal + 1] = (before[ordinal] ?? 0) + (stored.has(`${position}/${index}`) ? 1 : 0)
  }
  return before
}

function storedIn(storedBefore: Uint32Array, [from, to]: Span): number {
  return (storedBefore[to] ?? 0) - (storedBefore[from] ?? 0)
}

/** Fills what the rollups lack of the last piece that is stored: the only one whose insert may have been cut short. */
async function repairInterrupted(
  batch: PlannedBatch,
  rows: readonly RowPlace[],
  storedBefore: Uint32Array,
  { database, log, fence }: StoreOptions,
): Promise<void> {
  const last = storedBefore.indexOf(storedBefore.at(-1) ?? 0) - 1
  if (last < 0) return
  let [from, to] = [0, rows.length]
  while (storedIn(storedBefore, [from, to]) < to - from) {
    const half = (from + to) >> 1
    if (last < half) to = half
    else from = half
  }
  const range = rangeOf(batch, rows, [from, to])
  const lacking = await database.repairDerived(range, fence.confirm)
  if (lacking > 0) log.warn({ ...range, lacking }, 'rollups lacked these rows; they are filled')
}

/** Null when the rows are stored; otherwise why they must be taken apart. */
async function store(piece: Piece, unsure: boolean, options: StoreOptions): Promise<SurgetankError | 'partial' | null> {
  try {
    if (unsure) return (await settle(piece, options)) === 'partial' ? 'partial' : null
    await insertFenced(piece, options)
    return null
  } catch (error) {
    if (hasFate(error, 'reject')) return error
    throw error
  }
}

function refusesAll(refusal: SurgetankError): SurgetankError {
  return new SurgetankError('database_misconfigured', `It refuses every row: ${refusal.detail}`, refusal)
}

/** Only the chunks that the span touches are read: their ordinals count from the first row of the first of them. */
function cut(batch: PlannedBatch, rows: readonly RowPlace[], [from, to]: Span): Piece {
  const [first, last] = [rows[from]?.position ?? 0, rows[to - 1]?.position ?? 0]
  const chunks = batch.chunks.filter(({ position }) => position >= first && position <= last)
  const before = from - (rows[from]?.index ?? 0)
  const range = rangeOf(batch, rows, [from, to])
  return {
    range,
    block: encodeRows(batch.source, chunks, ordinal => ordinal + before >= from && ordinal + before < to),
    token: pieceToken(batch, range),
    cut: false,
  }
}

/** By places in the log, not in the batch: also where the log was cut since, a token stands for exactly these rows. */
function pieceToken({ source, from, to }: PlannedBatch, piece: SourceRange): string {
  return `${rangeToken(source, from, to)}/${piece.from}.${piece.fromIndex ?? 0}-${piece.to}.${piece.toIndex ?? 0}`
}

/** Of a span that is not empty. */
function rangeOf(batch: PlannedBatch, rows: readonly RowPlace[], [from, to]: Span): SourceRange {
  const [first, next] = [rows[from], rows[to]]
  const start = first === undefined ? { from: batch.from } : { from: first.position, fromIndex: first.index }
  const end = next === undefined ? { to: batch.to } : { to: next.position, toIndex: next.index }
  return { source: batch.source, ...start, ...end }
}

/**
 * Stores the rows of a whole batch that are not stored, after something that no insert of ours does: only some are. Their
 * token names exactly these rows.
 */
export async function insertMissing(batch: PlannedBatch, options: StoreOptions): Promise<void> {
  const stored = new Set(
    (await options.database.storedReadings(batch)).map(([position, index]) => `${position}/${index}`),
  )
  const missing = new Set(
    listRows(batch.chunks)
      .filter(row => !stored.has(`${row.position}/${row.index}`))
      .map(row => row.ordinal),
  )
  if (missing.size === 0) return
  const block = encodeRows(batch.source, batch.chunks, ordinal => missing.has(ordinal))
  const named = createHash('sha1')
    .update([...missing].join())
    .digest('hex')
  await insertFenced({ block, token: `${rangeToken(batch.source, batch.from, batch.to)}/missing-${named}` }, options)
}

function toDeadLetter(batch: PlannedBatch, row: RowPlace, refusal: SurgetankError): DeadLetter {
  return {
    source: batch.source,
    position: row.position,
    index: row.index,
    device: row.device,
    receivedAt: row.receivedAt,
    reason: refusal.code,
    detail: refusal.detail,
    line: row.line,
  }
}
