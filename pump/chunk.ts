/**
 * A chunk as it lies in the log: a header, and the lines beside it. Pure functions.
 *
 * A header of version 1 has 64 bytes and no counts. One of version 2 has the same numbers, and behind them what was counted,
 * as JSON: `{"received":3,"repeated":1,"quarantined":0,"letGo":{}}`; nothing, where all that was received has a line, as is
 * the rule. The version is that of the lines, too.
 *
 * The header is checked by itself, so that the books and the retention need not read the lines; it holds the checksum of
 * the lines. Both checksums take the header's key in, so that a chunk in another's place is not taken for it.
 */
import { crc32 } from 'node:zlib'
import { SurgetankError } from '../errors.ts'
import { LINE_FORMAT, type LineFormat } from '../model/message.ts'
import { utcDay } from '../model/utc-day.ts'
import { acceptedOnly } from './message-counts.ts'
import { type Batch, type Chunk, type MessageCounts, REPEATED_OF_BATCH_MAX } from './pump.ts'

/** What the header says. `readingsBefore` and `bytesBefore` are sums of all earlier chunks since the log was made. */
export interface ChunkHeader {
  readonly format: LineFormat
  readonly messages: number
  readonly readings: number
  readonly firstReceivedAt: number
  readonly lastReceivedAt: number
  readonly readingsBefore: number
  readonly bytesBefore: number
  /** What the chunk takes in the file: `footprint`. */
  readonly bytes: number
  readonly linesCrc: number
  readonly counts: MessageCounts
}

/** Checksum and version, which every version has. */
const KNOWN_BYTES = 5
const VERSION_1_BYTES = 64
/** Of version 2, before the counts. */
const NUMBERS_BYTES = 56
/** Larger values are read through shared memory by lmdb, which is not safe once the environment is opened anew. */
const LINES_BYTES_LIMIT = 16 * 1024 * 1024

const REASONS_MAX = 16
const REASON = /^[a-z0-9_]{1,32}$/

/** Throws RangeError on a batch that no caller may send. One without lines may: what was counted is kept all the same. */
export function checkBatch({ lines, messages, firstReceivedAt, lastReceivedAt, counts, repeated }: Batch): void {
  if (messages === 0 && lines.length > 0) throw new RangeError('A batch of no messages has no lines.')
  const reasons = Object.keys(counts.letGo)
  if (reasons.length > REASONS_MAX || !reasons.every(reason => REASON.test(reason)))
    throw new RangeError(`Reasons to let messages go are at most ${REASONS_MAX} fixed words.`)
  if (repeated.length > REPEATED_OF_BATCH_MAX)
    throw new RangeError(`A batch lists ${REPEATED_OF_BATCH_MAX} repetitions at most.`)
  if (lines.length >= LINES_BYTES_LIMIT)
    throw new RangeError(`A batch of ${lines.length} bytes is too large for a chunk.`)
  if (utcDay(firstReceivedAt) !== utcDay(lastReceivedAt)) throw new RangeError('A batch must be of one UTC day.')
}

/** How long the header of a batch will be. */
export function headerBytes({ messages, counts }: Pick<Batch, 'messages' | 'counts'>): number {
  return NUMBERS_BYTES + Buffer.byteLength(encodeCounts(counts, messages))
}

function encodeCounts(counts: MessageCounts, messages: number): string {
  const { received, repeated, quarantined, letGo } = counts
  const isPlain = received === messages && repeated === 0 && quarantined === 0 && Object.keys(letGo).length === 0
  return isPlain ? '' : JSON.stringify(counts)
}

