/**
 * The inlet of the log on this disk: what ingest appends to. One process has it at a time.
 *
 * An append is one transaction: the chunk, the refused messages, what was counted, and the removal of what may go. It is durable before it
 * resolves and not there at all when it rejects [G1]. What is not yet committed by the writers is never removed [G5].
 */
import { randomBytes } from 'node:crypto'
import { SurgetankError } from '../errors.ts'
import { type ChunkHeader, checkBatch, footprint, headerBytes, packHeader } from './chunk.ts'
import { openDisk } from './disk.ts'
import { beginCounting, countBatch, newestHeld } from './lmdb-counted.ts'
import { type Db, type Env, openEnv } from './lmdb-env.ts'
import {
  behindPositions,
  chunkKey,
  FORMAT,
  type LogMeta,
  logPath,
  putLogMeta,
  readChunk,
  readHeader,
  readLogMeta,
  sourceOf,
} from './lmdb-log.ts'
import { openPositions, readSourceOf } from './lmdb-positions.ts'
import { putRefused } from './lmdb-quarantine.ts'
import { repeatedBytes } from './lmdb-repeated.ts'
import type { Batch, Chunk, PumpInlet } from './pump.ts'
import { planTrim, type Trim } from './retention.ts'

export interface LmdbInletOptions {
  readonly dir: string
  /** The most that chunks may take on disk. */
  readonly bytesMax: number
  /** How long chunks are kept that the writers have committed. */
  readonly keepHours: number
  /** The most that quarantined messages may take on disk. */
  readonly quarantineBytesMax: number
  /** Space that the log leaves on its disk; by default 256 MB, or a twentieth of a small disk. */
  readonly freeBytesMin?: number
  /** ms since 1970 UTC. */
  readonly clock?: () => number
}

/** Beside chunks and quarantine: half-full pages, pages that wait for a reader, the free list. Address space only. */
const MAP_SPARE_BYTES = 1024 ** 3
const TAIL_BYTES_MAX = 64 * 1024 * 1024
/** How old the writers' position may be that retention goes by, unless room is needed: it only grows. */
const COMMITTED_MS = 100
const READER_CHECK_MS = 5_000
const HOUR_MS = 3_600_000

/**
 * Opens the log, and makes it where there is none. Rejects with `log_newer`, `log_corrupt`, `data_dir_unusable`, or with
 * `log_cut` when the writers are further than the log: it was restored from an older copy.
 */
export async function openLmdbInlet(options: LmdbInletOptions): Promise<PumpInlet> {
  const { dir, bytesMax, keepHours, quarantineBytesMax, freeBytesMin, clock = Date.now } = options
  const mapBytes = 2 * (bytesMax + quarantineBytesMax) + MAP_SPARE_BYTES
  const log = openEnv({ path: logPath(dir), writable: true, mapBytes })
  const positions = openPositions(dir, false)
  const disk = openDisk(logPath(dir), freeBytesMin)
  const opened = await openLog().catch(closeAndThrow)
  const bounds = { bytesMax: quarantineBytesMax, pageBytes: opened.pageBytes }
  const newestAtStart = opened.meta.counted?.lastReceivedAt ?? (await newestHeld(log, opened.meta).catch(closeAndThrow))
  let { meta, txn } = opened
  let appending = false
  let committed = 0
  let committedAt = Number.NEGATIVE_INFINITY
  let readersCheckedAt = 0

  return {
    append,
    get newestReceivedAt() {
      return meta.counted?.lastReceivedAt ?? newestAtStart
    },
    tail,
    appendedByOthers,
    close,
  }

  async function append(batch: Batch): Promise<void> {
    if (appending) throw new Error('One append at a time.')
    appending = true
    try {
      checkBatch(batch)
      const { pageBytes } = bounds
      const bytes =
        batch.messages === 0 ? 0 : footprint(batch.lines.length, pageBytes) + footprint(headerBytes(batch), pageBytes)
      const trim = await makeRoom(bytes)
      await commit(
        (db, before) => {
          const trimmed = trimChunks(db, before, trim)
          const appended = batch.messages === 0 ? trimmed : putChunk(db, trimmed, batch, bytes)
          const kept = putRefused(db, appended, batch.refused, bounds)
          const begin = () => beginCounting(before, clock(), newestAtStart)
          return countBatch(db, kept, batch, { begin, pageBytes })
        },
        bytes + refusedBytes(batch) + repeatedBytes(batch.repeated),
      )
    } finally {
      appending = false
    }
    await checkReaders()
  }

  /** What this append removes. Removes more beforehand while that is not room enough. */
  async function makeRoom(bytes: number): Promise<Trim> {
    for (;;) {
      const held = meta.bytes - meta.bytesTrimmed
      const over = bytes === 0 ? 0 : held + bytes - bytesMax
      const short = bytes > 0 && !disk.allows(bytes, held + meta.quarantineBytes + (meta.counted?.repeatedBytes ?? 0))
      // Chunks that are in ClickHouse already make room inside the file, whatever their age.
      const trim = await nextTrim(short ? bytesMax : over)
      if (!short && over <= trim.bytes) return trim
      if (trim.chunks === 0) throw short ? diskFull(dir) : logFull(bytesMax)
      await commit((db, before) => trimChunks(db, before, trim))
    }
  }

  async function nextTrim(bytesNeeded: number): Promise<Trim> {
    if (bytesNeeded > 0 || performance.now() - committedAt >= COMMITTED_MS) {
      committed = (await readSourceOf(positions, sourceOf(meta))).position
      committedAt = performance.now()
    }
    if (committed <= meta.first) return NOTHING
    const wanted = { first: meta.first, committed, bytesNeeded, olderThan: clock() - keepHours * HOUR_MS }
    return (await log.read(db => planTrim(wanted, at => readHeaderToTrim(db, at)))) ?? NOTHING
  }

  /** One durable transaction, from `meta` to what `change` makes of it. */
  async function commit(change: (db: Db, before: LogMeta) => LogMeta, bytes = 0): Promise<void> {
    const before = { meta, txn }
    const written = await log.write((db, number) => {
      if (number !== before.txn + 1) throw otherOwner(dir)
      const next = change(db, before.meta)
      putLogMeta(db, next)
      return { meta: next, txn: number }
    }, bytes)
    meta = written.meta
    txn = written.txn
  }

  async function checkReaders(): Promise<void> {
    if (performance.now() - readersCheckedAt < READER_CHECK_MS) return
    readersCheckedAt = performance.now()
    // A reader that was killed in the middle of a read would pin its pages for ever. The append itself is durable by now.
    await log.read(db => db.readerCheck()).catch(() => {})
  }

  async function tail(messagesMax: number): Promise<Chunk[]> {
    const chunks: Chunk[] = []
    let [messages, bytes] = [0, 0]
    for (let at = meta.end - 1; at >= meta.first && messages < messagesMax && bytes < TAIL_BYTES_MAX; at--) {
      const position = at
      const chunk = await log.read(db => readChunk(db, position))
      if (chunk === null) break
      chunks.push(chunk)
      messages += chunk.messages
      bytes += chunk.lines.length
    }
    return chunks.reverse()
  }

  /** There are no others: a log on a disk has one inlet. */
  async function* appendedByOthers(): AsyncGenerator<Chunk[]> {}

  async function close(): Promise<void> {
    await Promise.all([log.close(), positions.close()])
  }

  async function closeAndThrow(error: unknown): Promise<never> {
    await close()
    throw error
  }

  async function openLog(): Promise<{ meta: LogMeta; txn: number; pageBytes: number }> {
    const state = await log.write((db, number) => {
      const { pageSize } = db.getStats() as { pageSize: number }
      const found = readLogMeta(db) ?? newLog()
      putLogMeta(db, { ...found, bytesMax })
      return { meta: { ...found, bytesMax }, txn: number, pageBytes: pageSize }
    })
    await checkPositions(positions, state.meta)
    return state
  }
}

