/** What a node answers that is asked for a topic's id: one, none, or that it does not know. */
import { expect, it } from 'vitest'
import type { KafkaClient } from '../../pump/kafka-client.ts'
import { topicIdOf } from '../../pump/kafka-topic-id.ts'
import { rejection } from '../contracts/pump-samples.ts'

const ID = Buffer.from('00112233445566778899aabbccddeeff', 'hex')
const NO_ID = Buffer.alloc(16)

it('is what the node says', async () => {
  expect(await topicIdOf(answering(0, ID), 'log')).toBe(ID.toString('base64url'))
})

it.each([
  ['does not know the topic (yet)', 3, 'log_unavailable'],
  ['knows no leader of it', 5, 'log_unavailable'],
  ['may not tell this user', 29, 'log_misconfigured'],
])('is not told by a node that %s: %i means %s', async (_, code, expected) => {
  const error = await rejection(topicIdOf(answering(code, NO_ID), 'log'))
  expect(error.code).toBe(expected)
  expect(error.message).not.toContain('gives topics no ids')
})

it('is asked for again where the answer is about no topic', async () => {
  expect(await rejection(topicIdOf(answering(0, ID, 'other'), 'log'))).toMatchObject({ code: 'log_unavailable' })
})

it('is missing in a Kafka that is too old', async () => {
  const error = await rejection(topicIdOf(answering(0, NO_ID), 'log'))
  expect(error.code).toBe('log_misconfigured')
  expect(error.message).toContain('gives topics no ids')
})

/** A cluster without nodes, each of which answers so to Metadata, version 10. */
function answering(code: number, id: Buffer, topic = 'log'): KafkaClient {
  const name = Buffer.from(topic)
  const bytes = Buffer.concat([
    Buffer.from([0, 0, 0, 0, 0]), // no tags, not throttled
    Buffer.from([1, 0]), // no nodes, no cluster id
    Buffer.from([0, 0, 0, 0]), // controller
    Buffer.from([2, 0, code, name.length + 1]), // one topic
    name,
    id,
    Buffer.alloc(8),
  ])
  interface Codec {
    decode(bytes: Buffer): Promise<Buffer>
    parse(bytes: Buffer): Promise<unknown>
  }
  const send = async ({ response }: { response: Codec }) => response.parse(await response.decode(bytes))
  return { controller: async () => ({ connectionPool: { send } }) } as unknown as KafkaClient
}
