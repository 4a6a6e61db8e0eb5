/** Messages that the gate takes past Aedes: the same ones, in the same order, however the bytes are cut. */
import fc from 'fast-check'
import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { KnownTopics, PublishFrame } from '../../broker/publish-frame.ts'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, ping, publishPacket } from './harness.ts'

describe('a PUBLISH in the bytes of a socket', () => {
  it('is read as mqtt-packet wrote it, and not at all when a byte of it is missing', () => {
    const packets = fc.record({
      topic: fc.string({ minLength: 1, maxLength: 60 }),
      payload: fc.uint8Array({ maxLength: 300 }),
      qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
      messageId: fc.integer({ min: 1, max: 65_535 }),
      before: fc.nat(5),
      dup: fc.boolean(),
    })
    fc.assert(
      fc.property(packets, ({ topic, payload, qos, messageId, before, dup }) => {
        const given = { topic, payload: Buffer.from(payload), qos, dup: dup && qos > 0 }
        const packet = mqtt.generate(publishPacket(messageId, given))
        const bytes = Buffer.concat([Buffer.alloc(before), packet])
        const frame = new PublishFrame()
        expect(frame.read(bytes, before)).toBe(true)
        expect(bytes.toString('utf8', frame.topicAt, frame.topicAt + frame.topicLength)).toBe(topic)
        expect(bytes.subarray(frame.payloadAt, frame.end)).toEqual(Buffer.from(payload))
        expect([frame.qos, frame.messageId, frame.end]).toEqual([qos, qos === 0 ? 0 : messageId, bytes.length])
        expect(frame.dup).toBe(given.dup)
        expect(frame.read(bytes.subarray(0, -1), before)).toBe(false)
      }),
    )
  })

  it.each([
    ['another packet', [0xc0, 0x00]],
    ['QoS 3', [0x36, 5, 0, 1, 0x61, 0, 1]],
    ['DUP with QoS 0', [0x38, 3, 0, 1, 0x61]],
    ['packet id 0', [0x32, 5, 0, 1, 0x61, 0, 0]],
    ['a topic longer than its packet', [0x30, 3, 0, 9, 0x61]],
    ['a length of five bytes', [0x30, 0x80, 0x80, 0x80, 0x80, 0x01]],
    ['nothing', []],
  ])('is left to Aedes when it is not plain: %s', (_, bytes) => {
    expect(new PublishFrame().read(Buffer.from(bytes), 0)).toBe(false)
  })
})

describe('topics of a connection', () => {
  it('are found by their very bytes only, however many there are', () => {
    const topics = new KnownTopics()
    for (let n = 0; n < 1_000; n++) {
      const topic = `devices/press-${n}/telemetry`
      topics.add(topic, { kind: 'telemetry', device: `press-${n}`, metric: null })
      for (const asked of [n, n - 1, n >> 1, n + 1]) {
        const bytes = Buffer.from(`devices/press-${asked}/telemetry`)
        expect(topics.find(bytes, 0, bytes.length)?.route.device ?? `press-${asked}`).toBe(`press-${asked}`)
      }
    }
    topics.clear()
    const last = Buffer.from('devices/press-999/telemetry')
    expect(topics.find(last, 0, last.length)).toBe(null)
  })
})

describe('messages of one connection', () => {
  it('reach ingest in the order they were sent, whole, whatever is between them and however the bytes are cut [G1]', async () => {
    const step = fc.record({
      what: fc.constantFrom('known', 'known', 'known', 'other', 'new', 'ping', 'status', 'quality 2'),
      cut: fc.integer({ min: 1, max: 400 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 120 }), async steps => {
        const { broker, ingest } = await openBench()
        ingest.onOffer = () => setImmediate(() => ingest.settle())
        const client = await openClient(broker.port)
        const sent: string[] = []
        const packets = steps.map(({ what }, index) => {
          if (what === 'ping') return mqtt.generate({ cmd: 'pingreq' })
          const status = { topic: 'devices/press-17/status', payload: index % 2 === 0 ? 'online' : 'offline' }
          if (what === 'status') return mqtt.generate(publishPacket(index + 1, status))
          sent.push(`{"n":${index + 1}}`)
          const device = { known: 'press-17', other: 'press-18', new: `press-${index}`, 'quality 2': 'press-17' }[what]
          const qos = what === 'quality 2' ? 2 : 1
          return mqtt.generate(publishPacket(index + 1, { topic: `devices/${device}/telemetry`, qos }))
        })
        const bytes = Buffer.concat(packets)
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const length = steps[turn % steps.length]?.cut ?? 1
          client.socket.write(bytes.subarray(at, at + length))
          at += length
          if (turn % 3 === 0) await new Promise(resolve => setImmediate(resolve))
        }
        await ping(client)
        await until(() => ingest.offered.length >= sent.length)
        expect(ingest.offered.map(({ payload }) => payload.toString())).toEqual(sent)
        const ids = steps.flatMap(({ what }, index) => (what === 'ping' || what === 'quality 2' ? [] : [index + 1]))
        await until(() => acknowledged(client).length >= ids.length)
        expect(acknowledged(client)).toEqual(ids)
        await client.close()
      }),
      { numRuns: 25 },
    )
  })
})
