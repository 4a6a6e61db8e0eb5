/**
 * Where a message comes from, as ingest is told: its connection, its packet identifier and its DUP flag, the same by either way,
 * through Aedes (the first message to a topic) and past it (those that follow). And what becomes of messages that ingest does
 * not get to see [G7].
 */
import { describe, expect, it } from 'vitest'
import { metrics } from '../../metrics.ts'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, ping, publishPacket } from './harness.ts'

const PLAIN = 'devices/press-17/telemetry'

describe('where a message comes from', () => {
  it.each([
    ['of one topic: the first through Aedes, the others past it', () => PLAIN],
    ['each to another topic: all through Aedes', (at: number) => `devices/press-17/telemetry/m${at}`],
  ])('is told of messages %s', async (_, topicOf) => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const sent = [
      { messageId: 65_535, qos: 1, dup: false },
      { messageId: 256, qos: 2, dup: false },
      { messageId: 1, qos: 0, dup: false },
      { messageId: 65_535, qos: 1, dup: true },
      { messageId: 7, qos: 1, dup: false },
      { messageId: 2, qos: 0, dup: false },
      { messageId: 9, qos: 1, dup: true },
    ] as const
    for (const [at, { messageId, qos, dup }] of sent.entries()) {
      client.send(publishPacket(messageId, { qos, dup, topic: topicOf(at) }))
      await until(() => ingest.offered.length === at + 1)
      ingest.settle()
    }
    const told = ingest.offered.map(({ connection, packet, dup }) => ({ connection, packet, dup }))
    const connection = ingest.offered[0]?.connection as number
    expect(told).toEqual(
      sent.map(({ messageId, qos, dup }) => ({ connection, packet: qos === 0 ? 0 : messageId, dup })),
    )
    // Of a message with DUP=1 itself it does not matter whether its connection had sent one before.
    const marks = ingest.offered.filter(({ dup }) => !dup).map(({ marksDup }) => marksDup)
    expect(marks).toEqual([false, false, false, true, true])
  })

  it('is told of a message that is refused as well', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(5, { topic: 'elsewhere', dup: true }))
    client.send(publishPacket(6, { topic: 'devices/press-17/status', payload: 'perhaps' }))
    await until(() => ingest.offered.length === 2)
    expect(ingest.offered).toMatchObject([
      { reason: 'unknown_topic', packet: 5, dup: true },
      { reason: 'invalid_status', packet: 6, dup: false, marksDup: true },
    ])
  })

  it('differs for each connection, also of one client, and is no zero', async () => {
    const { broker, ingest } = await openBench()
    for (let at = 0; at < 3; at++) {
      const client = await openClient(broker.port)
      client.send(publishPacket(1))
      await until(() => ingest.offered.length === at + 1)
      ingest.settle()
      client.socket.destroy()
    }
    const numbers = ingest.offered.map(({ connection }) => connection)
    expect(new Set(numbers).size).toBe(3)
    for (const number of numbers) {
      expect(number).toBeGreaterThanOrEqual(1)
      expect(number).toBeLessThanOrEqual(65_535)
    }
  })
})

describe('the books of the broker [G7]', () => {
  it('have each message that was received: offered, a status, or of QoS 0 and dropped', async () => {
    const { broker, ingest } = await openBench()
    const before = await receivedTotal()
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    client.send(publishPacket(2))
    client.send(publishPacket(3, { topic: 'elsewhere' }))
    client.send(publishPacket(4, { topic: 'devices/press-17/status', payload: 'online' }))
    client.send(publishPacket(0, { topic: 'devices/press-17/status', payload: 'offline', qos: 0 }))
    client.send(publishPacket(5, { topic: 'devices/press-17/status', payload: 'perhaps' }))
    await until(() => ingest.offered.length === 4)
    ingest.stalled = true
    for (let at = 0; at < 3; at++) client.send(publishPacket(0, { qos: 0, topic: `${PLAIN}/m${at % 2}` }))
    client.send(publishPacket(0, { qos: 0 }))
    await ping(client)
    ingest.settle()
    await until(() => acknowledged(client).length === 5)
    await broker.close()
    expect(ingest.gone).toEqual({ presence: 2, qos0_overload: 4 })
    expect((await receivedTotal()) - before).toBe(ingest.offered.length + 2 + 4)
  })
})

async function receivedTotal(): Promise<number> {
  const { values } = await metrics.received.get()
  return values.reduce((sum, { value }) => sum + value, 0)
}
