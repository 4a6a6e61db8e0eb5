/**
 * The log's environment, `<dir>/log`: what lies in it and under which keys. Only ingest writes it.
 *
 *   m                        LogMeta: the log's id, its ends, the running sums
 *   c position 0             header of a chunk (`chunk.ts`)
 *   c position 1             its lines
 *   q number                 a quarantined message (`lmdb-quarantine.ts`)
 *   r number                 a repetition that is listed (`lmdb-repeated.ts`)
 *
 * A chunk's key holds its partition, which is always 0 here, as u16 and its position as u64, both big-endian, so that
 * keys sort by position. One tree and no named ones: a reader then never finds an environment that is made by half.
 */
import { join } from 'node:path'
import { SurgetankError } from '../errors.ts'
import { type ChunkHeader, corrupt, unpackChunk, unpackHeader } from './chunk.ts'
import { type Db, type Env, openEnv } from './lmdb-env.ts'
import type { MessageSums } from './message-counts.ts'
import type { Chunk, ReadLimits } from './pump.ts'
import { sealJson, unseal } from './sealed.ts'

/** Numbers are since the log was made. A prefix sum and its value at `first` give what is held. */
export interface LogMeta {
  /** 1: every chunk is of format 1, and an older surgetank may still open the log. */
  readonly format: number
  /** Made at random with the log, so that a new log never repeats a token of an old one. */
  readonly logId: string
  /** Position of the oldest chunk held, and of the next one. */
  readonly first: number
  readonly end: number
  readonly readings: number
  readonly bytes: number
  readonly bytesTrimmed: number
  /** Number of the oldest quarantined message held, and of the next one; they begin at 1. */
  readonly quarantineFirst: number
  readonly quarantineEnd: number
  readonly quarantineBytes: number
  readonly bytesMax: number
  /** Null in a log of format 1. */
  readonly counted: Counted | null
}

/** What a log of format 2 knows of messages. */
export interface Counted {
  /** When counting began, ms since 1970 UTC; null: with the log. */
  readonly since: number | null
  readonly sums: MessageSums
  /** The newest of all chunks there ever were, ms since 1970 UTC; 0 when there was none. */
  readonly lastReceivedAt: number
  /** Number of the oldest repetition listed, and of the next one; they begin at 1. */
  readonly repeatedFirst: number
  readonly repeatedEnd: number
  readonly repeatedBytes: number
}

export const FORMAT = 2
/** Address space of one that only reads; lmdb maps more when the file has outgrown it. */
const READER_MAP_BYTES = 64 * 1024 ** 3
/** One read copies on the event loop: a turn ends here, whatever was asked for. */
const CHUNKS_OF_A_READ = 1_000
const META_KEY = Buffer.from('m')

export function logPath(dir: string): string {
  return join(dir, 'log')
}

export function openLogForReading(dir: string): Env {
  return openEnv({ path: logPath(dir), writable: false, mapBytes: READER_MAP_BYTES })
}

export function sourceOf({ logId }: LogMeta): string {
  return `${logId}/0`
}

/** Null when the log is not made yet. Throws `log_newer` when this version cannot read it. */
export function readLogMeta(db: Db): LogMeta | null {
  const sealed = db.getBinary(META_KEY)
  if (sealed === undefined) return null
  const meta = JSON.parse(unseal(sealed, "The log's own record").toString()) as LogMeta
  checkFormat(meta.format, FORMAT)
  // What an older surgetank left of sums that it did not carry on says nothing.
  return { ...meta, counted: meta.format === 1 ? null : meta.counted }
}

export function checkFormat(format: number, known: number): void {
  if (format <= known) return
  throw new SurgetankError(
    'log_newer',
    `Its format is ${format}, and this version knows up to ${known}. Start the newer surgetank.`,
  )
}

export function putLogMeta(db: Db, meta: LogMeta): void {
  db.putSync(META_KEY, sealJson(meta))
}

export function chunkKey(position: number, part: 'header' | 'lines'): Buffer {
  const key = Buffer.allocUnsafe(12)
  key.write('c', 0)
  key.writeUInt16BE(0, 1)
  writePosition(key, position, 3)
  key.writeUInt8(part === 'header' ? 0 : 1, 11)
  return key
}

export function writePosition(key: Buffer, position: number, at: number): void {
  key.writeUInt32BE(Math.floor(position / 2 ** 32), at)
  key.writeUInt32BE(position % 2 ** 32, at + 4)
}

/** Null when the log holds no chunk there. Throws `log_corrupt`. */
export function readHeader(db: Db, position: number): ChunkHeader | null {
  const key = chunkKey(position, 'header')
  const bytes = db.getBinary(key)
  return bytes === undefined ? null : unpackHeader(key, bytes, position)
}

/** The chunk at `position`, which the log must hold. Throws `log_corrupt`. */
export function readChunk(db: Db, position: number): Chunk {
  const header = readHeader(db, position)
  const lines = db.getBinary(chunkKey(position, 'lines'))
  if (header === null || lines === undefined) throw corrupt(position)
  return unpackChunk(chunkKey(position, 'header'), header, lines, position)
}

/** Chunks from `from` on, at least one when there is any. Throws `log_corrupt`. */
export function readChunks(db: Db, from: number, limits: ReadLimits): Chunk[] {
  const meta = readLogMeta(db)
  if (meta === null) return []
  const chunks: Chunk[] = []
  const chunksMax = Math.min(limits.chunksMax, CHUNKS_OF_A_READ)
  let bytes = 0
  for (let at = Math.max(from, meta.first); at < meta.end && chunks.length < chunksMax; at++) {
    const chunk = readChunk(db, at)
    bytes += chunk.lines.length
    if (chunks.length > 0 && bytes > limits.bytesMax) break
    chunks.push(chunk)
  }
  return chunks
}

/**
 * Chunks from `from` on. What looks damaged is read once more: a reader that opened the log at a bad moment may have seen
 * a page that was being written.
 */
export async function readChunksOf(log: Env, from: number, limits: ReadLimits): Promise<Chunk[]> {
  try {
    return (await log.read(db => readChunks(db, from, limits))) ?? []
  } catch (error) {
    if (!(error instanceof SurgetankError) || error.code !== 'log_corrupt') throw error
    await new Promise(resolve => setTimeout(resolve, 50))
    return (await log.read(db => readChunks(db, from, limits))) ?? []
  }
}

/** The writers are further than the log: new readings would get positions that ClickHouse already has others of. */
export function behindPositions(end: number, reached: number): SurgetankError {
  const detail = `It ends at ${end}, and ClickHouse holds it up to ${reached}: it was restored from an older copy, or its disk lost what it had confirmed. Move the log's directory away to begin a new one.`
  return new SurgetankError('log_cut', detail)
}
