/**
 * A batch with rows that ClickHouse refuses: halves under their own tokens, down to the single rows that are refused, which
 * become dead letters. The halves are the same each time, so that after a kill in the middle every half is settled under
 * the token it had. What is refused is taken to be a matter of the rows: while a batch is taken apart, nobody changes the table.
 */
import { hasFate, type SurgetankError } from '../errors.ts'
import type { DeadLetter } from '../pump/pump.ts'
import { rangeToken } from './batch.ts'
import type { PlannedBatch } from './insert.ts'
import { encodeRows, listRows, type RowPlace } from './rows.ts'
import { type Piece, type StoreOptions, settle } from './settle.ts'

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
  const deadLetters: DeadLetter[] = []
  const open: [from: number, to: number][] = [[0, rows.length]]
  // Depth first from the left: at most log2(rows) halves wait.
  for (let span = open.pop(); span !== undefined; span = open.pop()) {
    const [from, to] = span
    const piece = cut(batch, rows, from, to)
    const refusal = piece === null ? null : await store(piece, unsure, options)
    if (refusal === null) continue
    const only = rows[from]
    if (refusal !== 'partial' && to - from === 1 && only !== undefined) {
      deadLetters.push(toDeadLetter(batch, only, refusal))
      continue
    }
    const half = (from + to) >> 1
    open.push([half, to], [from, half])
  }
  return deadLetters
}

/** Null when the rows are stored; otherwise why they must be taken apart. */
async function store(piece: Piece, unsure: boolean, options: StoreOptions): Promise<SurgetankError | 'partial' | null> {
  try {
    if (unsure) return (await settle(piece, options)) === 'partial' ? 'partial' : null
    await options.database.insertReadings(piece.block, piece.token, options.lost)
    return null
  } catch (error) {
    if (hasFate(error, 'reject')) return error
    throw error
  }
}

function cut(batch: PlannedBatch, rows: readonly RowPlace[], from: number, to: number): Piece | null {
  const [first, next] = [rows[from], rows[to]]
  if (first === undefined || from === to) return null
  const end = next === undefined ? { to: batch.to } : { to: next.position, toIndex: next.index }
  return {
    range: { source: batch.source, from: first.position, fromIndex: first.index, ...end },
    block: encodeRows(batch.source, batch.chunks, ordinal => ordinal >= from && ordinal < to),
    token: `${rangeToken(batch.source, batch.from, batch.to)}/${from}-${to}`,
  }
}

/**
 * Stores the rows of a whole batch that are not stored, after something that no insert of ours does: only some are. Their
 * token is new each time, so it is asked which are missing right before.
 */
export async function insertMissing(batch: PlannedBatch, { database, lost }: StoreOptions): Promise<void> {
  const stored = new Set((await database.storedReadings(batch)).map(([position, index]) => `${position}/${index}`))
  const missing = new Set(
    listRows(batch.chunks)
      .filter(row => !stored.has(`${row.position}/${row.index}`))
      .map(row => row.ordinal),
  )
  if (missing.size === 0) return
  const block = encodeRows(batch.source, batch.chunks, ordinal => missing.has(ordinal))
  await database.insertReadings(block, `${rangeToken(batch.source, batch.from, batch.to)}/missing-${Date.now()}`, lost)
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
