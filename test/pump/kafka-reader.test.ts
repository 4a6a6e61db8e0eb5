/** What an answer without records means: the end of the partition, or nothing at all. */
import { expect, it } from 'vitest'
import type { KafkaClient, KafkaNode } from '../../pump/kafka-client.ts'
import { openKafkaReader } from '../../pump/kafka-reader.ts'
import { chunkRecord } from '../../pump/kafka-record.ts'
import { batchOf, rejection } from '../contracts/pump-samples.ts'

type Answer = 'throttled' | 'behind' | 'records' | 'end'

/** A partition of five chunks, whose broker answers as it is told, and truly from then on. */
function openReader(answers: readonly Answer[]) {
  const left = [...answers]
  const records = Array.from({ length: 5 }, (_, number) => ({
    ...chunkRecord(batchOf(number, 1), { unit: 'unit', number }),
    offset: String(number),
    timestamp: '1',
  })).map(record => ({ ...record, headers: { surgetank: Buffer.from(String(record.headers.surgetank)) } }))
  const fetch = async (request: { topics: [{ partitions: [{ fetchOffset: string }] }] }) => {
    const from = Number(request.topics[0].partitions[0].fetchOffset)
    const answer = left.shift() ?? 'records'
    if (answer === 'throttled') return { responses: [] }
    const messages = answer === 'records' ? records.filter(({ offset }) => Number(offset) >= from) : []
    return { responses: [{ partitions: [{ partition: 0, highWatermark: '5', messages }] }] }
  }
  const node = { nodeId: '1', fetch } as unknown as KafkaNode
  return openKafkaReader({ leader: async () => node, refresh: async () => {} } as unknown as KafkaClient, 'log')
}

it('asks again when a throttled client, or a leader that is new, is told of nothing [G2]', async () => {
  const reader = openReader(['throttled', 'behind', 'throttled'])
  const chunks = await reader.chunks(0, 2, { chunksMax: 10, bytesMax: 1 << 20 })
  expect(chunks.map(({ position }) => position)).toEqual([2, 3, 4])
})

it('takes an empty answer for the end where the partition ends', async () => {
  expect(await openReader(['end']).chunks(0, 5, { chunksMax: 10, bytesMax: 1 << 20 })).toEqual([])
})

it('says that the log cannot be read when it is told of nothing again and again', async () => {
  const answers = Array.from({ length: 1_000 }, () => 'behind' as const)
  const error = await rejection(openReader(answers).chunks(0, 2, { chunksMax: 10, bytesMax: 1 << 20 }))
  expect(error).toMatchObject({ code: 'log_unavailable', fate: 'retry' })
})
