/** Each way in which holding a PUBACK over Aedes was seen to go wrong, and each hostile input that it lets through. */
import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { registry } from '../../metrics.ts'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, openRaw, ping, publishPacket } from './harness.ts'

const pubrel = (messageId: number) => ({ cmd: 'pubrel', messageId, qos: 1 }) as unknown as mqtt.IPubrelPacket

describe('holding acknowledgements', () => {
  it('bounds a device that sends one packet per segment, where the gate of Aedes leaks', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 20 })
    const client = await openClient(broker.port)
    const other = await openClient(broker.port, { clientId: 'other' })
    for (let id = 1; id <= 500; id++) {
      client.send(publishPacket(id))
      await new Promise(resolve => setImmediate(resolve))
    }
    await ping(other)
    expect(ingest.held).toBe(20)
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    ingest.settle()
    await until(() => acknowledged(client).length === 500)
  })

  it('is not stuck when a connection was stopped with messages outstanding and all of them settle at once', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 10 })
    const client = await openClient(broker.port)
    for (let round = 0; round < 30; round++) {
      const burst = Array.from({ length: 25 }, (_, i) => mqtt.generate(publishPacket(round * 25 + i + 1)))
      client.socket.write(Buffer.concat(burst))
      await until(() => ingest.held === 10)
      while (acknowledged(client).length < (round + 1) * 25) {
        ingest.settle()
        await new Promise(resolve => setImmediate(resolve))
      }
    }
    await ping(client)
  })

  it('offers a repeated QoS 1 or 2 message again and acknowledges each', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    client.send(publishPacket(1, { dup: true }))
    client.send(publishPacket(2, { qos: 2 }))
    client.send(publishPacket(2, { qos: 2, dup: true }))
    await until(() => ingest.held === 4)
    ingest.settle()
    await client.count(5)
    expect(acknowledged(client)).toEqual([1, 1])
    expect(acknowledged(client, 'pubrec')).toEqual([2, 2])
  })

  it('[G1] sends no PUBREC for a QoS 2 message that is repeated after a reconnect while nothing is durable', async () => {
    const { broker, ingest } = await openBench()
    const before = await openClient(broker.port, { clean: false })
    before.send(publishPacket(9, { qos: 2 }))
    await until(() => ingest.held === 1)
    await before.close()
    const after = await openClient(broker.port, { clean: false })
    after.send(publishPacket(9, { qos: 2, dup: true }))
    await until(() => ingest.held === 2)
    await ping(after)
    expect(acknowledged(after, 'pubrec')).toEqual([])
    ingest.settle(1)
    await ping(after)
    expect(acknowledged(after, 'pubrec')).toEqual([])
    ingest.settle(1)
    await until(() => acknowledged(after, 'pubrec').length === 1)
  })

  it('keeps the connection and the acknowledgements of others when a message is bad', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    client.send(publishPacket(2, { topic: 'nowhere' }))
    client.send(publishPacket(3))
    await until(() => ingest.held === 3)
    ingest.settle()
    await client.count(4)
    expect(acknowledged(client)).toEqual([1, 2, 3])
    expect(ingest.offered.map(publish => publish.reason)).toEqual([undefined, 'unknown_topic', undefined])
  })

  it('raises no error per held message when their client has gone, and acknowledges nobody else for it', async () => {
    const { broker, ingest, lines } = await openBench()
    const gone = await openClient(broker.port)
    for (let id = 1; id <= 200; id++) gone.send(publishPacket(id))
    await until(() => ingest.held === 200)
    await gone.close()
    await until(() => broker.connections === 0)
    const again = await openClient(broker.port)
    ingest.settle()
    await ping(again)
    expect(acknowledged(again)).toEqual([])
    expect(lines).toEqual([])
  })

  it('keeps and delivers nothing that is retained or published, to nobody', async () => {
    const { broker, ingest } = await openBench()
    const topic = 'devices/press-17/cmd/restart'
    const subscriber = await openClient(broker.port)
    const publisher = await openClient(broker.port, { clientId: 'other' })
    publisher.send(publishPacket(1, { topic, retain: true }))
    publisher.send(publishPacket(2, { retain: true }))
    await until(() => ingest.held === 1)
    ingest.settle()
    await publisher.count(3)
    subscriber.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic, qos: 1 }] })
    expect(await subscriber.next()).toMatchObject({ cmd: 'suback', granted: [1] })
    publisher.send(publishPacket(3, { topic }))
    await publisher.count(4)
    expect(ingest.offered).toHaveLength(1)
    await ping(subscriber)
    expect(subscriber.received.map(packet => packet.cmd)).toEqual(['connack', 'suback', 'pingresp'])
  })

  it('takes any number of QoS 2 messages whose PUBREL never comes', async () => {
    const { broker, ingest } = await openBench()
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    const client = await openClient(broker.port)
    for (let id = 1; id <= 3_000; id++) client.send(publishPacket(id, { qos: 2 }))
    await until(() => acknowledged(client, 'pubrec').length === 3_000)
    for (const id of [1, 1, 1, 40_000]) client.send(pubrel(id))
    await until(() => acknowledged(client, 'pubcomp').length === 4)
  })

  it('takes a new QoS 2 message under an identifier that an earlier session left open', async () => {
    const { broker, ingest } = await openBench()
    for (let session = 1; session <= 3; session++) {
      const client = await openClient(broker.port)
      client.send(publishPacket(5, { qos: 2, payload: `${session}` }))
      await until(() => ingest.held === 1)
      ingest.settle()
      await until(() => acknowledged(client, 'pubrec').length === 1)
      await client.close()
    }
    expect(ingest.offered.map(publish => publish.payload.toString())).toEqual(['1', '2', '3'])
  })
})