/** A damaged chunk that is in ClickHouse by now goes as if it were old: it must not hold up what is to come. */
function readHeaderToTrim(db: Db, position: number): Pick<ChunkHeader, 'bytes' | 'lastReceivedAt'> | null {
  try {
    return readHeader(db, position)
  } catch {
    return { bytes: 0, lastReceivedAt: Number.NEGATIVE_INFINITY }
  }
}

const NOTHING: Trim = { chunks: 0, bytes: 0 }

function newLog(): LogMeta {
  const quarantine = { quarantineFirst: 1, quarantineEnd: 1, quarantineBytes: 0 }
  const sums = { readings: 0, bytes: 0, bytesTrimmed: 0 }
  const logId = randomBytes(6).toString('hex')
  const empty = { format: FORMAT, logId, first: 0, end: 0, ...sums, ...quarantine, bytesMax: 0, counted: null }
  return { ...empty, counted: beginCounting(empty, null, 0) }
}

/** New readings at positions that ClickHouse already has others of would be taken for written. */
async function checkPositions(positions: Env, meta: LogMeta): Promise<void> {
  const { position, plan } = await readSourceOf(positions, sourceOf(meta))
  if (Math.max(position, plan?.to ?? 0) <= meta.end) return
  throw behindPositions(meta.end, Math.max(position, plan?.to ?? 0))
}

function trimChunks(db: Db, before: LogMeta, { chunks, bytes }: Trim): LogMeta {
  for (let at = before.first; at < before.first + chunks; at++) {
    db.removeSync(chunkKey(at, 'header'))
    db.removeSync(chunkKey(at, 'lines'))
  }
  return { ...before, first: before.first + chunks, bytesTrimmed: before.bytesTrimmed + bytes }
}

function putChunk(db: Db, before: LogMeta, batch: Batch, bytes: number): LogMeta {
  const { lines, messages, firstReceivedAt, lastReceivedAt, readings } = batch
  const sums = { readingsBefore: before.readings, bytesBefore: before.bytes }
  const header = { messages, readings, firstReceivedAt, lastReceivedAt, ...sums, bytes, counts: batch.counts }
  const key = chunkKey(before.end, 'header')
  db.putSync(key, packHeader(key, header, lines))
  db.putSync(chunkKey(before.end, 'lines'), lines)
  return { ...before, end: before.end + 1, readings: before.readings + readings, bytes: before.bytes + bytes }
}

function refusedBytes({ refused }: Batch): number {
  return refused.reduce((sum, { payload }) => sum + payload.length, 0)
}

function logFull(bytesMax: number): SurgetankError {
  const detail = `It holds ${bytesMax} bytes that are not yet in ClickHouse, the most it may. It takes more when the writers have made room.`
  return new SurgetankError('log_unavailable', detail)
}

function diskFull(dir: string): SurgetankError {
  const detail = `The disk of ${dir} is almost full; what is left is for ClickHouse, which makes room in the log.`
  return new SurgetankError('log_unavailable', detail)
}

function otherOwner(dir: string): SurgetankError {
  return new SurgetankError('data_dir_in_use', `Another process has written to the log in ${dir}.`)
}
