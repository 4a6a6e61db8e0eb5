/** A PUBLISH of more than a packet may have: quarantined with its size, acknowledged, and never in memory. */
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { FixedHeader } from '../../broker/frame-header.ts'
import { OversizedFrame } from '../../broker/oversized-frame.ts'
import { keptTopic } from '../../broker/topics.ts'
import { LIMITS } from '../../model/limits.ts'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, ping, publishPacket, type RawClient } from './harness.ts'

const MIB = 1024 * 1024

function large(messageId: number, bytes: number, packet: Partial<mqtt.IPublishPacket> = {}): mqtt.IPublishPacket {
  return publishPacket(messageId, { payload: Buffer.alloc(bytes, `<${messageId}>`), ...packet })
}

function drained(socket: Socket): Promise<void> {
  return new Promise(resolve => void socket.write('', () => resolve()))
}

/** Everything that a PUBLISH of these bytes of payload says before its payload. */
function headOf(messageId: number, bytes: number): Buffer {
  const whole = mqtt.generate(large(messageId, bytes))
  return whole.subarray(0, whole.length - bytes)
}

function withoutIdentifier(bytes: number): Buffer {
  const packet = mqtt.generate(large(1, bytes))
  packet.writeUInt16BE(0, packet.length - bytes - 2)
  return packet
}

describe('an oversized PUBLISH', () => {
  it.each([0, 1, 2] as const)(
    'of QoS %i is quarantined with its beginning and its size, and what follows is stored',
    async qos => {
      const { broker, ingest } = await openBench()
      const client = await openClient(broker.port)
      const packet = large(7, 3 * MIB, { qos })
      client.send(publishPacket(1))
      client.send(packet)
      client.send(publishPacket(2))
      await until(() => ingest.held === 3)
      const [before, oversized, after] = ingest.offered
      expect([before?.payload.toString(), after?.payload.toString()]).toEqual(['{"n":1}', '{"n":2}'])
      expect(oversized).toMatchObject({
        device: 'press-17',
        topic: packet.topic,
        reason: 'packet_too_large',
        payloadBytes: 3 * MIB,
      })
      expect(oversized?.payload).toEqual((packet.payload as Buffer).subarray(0, 1024))
      expect(oversized?.detail).toContain(String(mqtt.generate(packet).length))
      ingest.settle()
      await until(() => acknowledged(client).length + acknowledged(client, 'pubrec').length === (qos === 0 ? 2 : 3))
      const answers = client.received.filter(({ cmd }) => cmd !== 'connack').map(({ messageId }) => messageId)
      expect(answers).toEqual(qos === 0 ? [1, 2] : [1, 7, 2])
    },
  )

  it('is taken whatever the cuts: its header byte by byte, the rest in pieces', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    for (const cut of [1, 2, 3, 4, 5, 7, 20, 33, 34, 35, 36, 40, 1_060, 1_061, 200_000]) {
      const bytes = Buffer.concat([
        mqtt.generate(publishPacket(1)),
        mqtt.generate(large(2, 300_000)),
        mqtt.generate(publishPacket(3)),
      ])
      const at = mqtt.generate(publishPacket(1)).length + cut
      client.socket.write(bytes.subarray(0, at))
      await drained(client.socket)
      await new Promise(resolve => setImmediate(resolve))
      client.socket.write(bytes.subarray(at))
      await until(() => ingest.held === 3)
      ingest.settle()
    }
    const { offered } = ingest
    expect(offered.map(({ reason }) => reason ?? 'stored')).toEqual(
      new Array(15).fill(['stored', 'packet_too_large', 'stored']).flat(),
    )
    expect(
      offered.every(({ reason, payload }) => reason === undefined || payload.toString().startsWith('<2><2>')),
    ).toBe(true)
  })

  it.each([
    ['an unknown topic', 'factory/press-17', { device: '', topic: 'factory/press-17' }],
    ['a status topic', 'devices/press-18/status', { device: 'press-18', topic: 'devices/press-18/status' }],
    ['a metric', 'devices/press-18/telemetry/blob', { device: 'press-18' }],
    ['a topic of 60,000 bytes', 'ü'.repeat(30_000), { device: '', topic: 'ü'.repeat(LIMITS.topicBytesMax / 2) }],
  ])('to %s is quarantined as well', async (_what, topic, kept) => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(large(1, 400_000, { topic }))
    await until(() => ingest.held === 1)
    expect(ingest.offered[0]).toMatchObject({ reason: 'packet_too_large', payloadBytes: 400_000, ...kept })
    ingest.settle()
    await until(() => acknowledged(client).length === 1)
  })

  it.each([
    ['a wildcard in its topic', mqtt.generate(large(1, 300_000, { topic: 'devices/+' })), 'protocol'],
    ['the packet identifier 0', withoutIdentifier(300_000), 'message_id'],
  ])('with %s closes the connection, as a smaller one does', async (_what, bytes, reason) => {
    const { broker, ingest, lines } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(bytes)
    await client.closed
    expect(ingest.offered).toEqual([])
    expect(lines.some(line => line.includes(`"reason":"${reason}"`))).toBe(true)
  })

  it('[G5] counts as one in flight from its header on, and waits for room as any other', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 2 })
    const client = await openClient(broker.port)
    for (let id = 1; id <= 5; id++) client.send(large(id, 300_000))
    await until(() => ingest.held === 2)
    await ping(await openClient(broker.port, { clientId: 'press-18' }))
    expect(ingest.offered).toHaveLength(2)
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    ingest.settle()
    await until(() => acknowledged(client).length === 5)
    expect(acknowledged(client)).toEqual([1, 2, 3, 4, 5])
  })

  it('beyond 8 MiB closes the connection at its header, with a line that names the client and the size', async () => {
    const { broker, ingest, lines } = await openBench()
    const most = LIMITS.oversizedBytesMax - headOf(1, 8 * MIB - 100).length
    const client = await openClient(broker.port)
    client.send(large(1, most))
    await until(() => ingest.held === 1)
    client.socket.write(headOf(2, most + 1))
    await client.closed
    const line = lines.find(written => written.includes('packet_too_large')) ?? '{}'
    expect(JSON.parse(line)).toMatchObject({ reason: 'packet_too_large', client: 'press-17' })
    expect(line).toContain(String(LIMITS.oversizedBytesMax + 1))
    expect(ingest.offered).toHaveLength(1)
  })

  it('of another type closes the connection beyond 16 KiB', async () => {
    const { broker, lines } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(Buffer.from([0x82, 0x80, 0x80, 0x01]))
    await client.closed
    expect(lines.find(line => line.includes('packet_too_large'))).toContain('"client":"press-17"')
  })

  it('costs nothing while it comes: a thousand at a time, each in the middle of 8 MiB [G5]', async () => {
    const { broker, ingest } = await openBench()
    const clients: RawClient[] = []
    for (let n = 0; n < 1_000; n += 50) {
      const group = Array.from({ length: 50 }, (_, i) => openClient(broker.port, { clientId: `press-${n + i}` }))
      clients.push(...(await Promise.all(group)))
    }
    const bytes = 8 * MIB - 1_000
    const before = held()
    // 256 MiB in all; both ends are in this process.
    await sendAll(clients, Buffer.concat([headOf(1, bytes), Buffer.alloc(128 * 1024)]))
    await sendAll(clients, Buffer.alloc(128 * 1024))
    await until(() => clients.every(({ socket }) => socket.writableLength === 0))
    expect(held() - before).toBeLessThan(64 * MIB)
    await sendAll(clients.slice(0, 3), Buffer.alloc(bytes - 256 * 1024))
    await until(() => ingest.held === 3)
  })
})

