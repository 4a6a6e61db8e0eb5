/**
 * Chunks, refused messages, repetitions and dead letters as Kafka records. Pure functions.
 *
 * A chunk is one record: its value is the chunk's lines (`model/message.ts`), as any consumer can read them; one header,
 * `surgetank`, says the rest in words with spaces between: version, unit, number, messages, readings, first and last receipt
 * (ms), CRC-32 of the lines; from version 2 on also what was counted: received, repeated, quarantined, and by reason what was
 * let go, as JSON. The version is that of the lines, too. Unit and number name the append that made it: a unit looks for
 * them when it cannot know whether an attempt arrived. A record without lines holds what was counted when none came.
 */
import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { SurgetankError } from '../errors.ts'
import { LINE_FORMAT, type LineFormat } from '../model/message.ts'
import type { FetchedRecord, KafkaRecord } from './kafka-client.ts'
import { acceptedOnly } from './message-counts.ts'
import {
  type Batch,
  type Chunk,
  type DeadLetter,
  type MessageCounts,
  type QuarantineEntry,
  REPEATED_PAYLOAD_BYTES_MAX,
  type Refused,
  type Repeated,
  type RepeatedEntry,
} from './pump.ts'

const HEADER = 'surgetank'
/** How many words a header of each version has. */
const WORDS: Readonly<Record<string, number>> = { 1: 8, 2: 12 }
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

/** Always of the newest version: what is appended has lines of LINE_FORMAT. */
export function chunkRecord(batch: Batch, { unit, number }: AppendName): KafkaRecord {
  const { lines, messages, readings, firstReceivedAt, lastReceivedAt, counts } = batch
  const chunk = [LINE_FORMAT, unit, number, messages, readings, firstReceivedAt, lastReceivedAt, crc32(lines)]
  const counted = [counts.received, counts.repeated, counts.quarantined, JSON.stringify(counts.letGo)]
  return { value: lines, headers: { [HEADER]: [...chunk, ...counted].join(' ') } }
}

/** A chunk, and the unit that appended it; null when that is none of ours. */
export interface KafkaChunk extends Chunk {
  readonly unit: string | null
}

/**
 * The chunk of a record of the log. A record that somebody else put into the topic is a chunk of nothing, so that it holds
 * up nobody; its unit is null. Throws `log_corrupt` when one of ours is not as it was written, and `log_newer` when it is of a
 * version that this program does not know.
 */
export function toChunk(partition: number, record: FetchedRecord): KafkaChunk {
  const position = Number(record.offset)
  // What has no lines has no receipt of its own: it counts as of when Kafka took it.
  const at = Number(record.timestamp)
  const words = headerWords(record)
  if (words === null) {
    const nothing = { messages: 0, readings: 0, counts: acceptedOnly(0), lines: Buffer.alloc(0), unit: null }
    return { partition, position, format: LINE_FORMAT, ...nothing, firstReceivedAt: at, lastReceivedAt: at }
  }
  const [version, unit = ''] = words
  const format = Number(version) as LineFormat
  const [messages = 0, readings = 0, firstReceivedAt = 0, lastReceivedAt = 0, crc] = words.slice(3, 8).map(Number)
  const lines = record.value
  if (lines === null || crc32(lines) !== crc) throw corrupt(`Offset ${position} of partition ${partition}`)
  const times = messages === 0 ? { firstReceivedAt: at, lastReceivedAt: at } : { firstReceivedAt, lastReceivedAt }
  const counts = format === 1 ? acceptedOnly(messages) : countsOf(words)
  return { partition, position, format, messages, readings, ...times, lines, counts, unit }
}

function countsOf(words: readonly string[]): MessageCounts {
  const [received = 0, repeated = 0, quarantined = 0] = words.slice(8, 11).map(Number)
  return { received, repeated, quarantined, letGo: JSON.parse(words[11] ?? '{}') as MessageCounts['letGo'] }
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
  if (words.length === WORDS[words[0] ?? '']) return words
  const detail = `A record of version ${words[0]} stands in the topic, and this version knows up to ${LINE_FORMAT}. Start the newer surgetank.`
  throw new SurgetankError('log_newer', detail)
}

/** A refused message: the value is its payload. */
export function refusedRecord({ payload, ...about }: Refused): KafkaRecord {
  return { value: Buffer.from(payload), headers: { [HEADER]: JSON.stringify(about) } }
}

export function toRefusedEntry(record: FetchedRecord): QuarantineEntry | null {
  const about = aboutOf<Omit<Refused, 'payload'>>(record)
  if (about === null) return null
  const bytes = bytesOf(record)
  // Without a size, as every entry of an older version is: all of it was kept.
  const { receivedAt, device, topic, reason, detail, payloadBytes: bytesTotal = bytes.length } = about
  return { id: `m${numberOf(record)}`, receivedAt, device, where: topic, reason, detail, bytes, bytesTotal }
}

/** A repetition: the value is the beginning of its payload. */
export function repeatedRecord({ payload, ...about }: Repeated): KafkaRecord {
  const header = JSON.stringify({ ...about, payloadBytes: payload.length })
  return { value: Buffer.from(payload.subarray(0, REPEATED_PAYLOAD_BYTES_MAX)), headers: { [HEADER]: header } }
}

export function toRepeatedEntry(record: FetchedRecord): RepeatedEntry | null {
  const about = aboutOf<Omit<RepeatedEntry, 'payload'>>(record)
  return about === null ? null : { ...about, payload: bytesOf(record) }
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
  const bytes = bytesOf(record)
  const bytesTotal = bytes.length
  const entry = { id: `r${numberOf(record)}`, receivedAt, device, where, reason, detail, bytes, bytesTotal }
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
