/** A partition that ends before what the writers have come to: lost readings, or a node that does not know better. */
import { expect, it } from 'vitest'
import type { KafkaClient, KafkaNode } from '../../pump/kafka-client.ts'
import { checkEnd } from '../../pump/kafka-outlet.ts'
import { openKafkaReader } from '../../pump/kafka-reader.ts'
import { rejection } from '../contracts/pump-samples.ts'

const PLACE = { source: 'log:id/0', partition: 0, reached: 9 }

it('is asked of the new leader when the old one is cut off from the others', async () => {
  await checkBetween({ 1: () => 5, 2: () => 9 })
})

it('is asked again while the new leader does not know how far the log was acknowledged', async () => {
  let looks = 0
  await checkBetween({ 1: () => 5, 2: () => (++looks < 8 ? 7 : 9) })
})

it('is told of when all say so', async () => {
  const error = await rejection(checkBetween({ 1: () => 5, 2: () => 5 }))
  expect(error).toMatchObject({ code: 'log_cut', fate: 'stop' })
  expect(error.message).toContain('log:id/0 ends at 5, and the writers have come to 9')
})

/** Node 1 led the partition, and node 2 does: this is learned when it is asked for the third time. Each says where it ends. */
async function checkBetween(ends: Readonly<Record<1 | 2, () => number>>): Promise<void> {
  let refreshed = 0
  const node = (nodeId: 1 | 2) => ({
    nodeId: String(nodeId),
    listOffsets: async () => ({ responses: [{ partitions: [{ partition: 0, offset: String(ends[nodeId]()) }] }] }),
  })
  const client = {
    leader: async () => node(refreshed < 3 ? 1 : 2) as unknown as KafkaNode,
    refresh: async () => void refreshed++,
  } as unknown as KafkaClient
  await checkEnd(client, openKafkaReader(client, 'log'), PLACE)
}