/** Always of the newest version: what is appended has lines of LINE_FORMAT. */
export function packHeader(
  key: Uint8Array,
  header: Omit<ChunkHeader, 'format' | 'linesCrc'>,
  lines: Uint8Array,
): Buffer {
  const counts = encodeCounts(header.counts, header.messages)
  const bytes = Buffer.alloc(NUMBERS_BYTES + Buffer.byteLength(counts))
  bytes.write(counts, NUMBERS_BYTES)
  bytes.writeUInt8(LINE_FORMAT, 4)
  bytes.writeUInt32BE(header.messages, 8)
  bytes.writeUInt32BE(header.readings, 12)
  bytes.writeDoubleBE(header.firstReceivedAt, 16)
  bytes.writeDoubleBE(header.lastReceivedAt, 24)
  bytes.writeDoubleBE(header.readingsBefore, 32)
  bytes.writeDoubleBE(header.bytesBefore, 40)
  bytes.writeUInt32BE(header.bytes, 48)
  bytes.writeUInt32BE(crc32(lines, crc32(key)), 52)
  bytes.writeUInt32BE(headerCrc(key, bytes), 0)
  return bytes
}

/**
 * Throws `log_corrupt` when the header is not as it was written, and `log_newer` when it is, by a version that this program does
 * not know.
 */
export function unpackHeader(key: Uint8Array, bytes: Buffer, position: number): ChunkHeader {
  if (bytes.length < KNOWN_BYTES || bytes.readUInt32BE(0) !== headerCrc(key, bytes)) throw corrupt(position)
  const version = bytes.readUInt8(4)
  if (version > LINE_FORMAT) throw newer(position, version)
  if (version === 1 && bytes.length === VERSION_1_BYTES) return readNumbers(bytes, 1)
  if (version === 2 && bytes.length >= NUMBERS_BYTES) return readNumbers(bytes, 2)
  throw corrupt(position)
}

function readNumbers(bytes: Buffer, format: LineFormat): ChunkHeader {
  const messages = bytes.readUInt32BE(8)
  const isPlain = format === 1 || bytes.length === NUMBERS_BYTES
  const counts = isPlain ? acceptedOnly(messages) : readCounts(bytes.subarray(NUMBERS_BYTES))
  return {
    format,
    counts,
    messages,
    readings: bytes.readUInt32BE(12),
    firstReceivedAt: bytes.readDoubleBE(16),
    lastReceivedAt: bytes.readDoubleBE(24),
    readingsBefore: bytes.readDoubleBE(32),
    bytesBefore: bytes.readDoubleBE(40),
    bytes: bytes.readUInt32BE(48),
    linesCrc: bytes.readUInt32BE(52),
  }
}

/** Throws `log_corrupt` when the lines are not those that the header was written for. */
export function unpackChunk(key: Uint8Array, header: ChunkHeader, lines: Buffer, position: number): Chunk {
  if (crc32(lines, crc32(key)) !== header.linesCrc) throw corrupt(position)
  const { format, messages, readings, firstReceivedAt, lastReceivedAt, counts } = header
  return { partition: 0, position, format, messages, readings, firstReceivedAt, lastReceivedAt, lines, counts }
}

function readCounts(bytes: Buffer): MessageCounts {
  const { received, repeated, quarantined, letGo } = JSON.parse(bytes.toString()) as MessageCounts
  return { received, repeated, quarantined, letGo }
}

function headerCrc(key: Uint8Array, bytes: Buffer): number {
  return crc32(bytes.subarray(4), crc32(key))
}

export function corrupt(position: number): SurgetankError {
  const detail = `Position ${position} is damaged on disk; it was not served. Restore the disk, or move the log away to begin a new one.`
  return new SurgetankError('log_corrupt', detail)
}

function newer(position: number, version: number): SurgetankError {
  const detail = `Position ${position} is of format ${version}, and this version knows up to ${LINE_FORMAT}. Start the newer surgetank.`
  return new SurgetankError('log_newer', detail)
}

const NODE_BYTES = 32

/**
 * What a value takes in the file, about: large ones fill pages of their own; small ones lie in pages that are half full,
 * because a page that is full is split in two. The cap counts this, so that it bounds the disk and not the payload.
 */
export function footprint(valueBytes: number, pageBytes: number): number {
  if (valueBytes + NODE_BYTES <= pageBytes / 2) return 2 * (valueBytes + NODE_BYTES)
  return Math.ceil((valueBytes + NODE_BYTES) / pageBytes) * pageBytes + 2 * NODE_BYTES
}
