/**
 * A batch with rows that ClickHouse refuses: halves under their own tokens, down to the single rows that are refused,
 * which become dead letters. What is already stored, by an earlier attempt at the same, is asked first and left alone.
 */
import { createHash } from 'node:crypto'
import type { Database } from '../database/database.ts'
import { hasFate, type SurgetankError } from '../errors.ts'
import type { DeadLetter } from '../pump/pump.ts'
import { rangeToken } from './batch.ts'
import type { PlannedBatch } from './insert.ts'
import { encodeRows, listRows, type RowPlace } from './rows.ts'

/** Stores all rows of the batch but those that ClickHouse refuses; returns these. Rejects with any fate but `reject`. */
export async function insertBisected(batch: PlannedBatch, database: Database, lost: AbortSignal): Promise<DeadLetter[]> {
  const missing = await missingRows(batch, database)
  const deadLetters: DeadLetter[] = []
  const open = missing.length === 0 ? [] : [missing]
  // Depth first from the left: at most log2(rows) halves wait.
  for (let rows = open.pop(); rows !== undefined; rows = open.pop()) {
    const refusal = await insertRows(batch, rows, database, lost)
    if (refusal === null) continue
    const [only] = rows
    if (rows.length === 1 && only !== undefined) {
      deadLetters.push(toDeadLetter(batch, only, refusal))
      continue
    }
    const half = rows.length >> 1
    open.push(rows.slice(half), rows.slice(0, half))
  }
  return deadLetters
}

/** Stores the rows of the batch that are not stored. */
export async function insertMissing(batch: PlannedBatch, database: Database, lost: AbortSignal): Promise<void> {
  const missing = await missingRows(batch, database)
  const refusal = missing.length === 0 ? null : await insertRows(batch, missing, database, lost)
  if (refusal !== null) throw refusal
}

async function missingRows(batch: PlannedBatch, database: Database): Promise<RowPlace[]> {
  const stored = new Set((await database.storedReadings(batch)).map(([position, index]) => `${position}/${index}`))
  return listRows(batch.chunks).filter(row => !stored.has(`${row.position}/${row.index}`))
}

/** Null when the rows are stored; the error when ClickHouse definitely refused them. */
async function insertRows(
  batch: PlannedBatch,
  rows: readonly RowPlace[],
  database: Database,
  lost: AbortSignal,
): Promise<SurgetankError | null> {
  const wanted = new Set(rows.map(row => row.ordinal))
  const block = encodeRows(batch.source, batch.chunks, ordinal => wanted.has(ordinal))
  // A token may only ever stand for the same rows, so the rows are part of its name.
  const named = createHash('sha1').update(rows.map(row => row.ordinal).join()).digest('hex')
  try {
    await database.insertReadings(block, `${rangeToken(batch.source, batch.from, batch.to)}/${named}`, lost)
    return null
  } catch (error) {
    if (hasFate(error, 'reject')) return error
    throw error
  }
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
