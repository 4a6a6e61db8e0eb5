/**
 * Producing to one partition: the request is encoded here, in one pass into bytes of the right size. kafkajs encodes a batch
 * with about six copies and a checksum byte by byte, which cost a tenth of a broker's CPU under load.
 *
 * Produce, version 7, with one record batch of version 2, uncompressed:
 * https://kafka.apache.org/documentation/#recordbatch. Kafka 4 still takes version 3 and newer (KIP-896).
 */
import { createRequire } from 'node:module'
import { crc32c } from './crc32c.ts'
import type { KafkaNode, KafkaRecord, Long } from './kafka-client.ts'
import { type ResponseCodec, sendRequest } from './kafka-request.ts'

const require = createRequire(import.meta.url)
const response = require('kafkajs/src/protocol/requests/produce/v7/response') as ResponseCodec<ProduceResponse>

interface ProduceResponse {
  readonly topics: readonly { readonly partitions: readonly { readonly baseOffset: string }[] }[]
}

export interface ProduceOptions {
  readonly topic: string
  readonly partition: number
  readonly producerId: Long
  readonly producerEpoch: number
  /** Sequence number of the first record. */
  readonly firstSequence: number
  readonly records: readonly KafkaRecord[]
  /** How long Kafka may wait for its replicas, ms. */
  readonly timeoutMs: number
}

const PRODUCE = { apiKey: 0, apiVersion: 7, apiName: 'Produce' } as const
const ALL_IN_SYNC = -1
const MAGIC = 2
/** From the first byte of a record batch up to its attributes, where what the checksum covers begins; and up to its first record. */
const BEFORE_ATTRIBUTES_BYTES = 21
const BEFORE_RECORDS_BYTES = 61
/** The request without the topic's name and the batch. */
const REQUEST_BYTES = 26
/** Base offset and length, which the length does not count. */
const UNCOUNTED_BYTES = 12

/** Resolves with the offset of the first record, once all in-sync replicas have them. Rejects with kafkajs' error. */
export async function produce(node: KafkaNode, options: ProduceOptions): Promise<number> {
  const { topics } = await sendRequest(node, PRODUCE, () => encodeProduce(options, Date.now()), response)
  return Number(topics[0]?.partitions[0]?.baseOffset ?? 0)
}

/** The request without its header. `timestamp`: of all records, ms since 1970 UTC. */
export function encodeProduce(options: ProduceOptions, timestamp: number): Buffer {
  const { topic, partition, records, timeoutMs } = options
  const name = Buffer.from(topic)
  const batchBytes = BEFORE_RECORDS_BYTES + records.reduce((sum, record, at) => sum + sizeOf(bodyBytes(record, at)), 0)
  const bytes = Buffer.allocUnsafe(REQUEST_BYTES + name.length + batchBytes)
  let at = bytes.writeInt16BE(-1, 0) // not of a transaction
  at = bytes.writeInt16BE(ALL_IN_SYNC, at)
  at = bytes.writeInt32BE(timeoutMs, at)
  at = bytes.writeInt32BE(1, at) // one topic
  at = bytes.writeInt16BE(name.length, at)
  at += name.copy(bytes, at)
  at = bytes.writeInt32BE(1, at) // one partition
  at = bytes.writeInt32BE(partition, at)
  at = bytes.writeInt32BE(batchBytes, at)
  writeBatch(bytes.subarray(at), options, timestamp)
  return bytes
}

/** `bytes` is as long as the batch. */
function writeBatch(bytes: Buffer, options: ProduceOptions, timestamp: number): void {
  const { producerId, producerEpoch, firstSequence, records } = options
  const time = BigInt(timestamp)
  let at = bytes.writeBigInt64BE(0n, 0) // the base offset, which Kafka gives
  at = bytes.writeInt32BE(bytes.length - UNCOUNTED_BYTES, at)
  at = bytes.writeInt32BE(0, at) // the leader's epoch, which Kafka gives
  at = bytes.writeInt8(MAGIC, at)
  at += 4 // the checksum, at the end
  at = bytes.writeInt16BE(0, at) // not compressed, time of creation
  at = bytes.writeInt32BE(records.length - 1, at)
  at = bytes.writeBigInt64BE(time, at)
  at = bytes.writeBigInt64BE(time, at)
  at = bytes.writeBigInt64BE(BigInt(producerId.toString()), at)
  at = bytes.writeInt16BE(producerEpoch, at)
  at = bytes.writeInt32BE(firstSequence, at)
  at = bytes.writeInt32BE(records.length, at)
  for (const [number, record] of records.entries()) at = writeRecord(bytes, at, record, number)
  bytes.writeUInt32BE(crc32c(bytes, BEFORE_ATTRIBUTES_BYTES), BEFORE_ATTRIBUTES_BYTES - 4)
}

function writeRecord(bytes: Buffer, from: number, record: KafkaRecord, number: number): number {
  const headers = Object.entries(record.headers)
  let at = writeVarint(bytes, from, bodyBytes(record, number))
  at = bytes.writeInt8(0, at) // attributes
  at = writeVarint(bytes, at, 0) // at the batch's time
  at = writeVarint(bytes, at, number)
  at = writeVarint(bytes, at, -1) // no key
  at = writeVarint(bytes, at, record.value.length)
  at += record.value.copy(bytes, at)
  at = writeVarint(bytes, at, headers.length)
  for (const [name, value] of headers) at = writeText(bytes, writeText(bytes, at, name), value)
  return at
}

/** Of a record without its length. */
function bodyBytes({ value, headers }: KafkaRecord, number: number): number {
  const entries = Object.entries(headers).flat()
  const fixed = 1 + varintBytes(0) + varintBytes(number) + varintBytes(-1) + varintBytes(entries.length / 2)
  return fixed + sizeOf(value.length) + entries.reduce((sum, text) => sum + sizeOf(Buffer.byteLength(text)), 0)
}

/** Of so many bytes with their length before them. */
function sizeOf(length: number): number {
  return varintBytes(length) + length
}

function writeText(bytes: Buffer, from: number, text: Buffer | string): number {
  const at = writeVarint(bytes, from, Buffer.byteLength(text))
  return at + (typeof text === 'string' ? bytes.write(text, at) : text.copy(bytes, at))
}

/** Seven bits a byte, the least first, of 2n for n and 2|n| − 1 for −n: the lengths of records are signed. */
function writeVarint(bytes: Buffer, from: number, value: number): number {
  let at = from
  let rest = zigzag(value)
  for (; rest >= 0x80; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80
  bytes[at++] = rest
  return at
}

function varintBytes(value: number): number {
  let bytes = 1
  for (let rest = zigzag(value); rest >= 0x80; rest >>>= 7) bytes++
  return bytes
}

function zigzag(value: number): number {
  return ((value << 1) ^ (value >> 31)) >>> 0
}