describe('the frame of an oversized PUBLISH', () => {
  it('tells of progress once for each 64 KiB that came, and not of a byte now and then', () => {
    const frame = new OversizedFrame(0x30, 5, 8 * MIB)
    expect(frame.take(Buffer.from([0, 1, 0x61]), 0)).toBe(3)
    for (let n = 3; n < 64 * 1024 - 1; n++) frame.take(Buffer.alloc(1), 0)
    expect(frame.hasProgress()).toBe(false)
    frame.take(Buffer.alloc(1), 0)
    expect([frame.hasProgress(), frame.hasProgress()]).toEqual([true, false])
    frame.take(Buffer.alloc(200_000), 0)
    expect([frame.hasProgress(), frame.hasProgress()]).toEqual([true, false])
  })

  it('is malformed when its topic or its identifier goes on behind it', () => {
    for (const [first, length, isMalformed] of [
      [0x30, 65_537, false],
      [0x30, 65_536, true],
      [0x32, 65_539, false],
      [0x32, 65_538, true],
    ] as const) {
      const frame = new OversizedFrame(first, 4, length)
      frame.take(Buffer.from([0xff]), 0)
      expect(frame.isMalformed).toBe(false)
      frame.take(Buffer.from([0xff]), 0)
      expect(frame.isMalformed).toBe(isMalformed)
    }
  })

  it('keeps the same however it is cut, and no byte of what follows', () => {
    const packets = fc.record({
      topic: fc.string({ unit: 'grapheme', maxLength: 400 }),
      payload: fc.uint8Array({ maxLength: 3_000 }),
      qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
      cuts: fc.array(fc.nat(4_000), { maxLength: 8 }),
    })
    fc.assert(
      fc.property(packets, ({ topic, payload, qos, cuts }) => {
        fc.pre(topic !== '' && Buffer.byteLength(topic) < 4_000)
        const bytes = mqtt.generate(publishPacket(7, { topic, payload: Buffer.from(payload), qos }))
        const header = new FixedHeader()
        header.read(bytes, 0)
        const frame = new OversizedFrame(header.first, header.bodyAt, header.length)
        const body = Buffer.concat([bytes.subarray(header.bodyAt), Buffer.from('next')])
        let at = 0
        for (const cut of [...cuts.toSorted((a, b) => a - b), body.length]) {
          if (cut > at && !frame.isWhole) at += frame.take(body.subarray(at, cut), 0)
        }
        expect([at, frame.isWhole, frame.isMalformed]).toEqual([body.length - 4, true, false])
        expect([frame.messageId, frame.payloadBytes, frame.packetBytes]).toEqual([
          qos === 0 ? 0 : 7,
          payload.length,
          bytes.length,
        ])
        expect(frame.payload).toEqual(Buffer.from(payload.subarray(0, 1_024)))
        expect(frame.topic).toBe(keptTopic(topic))
      }),
    )
  })
})

async function sendAll(clients: readonly RawClient[], bytes: Buffer): Promise<void> {
  await Promise.all(clients.map(({ socket }) => new Promise(resolve => void socket.write(bytes, resolve))))
}

/** Bytes of buffers that are in use. */
function held(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().arrayBuffers
}
