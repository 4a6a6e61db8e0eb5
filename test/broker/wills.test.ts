/** Wills that are no presence: what is published when a connection ends without a DISCONNECT [MQTT-3.1.2-8]. */
import { describe, expect, it } from 'vitest'
import { until } from '../waits.ts'
import { type Bench, connectPacket, openBench, openClient, openRaw, ping, type RawClient } from './harness.ts'

const TOPIC = 'devices/press-17/telemetry'
const willOf = (payload: string | Buffer, topic = TOPIC, qos: 0 | 1 | 2 = 1) => ({
  topic,
  payload: Buffer.from(payload),
  qos,
  retain: true,
})

const lost: (keyof typeof ends)[] = [
  'a reset line',
  'a violation of MQTT',
  'a keepalive that ran out',
  'a take-over',
  'a stop',
]
const ends = {
  'a reset line': async (client: RawClient) => void client.socket.resetAndDestroy(),
  'a violation of MQTT': async (client: RawClient) => client.send(connectPacket({ clientId: 'gateway' })),
  'a keepalive that ran out': async () => {},
  'a take-over': async (_client: RawClient, { broker }: Bench) => {
    const next = await openClient(broker.port, { clientId: 'gateway' })
    await ping(next)
  },
  'a stop': async (_client: RawClient, { broker }: Bench) => {
    broker.stopReading()
    await broker.close()
  },
}

describe('a will on a telemetry topic', () => {
  it.each(lost)('is given to ingest once, whole, after %s', async how => {
    const bench = await openBench()
    const { broker, ingest, space } = bench
    const payload = Buffer.concat([Buffer.from('{"t":"'), Buffer.alloc(3_000, 'x'), Buffer.from('"}')])
    const client = await openClient(broker.port, { clientId: 'gateway', keepalive: 1, will: willOf(payload) })
    await ends[how](client, bench)
    await until(() => ingest.offered.length === 1)
    await client.closed
    await broker.close()
    expect(ingest.offered).toHaveLength(1)
    expect(ingest.offered[0]).toMatchObject({ device: 'press-17', metric: null, topic: TOPIC, held: null, packet: 0 })
    expect(ingest.offered[0]?.payload.equals(payload)).toBe(true)
    expect(space.online('press-17')).toBeUndefined()
  })

  it('is not published after a DISCONNECT [MQTT-3.14.4-3]', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port, { will: willOf('{"n":1}') })
    client.send({ cmd: 'disconnect' })
    await client.closed
    await until(() => broker.connections === 0)
    expect(ingest.offered).toEqual([])
  })

  it('is not published by a client that was refused', async () => {
    const { broker, ingest } = await openBench()
    const client = await openRaw(broker.port)
    client.send(connectPacket({ clientId: 'a\u0000b', will: willOf('{"n":1}') }))
    await client.closed
    await until(() => broker.connections === 0)
    expect(ingest.offered).toEqual([])
  })

  it('is dropped at QoS 0 while the log takes nothing, and waits at QoS 1 and 2 [G5]', async () => {
    const { broker, ingest } = await openBench()
    ingest.stalled = true
    for (const qos of [0, 1, 2] as const) {
      const client = await openClient(broker.port, { clientId: `c-${qos}`, will: willOf(`{"qos":${qos}}`, TOPIC, qos) })
      await client.close()
    }
    await until(() => ingest.gone.qos0_overload === 1)
    expect(ingest.offered).toEqual([])
    ingest.stalled = false
    await until(() => ingest.offered.length === 2)
    expect(ingest.offered.map(({ payload }) => payload.toString())).toEqual(['{"qos":1}', '{"qos":2}'])
  })

  it('waits for room up to four MiB of them, and what is beyond is counted [G5]', async () => {
    const { broker, ingest } = await openBench()
    ingest.stalled = true
    const will = willOf(Buffer.alloc(7_000, '1'))
    const clients = await Promise.all(
      Array.from({ length: 620 }, (_, n) => openClient(broker.port, { clientId: `c-${n}`, will })),
    )
    for (const client of clients) client.socket.resetAndDestroy()
    await until(() => broker.connections === 0)
    await until(() => (ingest.gone.will_overload ?? 0) > 0)
    ingest.stalled = false
    await until(() => ingest.offered.length > 0)
    await until(() => ingest.offered.length + (ingest.gone.will_overload ?? 0) === 620)
    expect(ingest.offered.length).toBe(Math.floor((4 * 1024 * 1024) / (7_000 + TOPIC.length)))
  })
})

describe('a will', () => {
  it.each([
    ['an unknown topic', 'site/press/17', 'unknown_topic'],
    ['a topic of two hundred levels', 'a/'.repeat(200), 'invalid_topic'],
    ['a status topic that says neither online nor offline', 'devices/press-17/status', 'invalid_status'],
  ])('on %s is refused with the reason of a PUBLISH there, and kept', async (_what, topic, reason) => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port, { clientId: 'gateway', will: willOf('gone fishing', topic) })
    await client.close()
    await until(() => ingest.offered.length === 1)
    expect(ingest.offered[0]).toMatchObject({ reason, held: null })
  })

  it.each([
    ['$SYS/broker/connection/edge/state', 'reserved_sys'],
    ['devices/press-17/cmd/x', 'reserved_cmd'],
  ])('on %s is let go and counted, and reaches nobody', async (topic, reason) => {
    const { broker, ingest } = await openBench()
    const listener = await openClient(broker.port)
    listener.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 'devices/press-17/cmd/#', qos: 0 }] })
    expect(await listener.next()).toMatchObject({ cmd: 'suback', granted: [0] })
    const client = await openClient(broker.port, { clientId: 'gateway', will: willOf('0', topic) })
    await client.close()
    await until(() => ingest.gone[reason] === 1)
    await ping(listener)
    expect(ingest.offered).toEqual([])
    expect(listener.received.map(packet => packet.cmd)).toEqual(['connack', 'suback', 'pingresp'])
  })
})
