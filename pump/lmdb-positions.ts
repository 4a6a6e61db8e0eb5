/**
 * The positions' environment, `<dir>/positions`: how far each log is in ClickHouse, and the dead letters. Only a writer
 * writes it. It is not the log's own environment on purpose: a writer that is slow, or stopped in the middle of a commit,
 * holds this lock and never the one that a PUBACK waits for [G1].
 *
 *   m                 PositionsMeta: the newest claim's epoch, the dead letters held
 *   p source          SourceRecord
 *   d number          a dead letter
 *   x identity        its number: the same reading is one dead letter, however often it is committed
 */
import { join } from 'node:path'
import { type Db, type Env, openEnv } from './lmdb-env.ts'
import { checkFormat, writePosition } from './lmdb-log.ts'
import type { DeadLetter, Plan, QuarantineEntry } from './pump.ts'
import { sealJson, unseal } from './sealed.ts'

export interface PositionsMeta {
  readonly format: number
  /** Grows with each claim; a commit of an older claim is refused. */
  readonly epoch: number
  /** Number of the oldest dead letter held, and of the next one; they begin at 1. */
  readonly lettersFirst: number
  readonly lettersEnd: number
  readonly lettersBytes: number
}

export interface SourceRecord {
  readonly position: number
  readonly plan: Plan | null
  /** Readings before `position`. */
  readonly readings: number
  /** Readings that ever became dead letters. */
  readonly deadLetters: number
}

export interface LetterBounds {
  readonly countMax: number
  readonly bytesMax: number
}

/** Dead letters are evidence and not the store: the oldest make room, and are counted. */
export const LETTER_BOUNDS: LetterBounds = { countMax: 100_000, bytesMax: 64 * 1024 * 1024 }

const MAP_BYTES = 1024 ** 3
const META_KEY = Buffer.from('m')
/** Its own: positions have not changed when the log's chunks did. */
const FORMAT = 1
const NEW_META: PositionsMeta = { format: FORMAT, epoch: 0, lettersFirst: 1, lettersEnd: 1, lettersBytes: 0 }
const NEW_RECORD: SourceRecord = { position: 0, plan: null, readings: 0, deadLetters: 0 }

export function openPositions(dir: string, writable: boolean): Env {
  return openEnv({ path: join(dir, 'positions'), writable, mapBytes: MAP_BYTES })
}

/** Throws `log_newer` when this version cannot read them. */
export function readPositionsMeta(db: Db): PositionsMeta {
  const sealed = db.getBinary(META_KEY)
  if (sealed === undefined) return NEW_META
  const meta = JSON.parse(unseal(sealed, "The positions' own record").toString()) as PositionsMeta
  checkFormat(meta.format, FORMAT)
  return meta
}

export function putPositionsMeta(db: Db, meta: PositionsMeta): void {
  db.putSync(META_KEY, sealJson(meta))
}

/** Where the writers stand in `source`; at its beginning when they never wrote of it. */
export function readSource(db: Db, source: string): SourceRecord {
  const sealed = db.getBinary(sourceKey(source))
  if (sealed === undefined) return NEW_RECORD
  return JSON.parse(unseal(sealed, `The position in ${source}`).toString()) as SourceRecord
}

export function putSource(db: Db, source: string, record: SourceRecord): void {
  db.putSync(sourceKey(source), sealJson(record))
}

/** As `readSource`, from an environment that may not be made yet. */
export async function readSourceOf(positions: Env, source: string): Promise<SourceRecord> {
  return (await positions.read(db => readSource(db, source))) ?? NEW_RECORD
}

/** Keeps those that are not kept yet, within the bounds. Returns what to put as meta, and how many were new. */
export function putLetters(
  db: Db,
  before: PositionsMeta,
  letters: readonly DeadLetter[],
  bounds: LetterBounds,
): { meta: PositionsMeta; added: number } {
  let { lettersFirst, lettersEnd, lettersBytes } = before
  let added = 0
  for (const letter of letters) {
    const identity = identityKey(letter)
    if (db.getBinary(identity) !== undefined) continue
    const sealed = sealJson(letter)
    const key = letterKey(lettersEnd)
    db.putSync(key, sealed)
    db.putSync(identity, key)
    lettersEnd++
    lettersBytes += sealed.length
    added++
    while (
      lettersFirst < lettersEnd - 1 &&
      (lettersEnd - lettersFirst > bounds.countMax || lettersBytes > bounds.bytesMax)
    ) {
      lettersBytes -= removeLetter(db, lettersFirst++)
    }
  }
  return { meta: { ...before, lettersFirst, lettersEnd, lettersBytes }, added }
}

function removeLetter(db: Db, number: number): number {
  const sealed = db.getBinary(letterKey(number))
  if (sealed === undefined) return 0
  db.removeSync(identityKey(JSON.parse(unseal(sealed, `The dead letter r${number}`).toString()) as DeadLetter))
  db.removeSync(letterKey(number))
  return sealed.length
}

/** Null when it is not held any more. Throws `log_corrupt`. */
export function readLetter(db: Db, number: number): QuarantineEntry | null {
  const sealed = db.getBinary(letterKey(number))
  if (sealed === undefined) return null
  const letter = JSON.parse(unseal(sealed, `The dead letter r${number}`).toString()) as DeadLetter
  const { device, receivedAt, reason, detail } = letter
  const where = `${letter.source} position ${letter.position} reading ${letter.index}`
  const bytes = Buffer.from(letter.line)
  return { id: `r${number}`, receivedAt, device, where, reason, detail, bytes, bytesTotal: bytes.length }
}

function sourceKey(source: string): Buffer {
  return Buffer.from(`p${source}`)
}

function letterKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key.write('d', 0)
  writePosition(key, number, 1)
  return key
}

function identityKey({ source, position, index }: DeadLetter): Buffer {
  return Buffer.from(`x${source} ${position} ${index}`)
}
