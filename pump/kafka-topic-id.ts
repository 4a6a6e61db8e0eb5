/**
 * The id of a topic: Kafka gives each topic a UUID when it is made (KIP-516, Kafka 2.8), so that one deleted and made anew under
 * the same name is another topic. It stands in the source of every row: positions begin at 0 again, and rows of the new
 * topic must not be taken for those of the old one.
 *
 * kafkajs knows Metadata up to version 6, and ids come with version 10: that one request is encoded here. It is of the
 * flexible kind (KIP-482): header and arrays end in tagged fields, lengths are unsigned varints of one more.
 */
import { createRequire } from 'node:module'
import { SurgetankError } from '../errors.ts'
import type { KafkaClient } from './kafka-client.ts'
import { translateKafkaError } from './kafka-errors.ts'
import { sendRequest } from './kafka-request.ts'
import type { LogTopic } from './kafka-topics.ts'

const require = createRequire(import.meta.url)
const { createErrorFromCode } = require('kafkajs/src/protocol/error') as { createErrorFromCode(code: number): Error }

const METADATA = { apiKey: 3, apiVersion: 10, apiName: 'Metadata' } as const
const UNKNOWN_TOPIC_OR_PARTITION = 3
const NO_ID = '0'.repeat(32)

/**
 * 22 letters and digits, `-` and `_`. Rejects with `log_misconfigured` when the cluster gives topics no ids, and with
 * `log_unavailable` when the node that was asked does not know the topic, or not yet.
 */
export async function topicIdOf(client: KafkaClient, topic: string): Promise<string> {
  const node = await client.controller()
  const id = await sendRequest(node, METADATA, () => encodeRequest(topic), {
    decode: async bytes => bytes,
    parse: async (bytes: Buffer) => decodeTopicId(bytes, topic),
  }).catch((error: unknown) => {
    throw translateKafkaError(error, `asking for topic ${topic}`)
  })
  if (id.toString('hex') !== NO_ID) return id.toString('base64url')
  throw new SurgetankError('log_misconfigured', 'This Kafka gives topics no ids; run Kafka 3.0 or newer.')
}

const WATCH_MS = 5_000

/**
 * Looks again and again whether the topic is still the same, and tells its new id when it is not: its chunks are another log's
 * then. Returns the way to stop.
 */
export function watchTopicId(client: KafkaClient, { log, id }: LogTopic, replaced: (id: string) => void): () => void {
  let known = id
  const timer = setInterval(() => void look(), WATCH_MS)
  timer.unref()
  return () => clearInterval(timer)

  async function look(): Promise<void> {
    // Kafka away, or the topic between its deletion and its making: asked again.
    const found = await topicIdOf(client, log).catch(() => known)
    if (found === known) return
    known = found
    replaced(found)
  }
}

/** For whoever must begin anew with the new topic. */
export function replacedBy({ log, id }: LogTopic, found: string): SurgetankError {
  return new SurgetankError(
    'log_replaced',
    `${log} had the id ${id} and has ${found} now; start again to go on with it.`,
  )
}

function encodeRequest(topic: string): Buffer {
  const name = Buffer.from(topic)
  const noTags = 0
  return Buffer.concat([
    Buffer.from([noTags]), // the request header's
    Buffer.from([2]), // one topic
    Buffer.alloc(16), // by its name: no id
    varint(name.length + 1),
    name,
    Buffer.from([noTags, 0, 0, 0, noTags]), // no creation, no authorized operations of cluster and topic
  ])
}

/** Reads as far as the topic's id. Throws kafkajs' error when the answer is one: the id is zero then, too. */
function decodeTopicId(bytes: Buffer, topic: string): Buffer {
  let at = 0
  const int = (size: number) => {
    at += size
    return bytes.readIntBE(at - size, size)
  }
  const unsigned = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes.readUInt8(at++)
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
  }
  const text = () => {
    const length = unsigned() - 1
    if (length < 0) return null
    at += length
    return bytes.toString('utf8', at - length, at)
  }
  const skipTags = () => {
    for (let tags = unsigned(); tags > 0; tags--) {
      unsigned()
      at += unsigned()
    }
  }
  skipTags()
  int(4) // throttle time
  for (let brokers = unsigned() - 1; brokers > 0; brokers--) {
    int(4)
    text()
    int(4)
    text()
    skipTags()
  }
  text() // cluster id
  int(4) // controller
  const topics = unsigned() - 1
  const code = topics < 1 ? UNKNOWN_TOPIC_OR_PARTITION : int(2)
  if (code !== 0) throw createErrorFromCode(code)
  if (text() !== topic) throw createErrorFromCode(UNKNOWN_TOPIC_OR_PARTITION)
  return bytes.subarray(at, at + 16)
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let left = value; ; left >>>= 7) {
    if (left < 0x80) return Buffer.from([...bytes, left])
    bytes.push((left & 0x7f) | 0x80)
  }
}
