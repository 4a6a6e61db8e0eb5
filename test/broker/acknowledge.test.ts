import { describe, expect, it } from 'vitest'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, ping, publishPacket } from './harness.ts'

describe('acknowledgement', () => {
  it('[G1] sends no PUBACK before the message is durable', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    await until(() => ingest.held === 1)
    await ping(client)
    expect(acknowledged(client)).toEqual([])
    ingest.settle()
    await until(() => acknowledged(client).length === 1)
    expect(acknowledged(client)).toEqual([1])
  })

  it('[G1] sends no PUBREC before the message is durable, and answers PUBREL with PUBCOMP', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(7, { qos: 2 }))
    await until(() => ingest.held === 1)
    await ping(client)
    expect(acknowledged(client, 'pubrec')).toEqual([])
    ingest.settle()
    await until(() => acknowledged(client, 'pubrec').length === 1)
    client.send({ cmd: 'pubrel', messageId: 7, qos: 1 } as never)
    await until(() => acknowledged(client, 'pubcomp').length === 1)
    expect(acknowledged(client, 'pubcomp')).toEqual([7])
    expect(ingest.offered).toHaveLength(1)
  })

  it('hands over device, metric, topic, payload, time of receipt and where it comes from', async () => {
    const { broker, ingest, setClock } = await openBench()
    setClock(1_763_640_000_000)
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    client.send(publishPacket(2, { topic: 'devices/press-18/telemetry/temperature', payload: '21.5' }))
    await until(() => ingest.held === 2)
    expect(ingest.offered.map(({ payload, held, ...rest }) => ({ ...rest, payload: payload.toString() }))).toEqual([
      {
        device: 'press-17',
        metric: null,
        topic: 'devices/press-17/telemetry',
        payload: '{"n":1}',
        receivedAt: 1_763_640_000_000,
        connection: expect.any(Number),
        packet: 1,
        dup: false,
        marksDup: false,
        mark: null,
      },
      {
        device: 'press-18',
        metric: 'temperature',
        topic: 'devices/press-18/telemetry/temperature',
        payload: '21.5',
        receivedAt: 1_763_640_000_000,
        connection: ingest.offered[0]?.connection,
        packet: 2,
        dup: false,
        marksDup: false,
        mark: null,
      },
    ])
  })

  it('acknowledges QoS 1 and 2 of one connection in the order of arrival, over many commits', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    for (let id = 1; id <= 200; id++) client.send(publishPacket(id, { qos: id % 3 === 0 ? 2 : 1 }))
    await until(() => ingest.held === 200)
    while (ingest.held > 0) ingest.settle(7)
    await client.count(201)
    expect(client.received.slice(1).map(packet => packet.messageId)).toEqual(
      Array.from({ length: 200 }, (_, i) => i + 1),
    )
  })

  it('writes all acknowledgements of a commit to a connection at once', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const chunks: number[] = []
    client.socket.on('data', bytes => chunks.push(bytes.length))
    for (let id = 1; id <= 50; id++) client.send(publishPacket(id))
    await until(() => ingest.held === 50)
    ingest.settle()
    await client.count(51)
    expect(chunks).toEqual([200])
  })

  it('keeps the acknowledgements of connections apart', async () => {
    const { broker, ingest } = await openBench()
    const one = await openClient(broker.port, { clientId: 'one' })
    const two = await openClient(broker.port, { clientId: 'two' })
    for (let id = 1; id <= 20; id++) {
      one.send(publishPacket(id))
      two.send(publishPacket(id + 100))
    }
    await until(() => ingest.held === 40)
    ingest.settle()
    await Promise.all([one.count(21), two.count(21)])
    expect(acknowledged(one)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
    expect(acknowledged(two)).toEqual(Array.from({ length: 20 }, (_, i) => i + 101))
  })

  it('takes QoS 0 without an answer, and drops it under pressure', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(0, { qos: 0, payload: 'kept' }))
    await ping(client)
    ingest.press(true)
    client.send(publishPacket(0, { qos: 0, payload: 'dropped' }))
    await ping(client)
    ingest.settle()
    await ping(client)
    expect(ingest.offered.map(publish => publish.payload.toString())).toEqual(['kept'])
    expect(client.received.map(packet => packet.cmd)).toEqual(['connack', 'pingresp', 'pingresp', 'pingresp'])
    await broker.close()
    expect(ingest.gone).toEqual({ qos0_overload: 1 })
  })

  it('drops QoS 0 while the log takes nothing, and still reads what must be acknowledged', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    ingest.stalled = true
    client.send(publishPacket(0, { qos: 0, payload: 'dropped' }))
    client.send(publishPacket(1, { payload: 'kept' }))
    await ping(client)
    expect(ingest.offered.map(publish => publish.payload.toString())).toEqual(['kept'])
  })

  it('acknowledges a status message at once, but never before an earlier reading', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    const status = { topic: 'devices/press-17/status', payload: 'online' }
    client.send(publishPacket(1, status))
    await client.count(2)
    client.send(publishPacket(2))
    client.send(publishPacket(3, status))
    client.send(publishPacket(4, status))
    client.send(publishPacket(5))
    await until(() => ingest.held === 2)
    await ping(client)
    expect(acknowledged(client)).toEqual([1])
    ingest.settle(1)
    await until(() => acknowledged(client).length === 4)
    ingest.settle(1)
    await until(() => acknowledged(client).length === 5)
    expect(acknowledged(client)).toEqual([1, 2, 3, 4, 5])
  })

  it('closes a peer that never reads its acknowledgements, and goes on for the others', async () => {
    const { broker, ingest } = await openBench()
    const deaf = await openClient(broker.port, { clientId: 'deaf' })
    const other = await openClient(broker.port, { clientId: 'other' })
    deaf.socket.pause()
    deaf.send(publishPacket(1))
    await until(() => ingest.held === 1)
    // What an hour of unread acknowledgements comes to. The kernel takes the first megabytes.
    for (let round = 0; round < 20 && broker.connections === 2; round++) {
      ingest.settleOverAndOver(100_000)
      await new Promise(resolve => setImmediate(resolve))
    }
    expect(broker.connections).toBe(1)
    ingest.settle()
    other.send(publishPacket(1))
    await until(() => ingest.held === 1)
    ingest.settle()
    await until(() => acknowledged(other).length === 1)
  })
})
