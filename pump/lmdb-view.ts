/**
 * The view of the log on this disk: looks and touches nothing. Works while the system runs and when it does not, and
 * before either environment was made.
 */
import { accessSync } from 'node:fs'
import { SurgetankError } from '../errors.ts'
import { beginCounting, newestHeld } from './lmdb-counted.ts'
import type { Db } from './lmdb-env.ts'
import { openLogForReading, readChunksOf, readHeader, readLogMeta, sourceOf } from './lmdb-log.ts'
import { openPositions, readLetter, readPositionsMeta, readSourceOf, type SourceRecord } from './lmdb-positions.ts'
import { readRefused } from './lmdb-quarantine.ts'
import { readRepeated } from './lmdb-repeated.ts'
import { NO_MESSAGES, toMessageBooks } from './message-counts.ts'
import type {
  Chunk,
  PartitionBooks,
  PartitionPlace,
  PumpBooks,
  PumpLag,
  PumpView,
  QuarantineEntry,
  ReadLimits,
  RepeatedEntry,
} from './pump.ts'

export interface LmdbViewOptions {
  readonly dir: string
}

const NO_BOOKS: PumpBooks = {
  partitions: [],
  messages: toMessageBooks(NO_MESSAGES, 0, null),
  quarantined: 0,
  quarantinedKept: 0,
  bytes: 0,
  bytesUnwritten: 0,
  bytesMax: 0,
}

/** Rejects with `log_missing` when there is no such directory, with `data_dir_unusable` when it is closed to this user. */
export async function openLmdbView({ dir }: LmdbViewOptions): Promise<PumpView> {
  refuseWithout(dir)
  const log = openLogForReading(dir)
  const positions = openPositions(dir, false)

  return { places, lag, books, positionAt, read, newestReceivedAt, quarantine, quarantineEntry, repeated, close }

  async function places(): Promise<PartitionPlace[]> {
    return [...(await books()).partitions]
  }

  async function lag(): Promise<PumpLag> {
    const { partitions, bytes, bytesUnwritten, bytesMax } = await books()
    const [partition] = partitions
    const readings = partition === undefined ? 0 : partition.readingsAppended - partition.readingsCommitted
    return { readings, oldestUnwrittenAt: partition?.oldestUnwrittenAt ?? null, bytes, bytesUnwritten, bytesMax }
  }

  async function books(): Promise<PumpBooks> {
    const found = await log.read(readLogMeta)
    if (found === null) return NO_BOOKS
    const source = sourceOf(found)
    // The positions first: the log only grows, so what they name is in the log's snapshot.
    const record = await readSourceOf(positions, source)
    return (await log.read(db => booksOf(db, record))) ?? NO_BOOKS
  }

  /** A chunk is appended right after its newest line was received. */
  async function positionAt(partition: number, appendedAt: number): Promise<number> {
    const position = partition === 0 ? await log.read(db => firstSince(db, appendedAt)) : null
    return position ?? 0
  }

  async function read(partition: number, from: number, limits: ReadLimits): Promise<Chunk[]> {
    return partition === 0 ? readChunksOf(log, from, limits) : []
  }

  /** Of a log of format 1, which did not keep it, that of all chunks held. */
  async function newestReceivedAt(): Promise<number> {
    const meta = await log.read(readLogMeta)
    return meta === null ? 0 : (meta.counted?.lastReceivedAt ?? newestHeld(log, meta))
  }

  async function quarantine(entriesMax: number): Promise<QuarantineEntry[]> {
    const refused = await log.read(db => {
      const meta = readLogMeta(db)
      return meta === null
        ? []
        : newest(meta.quarantineFirst, meta.quarantineEnd, entriesMax, number => readRefused(db, number))
    })
    const letters = await positions.read(db => {
      const { lettersFirst, lettersEnd } = readPositionsMeta(db)
      return newest(lettersFirst, lettersEnd, entriesMax, number => readLetter(db, number))
    })
    const entries = [...(refused ?? []), ...(letters ?? [])]
    return entries.sort((a, b) => b.receivedAt - a.receivedAt).slice(0, entriesMax)
  }

  async function quarantineEntry(id: string): Promise<QuarantineEntry | null> {
    const [, kind, digits] = /^([mr])(\d{1,15})$/.exec(id) ?? []
    const number = Number(digits)
    if (kind === 'm') return log.read(db => readRefused(db, number))
    return kind === 'r' ? positions.read(db => readLetter(db, number)) : null
  }

  async function repeated(entriesMax: number, device: string | null): Promise<RepeatedEntry[]> {
    const entries = await log.read(db => {
      const meta = readLogMeta(db)
      return meta === null ? [] : readRepeated(db, meta, entriesMax, device)
    })
    return entries ?? []
  }

  async function close(): Promise<void> {
    await Promise.all([log.close(), positions.close()])
  }
}

function firstSince(db: Db, appendedAt: number): number {
  const meta = readLogMeta(db)
  if (meta === null) return 0
  let [from, to] = [meta.first, meta.end]
  while (from < to) {
    const middle = (from + to) >> 1
    if ((readHeader(db, middle)?.lastReceivedAt ?? 0) < appendedAt) from = middle + 1
    else to = middle
  }
  return from
}

function booksOf(db: Db, record: SourceRecord): PumpBooks | null {
  const meta = readLogMeta(db)
  if (meta === null) return null
  const { position: committed, plan, deadLetters, readings: readingsCommitted } = record
  const oldest = committed < meta.end ? readHeader(db, Math.max(committed, meta.first)) : null
  const partition: PartitionBooks = {
    partition: 0,
    source: sourceOf(meta),
    first: meta.first,
    end: meta.end,
    committed,
    plan,
    readingsAppended: meta.readings,
    readingsCommitted,
    deadLetters,
    oldestUnwrittenAt: oldest?.firstReceivedAt ?? null,
  }
  const quarantinedKept = meta.quarantineEnd - meta.quarantineFirst
  // A log of format 1 begins to count with its next append.
  const { sums, since } = meta.counted ?? beginCounting(meta, Date.now(), 0)
  return {
    partitions: [partition],
    messages: toMessageBooks(sums, quarantinedKept, since),
    quarantined: meta.quarantineEnd - 1,
    quarantinedKept,
    bytes: meta.bytes - meta.bytesTrimmed,
    bytesUnwritten: meta.bytes - (oldest?.bytesBefore ?? meta.bytes),
    bytesMax: meta.bytesMax,
  }
}

/** The newest entries of a row of numbers, newest first. */
function newest(first: number, end: number, entriesMax: number, entryOf: (number: number) => QuarantineEntry | null) {
  const entries: QuarantineEntry[] = []
  for (let number = end - 1; number >= first && entries.length < entriesMax; number--) {
    const entry = entryOf(number)
    if (entry !== null) entries.push(entry)
  }
  return entries
}

function refuseWithout(dir: string): void {
  try {
    accessSync(dir)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') {
      const detail = `${dir} is closed to this user. Run this as the user that surgetank runs as.`
      throw new SurgetankError('data_dir_unusable', detail, error)
    }
    throw new SurgetankError('log_missing', `${dir} does not exist. Is SURGETANK_DATA_DIR right?`, error)
  }
}
