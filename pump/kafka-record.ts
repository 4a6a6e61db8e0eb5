/**
 * Chunks, refused messages and dead letters as Kafka records. Pure functions.
 *
 * A chunk is one record: its value is the chunk's lines (`model/message.ts`), as any consumer can read them; one header,
 * `surgetank`, says the rest in words with spaces between: version, unit, number, messages, readings, first and last receipt
 * (ms), CRC-32 of the lines. Unit and number name the append that made it: a unit looks for them when it cannot know
 * whether an attempt arrived.
 */
import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { SurgetankError } from '../errors.ts'
import type { FetchedRecord, KafkaRecord } from './kafka-client.ts'
import type { Batch, Chunk, DeadLetter, QuarantineEntry, Refused } from './pump.ts'

const HEADER = 'surgetank'
const VERSION = '1'
/**
 * Of one send to a side topic. A record may be larger alone, and always fits: the largest message and the longest line take less
 * than every topic of ours does (`max.message.bytes`).
 */
const SEND_BYTES_MAX = 1 << 20
/** What a record takes beside its value and its header's text. */
const RECORD_BYTES = 64

/** Names one append: a unit has one life, and counts its appends. */
export interface AppendName {
  readonly unit: string
  readonly number: number
}

/** Of one life of an inlet, never used again. */
export function newUnit(): string {
  return randomBytes(9).toString('base64url')
}

export function chunkRecord(batch: Batch, { unit, number }: AppendName): KafkaRecord {
  const { lines, messages, readings, firstReceivedAt, lastReceivedAt } = batch
  const words = [VERSION, unit, number, messages, readings, firstReceivedAt, lastReceivedAt, crc32(lines)]
  return { value: lines, headers: { [HEADER]: words.join(' ') } }
}

/**
 * The chunk of a record of the log. A record that somebody else put into the topic is a chunk of nothing, so that it holds
 * up nobody; `foreign` tells. Throws `log_corrupt` when one of ours is not as it was written.
 */
export function toChunk(partition: number, record: FetchedRecord): { chunk: Chunk; foreign: boolean } {
  const position = Number(record.offset)
  const words = headerWords(record)
  if (words === null) {
    const at = Number(record.timestamp)
    const nothing = { messages: 0, readings: 0, firstReceivedAt: at, lastReceivedAt: at, lines: Buffer.alloc(0) }
    return { chunk: { partition, position, ...nothing }, foreign: true }
  }
  const [messages = 0, readings = 0, firstReceivedAt = 0, lastReceivedAt = 0, crc] = words.slice(3).map(Number)
  const lines = record.value
  if (lines === null || crc32(lines) !== crc) throw corrupt(`Offset ${position} of partition ${partition}`)
  return {
    chunk: { partition, position, messages, readings, firstReceivedAt, lastReceivedAt, lines },
    foreign: false,
  }
}

export function isOf(record: FetchedRecord, { unit, number }: AppendName): boolean {
  const words = headerWords(record)
  return words !== null && words[1] === unit && Number(words[2]) === number
}

/** Null when the record is not ours. Throws when it is of a version that this program does not know. */
function headerWords({ headers }: FetchedRecord): string[] | null {
  const header = headers[HEADER]
  if (header === undefined) return null
  const words = header.toString().split(' ')
  if (words[0] === VERSION && words.length === 8) return words
  throw new SurgetankError('log_newer', `A record of version ${words[0]} stands in the topic: run the newer surgetank.`)
}

/** A refused message: the value is its payload. */
export function refusedRecord({ payload, ...about }: Refused): KafkaRecord {
  return { value: Buffer.from(payload), headers: { [HEADER]: JSON.stringify(about) } }
}

export function toRefusedEntry(record: FetchedRecord): QuarantineEntry | null {
  const about = aboutOf<Omit<Refused, 'payload'>>(record)
  if (about === null) return null
  const { receivedAt, device, topic, reason, detail } = about
  return { id: `m${numberOf(record)}`, receivedAt, device, where: topic, reason, detail, bytes: bytesOf(record) }
}

/** A dead letter: the value is the line it came in. */
export function letterRecord({ line, ...about }: DeadLetter): KafkaRecord {
  return { value: Buffer.from(line), headers: { [HEADER]: JSON.stringify(about) } }
}

/** The entry, and the place of the reading: a writer that was killed may have written its letter twice. */
export function toLetterEntry(record: FetchedRecord): { entry: QuarantineEntry; place: string } | null {
  const about = aboutOf<Omit<DeadLetter, 'line'>>(record)
  if (about === null) return null
  const { source, position, index, device, receivedAt, reason, detail } = about
  const where = `${source} ${position}/${index}`
  const entry = { id: `r${numberOf(record)}`, receivedAt, device, where, reason, detail, bytes: bytesOf(record) }
  return { entry, place: where }
}

/** What is to be kept as records, in groups that are each one send; a group is made when it is asked for. */
export function* groupRecords<Kept>(
  all: readonly Kept[],
  toRecord: (kept: Kept) => KafkaRecord,
): Generator<KafkaRecord[], undefined, void> {
  let group: KafkaRecord[] = []
  let bytes = 0
  for (const kept of all) {
    const record = toRecord(kept)
    const size = recordBytes(record)
    if (group.length > 0 && bytes + size > SEND_BYTES_MAX) {
      yield group
      group = []
      bytes = 0
    }
    group.push(record)
    bytes += size
  }
  if (group.length > 0) yield group
}

function recordBytes({ value, headers }: KafkaRecord): number {
  return RECORD_BYTES + value.length + Buffer.byteLength(headers[HEADER] ?? '')
}

function aboutOf<About>({ headers }: FetchedRecord): About | null {
  const header = headers[HEADER]
  return header === undefined ? null : (JSON.parse(header.toString()) as About)
}

function bytesOf({ value }: FetchedRecord): Buffer {
  return value ?? Buffer.alloc(0)
}

/** Entries are numbered from 1 on. */
function numberOf({ offset }: FetchedRecord): number {
  return Number(offset) + 1
}

function corrupt(what: string): SurgetankError {
  const detail = `${what} does not match its checksum; it was not served. Restore the topic, or name another one to begin anew.`
  return new SurgetankError('log_corrupt', detail)
}
