import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { registry } from '../../metrics.ts'
import { LIMITS } from '../../model/limits.ts'
import { until } from '../waits.ts'
import { acknowledged, connectPacket, openBench, openClient, openRaw, ping, publishPacket } from './harness.ts'

/** A fixed header that claims this many bytes to follow. */
function header(first: number, remaining: number): Buffer {
  const bytes = [first]
  do {
    bytes.push((remaining % 128) | (remaining >= 128 ? 0x80 : 0))
    remaining = Math.floor(remaining / 128)
  } while (remaining > 0)
  return Buffer.from(bytes)
}

async function refusals(reason: string): Promise<number> {
  const metric = await registry.getSingleMetric('telemetry_connections_refused_total')?.get()
  return metric?.values.find(value => value.labels.reason === reason)?.value ?? 0
}

const CLAIM = 256 * 1024 * 1024 - 1

describe('frame gate', () => {
  it('[G5] closes a hundred sockets that claim 256 MB before they ever authenticate, and keeps nothing of them', async () => {
    const { broker } = await openBench()
    const before = await refusals('packet_too_large')
    const memoryBefore = process.memoryUsage().rss
    const clients = await Promise.all(Array.from({ length: 100 }, () => openRaw(broker.port)))
    for (const client of clients) {
      client.socket.write(header(0x10, CLAIM))
      client.socket.write(Buffer.alloc(64 * 1024))
    }
    await Promise.all(clients.map(client => client.closed))
    await until(() => broker.connections === 0)
    expect((await refusals('packet_too_large')) - before).toBe(100)
    expect(process.memoryUsage().rss - memoryBefore).toBeLessThan(64 * 1024 * 1024)
  })

  it('takes a CONNECT of 64 KB and not a byte more', async () => {
    const { broker } = await openBench()
    const fill = (length: number) => connectPacket({ username: 'u', password: Buffer.alloc(length) })
    const overhead = mqtt.generate(fill(60_000)).length - 60_000
    const fits = await openRaw(broker.port)
    fits.send(fill(LIMITS.packetBytesMaxBeforeConnack - overhead))
    expect(await fits.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    const tooLong = await openRaw(broker.port)
    tooLong.send(fill(LIMITS.packetBytesMaxBeforeConnack - overhead + 1))
    await tooLong.closed
    expect(tooLong.received).toEqual([])
  })

  it('hands over 256 KB after CONNACK and not a byte more', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const overhead = mqtt.generate(publishPacket(1, { payload: Buffer.alloc(100_000) })).length - 100_000
    const payload = Buffer.alloc(LIMITS.packetBytesMax - overhead, 'x')
    client.send(publishPacket(1, { payload }))
    await until(() => ingest.held === 1)
    expect(ingest.offered[0]?.payload.equals(payload)).toBe(true)
    client.send(publishPacket(2, { payload: Buffer.alloc(LIMITS.packetBytesMax - overhead + 1) }))
    await until(() => ingest.held === 2)
    expect(ingest.offered[1]).toMatchObject({ reason: 'packet_too_large' })
  })

  it('closes a remaining length of more than four bytes', async () => {
    const { broker } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(Buffer.from([0x30, 0x80, 0x80, 0x80, 0x80, 0x01]))
    await client.closed
  })

  it.each([
    ['TLS', Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00])],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    ['a PUBLISH', mqtt.generate(publishPacket(1))],
  ])('closes a connection that opens with %s instead of CONNECT', async (_name, bytes) => {
    const { broker, ingest } = await openBench()
    const client = await openRaw(broker.port)
    client.socket.write(bytes)
    await client.closed
    expect(client.received).toEqual([])
    expect(ingest.offered).toEqual([])
  })

  it('understands packets that come one byte at a time', async () => {
    const { broker, ingest } = await openBench()
    const client = await openRaw(broker.port)
    const long = 'x'.repeat(200)
    const bytes = Buffer.concat([
      mqtt.generate(connectPacket()),
      mqtt.generate(publishPacket(1, { payload: long })),
      mqtt.generate({ cmd: 'pingreq' }),
      mqtt.generate(publishPacket(2, { payload: '' })),
    ])
    for (const byte of bytes) {
      client.socket.write(Buffer.from([byte]))
      await new Promise(resolve => setImmediate(resolve))
    }
    await until(() => ingest.held === 2)
    expect(ingest.offered.map(publish => publish.payload.toString())).toEqual([long, ''])
    ingest.settle()
    await until(() => acknowledged(client).length === 2)
  })

  it('keeps the order of what was pipelined behind CONNECT, in one segment or in many', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 60_000 })
    const client = await openRaw(broker.port)
    client.socket.write(
      Buffer.concat(
        [connectPacket(), ...Array.from({ length: 3_000 }, (_, i) => publishPacket(i + 1))].map(p => mqtt.generate(p)),
      ),
    )
    for (let id = 3_001; id <= 3_500; id++) client.send(publishPacket(id))
    await until(() => ingest.held === 3_500)
    expect(ingest.offered.map(publish => publish.held?.messageId)).toEqual(
      Array.from({ length: 3_500 }, (_, i) => i + 1),
    )
    ingest.settle()
    await until(() => acknowledged(client).length === 3_500)
    expect(client.received[0]).toMatchObject({ cmd: 'connack', returnCode: 0 })
  })

  it('lets PINGREQ and QoS 0 pass a full connection, up to the next message that must wait', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 2 })
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    client.send(publishPacket(2))
    client.send(publishPacket(0, { qos: 0 }))
    await ping(client)
    expect(ingest.offered).toHaveLength(3)
    client.send(publishPacket(3))
    client.send({ cmd: 'pingreq' })
    ingest.settle()
    await until(() => ingest.offered.length === 4)
    await client.count(5)
  })

  it('[MQTT-4.3.3-2] answers each PUBREL with PUBCOMP in order, also one that is cut anywhere or not known', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const bytes = Buffer.concat([
      mqtt.generate(publishPacket(1, { qos: 2 })),
      mqtt.generate({ cmd: 'pubrel', messageId: 1 }),
      mqtt.generate({ cmd: 'pubrel', messageId: 300 }),
      mqtt.generate(publishPacket(2, { qos: 2 })),
      mqtt.generate({ cmd: 'pingreq' }),
      mqtt.generate({ cmd: 'pubrel', messageId: 2 }),
    ])
    for (let cut = 1; cut < bytes.length; cut++) {
      client.socket.write(bytes.subarray(0, cut))
      await new Promise(resolve => setImmediate(resolve))
      client.socket.write(bytes.subarray(cut))
      await until(() => ingest.held === 2)
      ingest.settle()
      // Two PUBRECs, three PUBCOMPs and a PINGRESP each time.
      await client.count(1 + cut * 6)
    }
    const released = client.received.filter(packet => packet.cmd === 'pubcomp').map(packet => packet.messageId)
    expect(released).toEqual(Array.from({ length: bytes.length - 1 }, () => [1, 300, 2]).flat())
  })

  it.each([
    ['another length', [0x62, 3, 0, 1, 0]],
    ['other flags', [0x60, 2, 0, 1]],
    ['the packet identifier 0', [0x62, 2, 0, 0]],
  ])('[MQTT-3.6.1-1, MQTT-2.3.1-1] closes on a PUBREL with %s', async (_name, bytes) => {
    const { broker } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(Buffer.from(bytes))
    await client.closed
    expect(client.received.filter(packet => packet.cmd === 'pubcomp')).toEqual([])
  })
})
