/** Topics that mean something to a broker, or will: a message there is acknowledged, let go, and counted by name. */
import { describe, expect, it } from 'vitest'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, ping, publishPacket } from './harness.ts'

const TOPICS: [topic: string, reason: string][] = [
  ['$SYS/broker/connection/press.edge/state', 'reserved_sys'],
  ['$share/group/devices/press-17/telemetry', 'reserved_share'],
  ['devices/press-17/cmd/restart', 'reserved_cmd'],
  ['devices/press-17/reply/7', 'reserved_reply'],
  ['devices/press-17/state/desired', 'reserved_state'],
]

describe.each(TOPICS)('a message to %s', (topic, reason) => {
  it('is acknowledged at once and let go, at each quality of service', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(0, { topic, qos: 0 }))
    client.send(publishPacket(1, { topic }))
    client.send(publishPacket(2, { topic, qos: 2 }))
    client.send({ cmd: 'pubrel', messageId: 2 })
    await ping(client)
    expect(acknowledged(client)).toEqual([1])
    expect(acknowledged(client, 'pubrec')).toEqual([2])
    expect(acknowledged(client, 'pubcomp')).toEqual([2])
    expect(ingest.offered).toEqual([])
    await until(() => ingest.gone[reason] === 3)
  })

  it('is acknowledged and let go also when it is too large for anything else', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(1, { topic, payload: Buffer.alloc(400_000, 'x') }))
    await client.count(2)
    expect(acknowledged(client)).toEqual([1])
    expect(ingest.offered).toEqual([])
    await until(() => ingest.gone[reason] === 1)
  })

  it('is not acknowledged before what was sent before it [MQTT-4.6.0-2]', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    client.send(publishPacket(2, { topic }))
    client.send(publishPacket(3))
    await until(() => ingest.held === 2)
    await ping(client)
    expect(acknowledged(client)).toEqual([])
    ingest.settle()
    await client.count(5)
    expect(acknowledged(client)).toEqual([1, 2, 3])
  })
})
