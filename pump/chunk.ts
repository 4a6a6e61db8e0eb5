/**
 * A chunk as it lies in the log: a header of fixed size, and the lines beside it. Pure functions.
 *
 * The header is checked by itself, so that the books and the retention need not read the lines; it holds the checksum of
 * the lines. Both checksums take the header's key in, so that a chunk in another's place is not taken for it.
 */
import { crc32 } from 'node:zlib'
import { SurgetankError } from '../errors.ts'
import { utcDay } from '../model/utc-day.ts'
import type { Batch, Chunk } from './pump.ts'

/** What the header says. `readingsBefore` and `bytesBefore` are sums of all earlier chunks since the log was made. */
export interface ChunkHeader {
  readonly messages: number
  readonly readings: number
  readonly firstReceivedAt: number
  readonly lastReceivedAt: number
  readonly readingsBefore: number
  readonly bytesBefore: number
  /** What the chunk takes in the file: `footprint`. */
  readonly bytes: number
  readonly linesCrc: number
}

const VERSION = 1
export const HEADER_BYTES = 64
/** Larger values are read through shared memory by lmdb, which is not safe once the environment is opened anew. */
const LINES_BYTES_LIMIT = 16 * 1024 * 1024

/** Throws RangeError on a batch that no caller may send. */
export function checkBatch({ lines, firstReceivedAt, lastReceivedAt }: Batch): void {
  if (lines.length >= LINES_BYTES_LIMIT)
    throw new RangeError(`A batch of ${lines.length} bytes is too large for a chunk.`)
  if (utcDay(firstReceivedAt) !== utcDay(lastReceivedAt)) throw new RangeError('A batch must be of one UTC day.')
}

export function packHeader(key: Uint8Array, header: Omit<ChunkHeader, 'linesCrc'>, lines: Uint8Array): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES)
  bytes.writeUInt8(VERSION, 4)
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

/** Throws `log_corrupt` when the header is not as it was written. */
export function unpackHeader(key: Uint8Array, bytes: Buffer, position: number): ChunkHeader {
  if (
    bytes.length !== HEADER_BYTES ||
    bytes.readUInt32BE(0) !== headerCrc(key, bytes) ||
    bytes.readUInt8(4) !== VERSION
  ) {
    throw corrupt(position)
  }
  return {
    messages: bytes.readUInt32BE(8),
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
  const { messages, readings, firstReceivedAt, lastReceivedAt } = header
  return { partition: 0, position, messages, readings, firstReceivedAt, lastReceivedAt, lines }
}

function headerCrc(key: Uint8Array, bytes: Buffer): number {
  return crc32(bytes.subarray(4), crc32(key))
}

export function corrupt(position: number): SurgetankError {
  const detail = `Position ${position} is damaged on disk; it was not served. Restore the disk, or move the log away to begin a new one.`
  return new SurgetankError('log_corrupt', detail)
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