describe('hostile input', () => {
  it.each([0, 1, 2] as const)(
    'refuses odd topics of QoS %i through ingest, keeps the connection and acknowledges',
    async qos => {
      const { broker, ingest } = await openBench()
      const client = await openClient(broker.port)
      const topics = [
        'nowhere',
        'devices/a\u200bb/telemetry',
        'devices/d/telemetry/',
        'devices/d/tele\u0000metry',
        'x/'.repeat(20),
      ]
      topics.push('devices/d/telemetry/\ud800', `devices/d/telemetry/${'m'.repeat(600)}`, '$unknown/g/x')
      topics.forEach((topic, i) => void client.socket.write(rawPublish(Buffer.from(topic), qos, i + 1)))
      await ping(client)
      ingest.settle()
      await ping(client)
      expect(ingest.offered.map(publish => publish.reason)).toEqual([
        'unknown_topic',
        'invalid_device',
        'invalid_metric',
        'invalid_topic',
        'invalid_topic',
        'invalid_topic',
        'invalid_topic',
        'unknown_topic',
      ])
      const kind = qos === 1 ? 'puback' : 'pubrec'
      expect(acknowledged(client, kind)).toEqual(qos === 0 ? [] : [1, 2, 3, 4, 5, 6, 7, 8])
    },
  )

  it('keeps of a topic that is too long its beginning, and how long it was', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(mqtt.generate(publishPacket(1, { topic: 'x'.repeat(65_000) })))
    await until(() => ingest.held === 1)
    expect(ingest.offered[0]).toMatchObject({ reason: 'invalid_topic', topic: 'x'.repeat(512) })
    expect(ingest.offered[0]?.detail).toContain('65000')
  })

  it('refuses a topic of hundreds of levels through ingest, and subscriptions to it, and closes no connection', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const deep = 'a/'.repeat(500)
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: `devices/press-17/cmd/${deep}x`, qos: 1 }] })
    client.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: [`devices/press-17/cmd/${deep}x`] })
    client.socket.write(rawPublish(Buffer.from(deep), 1, 3))
    await until(() => ingest.held === 1)
    expect(ingest.offered[0]).toMatchObject({ reason: 'invalid_topic' })
    ingest.settle()
    await until(() => acknowledged(client).includes(3))
    expect(client.received).toContainEqual(expect.objectContaining({ cmd: 'suback', granted: [128] }))
  })

  it('refuses a topic of ill-formed UTF-8 through ingest', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(rawPublish(Buffer.from([...Buffer.from('devices/d/telemetry/'), 0xff, 0xc0]), 1, 1))
    await until(() => ingest.held === 1)
    expect(ingest.offered[0]).toMatchObject({ reason: 'invalid_topic', device: '' })
  })

  it.each([
    ['the identifier 0', rawPublish(Buffer.from('devices/d/telemetry'), 1, 0)],
    ['the identifier 0 at QoS 2', rawPublish(Buffer.from('devices/d/telemetry'), 2, 0)],
    ['no identifier at all', Buffer.from([0x32, 3, 0, 1, 0x78])],
    ['no identifier, with another packet behind', Buffer.from([0x32, 3, 0, 1, 0x78, 0xc0, 0, 0xc0, 0])],
    ['QoS 3', Buffer.from([0x36, 5, 0, 1, 0x78, 0, 1])],
    ['an empty topic', Buffer.from([0x30, 2, 0, 0])],
    ['a topic longer than the packet', Buffer.from([0x30, 4, 0, 9, 0x78, 0x78])],
    ['a wildcard', rawPublish(Buffer.from('devices/+/telemetry'), 1, 1)],
  ])('closes the connection of a PUBLISH with %s, and no other', async (_what, bytes) => {
    const { broker, ingest } = await openBench()
    const other = await openClient(broker.port, { clientId: 'other' })
    const client = await openClient(broker.port)
    client.socket.write(bytes)
    await client.closed
    expect(ingest.offered).toEqual([])
    await ping(other)
  })

  it('does not look at what follows a violation in the same bytes', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const bad = rawPublish(Buffer.from('devices/d/telemetry'), 1, 0)
    client.socket.write(Buffer.concat([mqtt.generate(publishPacket(1)), bad, mqtt.generate(publishPacket(2))]))
    await client.closed
    expect(ingest.offered).toHaveLength(1)
  })

  it.each(['constructor', '__proto__', 'toString'])('takes %s as client id, device and metric', async name => {
    const { broker, ingest, space } = await openBench()
    space.known.add(name)
    const client = await openClient(broker.port, { clientId: name })
    client.send(publishPacket(1, { topic: `devices/${name}/telemetry/${name}` }))
    client.send({ cmd: 'subscribe', messageId: 2, subscriptions: [{ topic: name, qos: 0 }] })
    client.send({ cmd: 'unsubscribe', messageId: 3, unsubscriptions: [name, `${name}/#`] })
    await until(() => ingest.held === 1)
    ingest.settle()
    await client.count(4)
    await until(() => space.online(name) === true)
  })

  it.each([
    ['a second CONNECT', mqtt.generate({ cmd: 'connect', clientId: 'x', protocolVersion: 4, protocolId: 'MQTT' })],
    ['a CONNACK', mqtt.generate({ cmd: 'connack', returnCode: 0, sessionPresent: false })],
    ['a SUBSCRIBE without topics', Buffer.from([0x82, 2, 0, 1])],
    ['a PINGREQ with flags', Buffer.from([0xc1, 0])],
    ['packet type 0', Buffer.from([0x00, 0])],
    ['packet type 15', Buffer.from([0xf0, 0])],
  ])('closes a connection that sends %s', async (_what, bytes) => {
    const { broker } = await openBench()
    const client = await openClient(broker.port)
    client.socket.write(bytes)
    await client.closed
  })

  it('writes a few log lines for hundreds of hostile connections, and counts them all', async () => {
    const { broker, lines } = await openBench()
    const count = async () =>
      (await registry.getSingleMetric('telemetry_connections_refused_total')?.get())?.values ?? []
    const refused = async () => (await count()).find(value => value.labels.reason === 'not_mqtt')?.value ?? 0
    const before = await refused()
    for (let i = 0; i < 200; i++) {
      const client = await openRaw(broker.port)
      client.socket.write('GET / HTTP/1.1\r\n\r\n')
      await client.closed
    }
    expect((await refused()) - before).toBe(200)
    expect(lines.length).toBeLessThan(20)
  })
})

/** A PUBLISH as bytes, also of a topic or an identifier that a careful generator refuses. */
function rawPublish(topic: Buffer, qos: 0 | 1 | 2, messageId: number, payload = '1'): Buffer {
  const identifier = qos === 0 ? [] : [messageId >> 8, messageId & 0xff]
  const body = Buffer.concat([
    Buffer.from([topic.length >> 8, topic.length & 0xff]),
    topic,
    Buffer.from(identifier),
    Buffer.from(payload),
  ])
  const length = body.length < 128 ? [body.length] : [(body.length % 128) | 0x80, body.length >> 7]
  return Buffer.concat([Buffer.from([0x30 | (qos << 1), ...length]), body])
}
