/**
 * What is kept of a client with clean=0, over two brokers, a real Redis and a real Kafka: it is there at the other broker, after a
 * kill of its own one, and after Redis was emptied; a QoS 2 message that is sent again is stored once.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { acknowledged, connectPacket, openRaw, publishPacket, type RawClient } from '../broker/harness.ts'
import { kafkaHere } from '../servers/kafka-server.ts'
import { redisHere } from '../servers/redis-server.ts'
import { until } from '../waits.ts'
import { type Machines, type PartName, startMachines } from './fleet-of-processes.ts'

describe.skipIf(!kafkaHere || !redisHere)('the session of a client with clean=0', () => {
  let machines: Machines
  beforeAll(async () => {
    machines = await startMachines()
  })
  afterAll(() => machines.close())

  it('is present at the other broker, and after a kill of its own one [MQTT-3.2.2-2]', async () => {
    const first = await connectTo('broker-a', 'moves')
    expect(first.isPresent).toBe(false)
    const second = await connectTo('broker-b', 'moves')
    expect(second.isPresent).toBe(true)
    await first.client.closed
    await machines.killAndRestart('broker-b')
    expect((await connectTo('broker-a', 'moves')).isPresent).toBe(true)
  })

  it('ends with a CONNECT with clean=1 at any broker [MQTT-3.1.2-6]', async () => {
    await connectTo('broker-a', 'ends')
    expect((await connectTo('broker-b', 'ends', true)).isPresent).toBe(false)
    expect((await connectTo('broker-a', 'ends')).isPresent).toBe(false)
  })

  it('has its filters wherever it goes: those of one broker count in the bound of another', async () => {
    const { client } = await connectTo('broker-a', 'filters')
    const filters = Array.from({ length: 10 }, (_, n) => ({ topic: `devices/filters/cmd/${n}`, qos: 1 as const }))
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions: filters })
    expect(await client.next()).toMatchObject({ cmd: 'suback', granted: filters.map(() => 1) })
    await machines.killAndRestart('broker-a')
    const { client: moved, isPresent } = await connectTo('broker-b', 'filters')
    expect(isPresent).toBe(true)
    moved.send({ cmd: 'subscribe', messageId: 2, subscriptions: [{ topic: 'devices/filters/cmd/more', qos: 1 }] })
    expect(await moved.next()).toMatchObject({ cmd: 'suback', granted: [128] })
    moved.send({ cmd: 'subscribe', messageId: 3, subscriptions: [{ topic: 'devices/filters/cmd/3', qos: 1 }] })
    expect(await moved.next()).toMatchObject({ cmd: 'suback', granted: [1] })
  })

  it('knows a QoS 2 message that is sent again without a time, at the other broker [MQTT-4.3.3-2]', async () => {
    const { client } = await connectTo('broker-a', 'moved-twice')
    sendTwo(client, 'moved-twice', 1)
    await until(() => acknowledged(client, 'pubrec').length === 1)
    const { client: moved } = await connectTo('broker-b', 'moved-twice')
    await sendAgain(moved, 'moved-twice', 1)
    expect(await rowsOf('moved-twice', 1)).toBe(1)
  })

  it('knows it after a kill of the broker right behind its PUBREC, and takes a new one with its identifier [G1] [G2]', async () => {
    for (let round = 0; round < 5; round++) {
      const device = `killed-${round}`
      const { client } = await connectTo('broker-a', device)
      sendTwo(client, device, 1)
      await until(() => acknowledged(client, 'pubrec').length === 1)
      await machines.killAndRestart('broker-a')
      const { client: moved, isPresent } = await connectTo(round % 2 === 0 ? 'broker-b' : 'broker-a', device)
      expect(isPresent).toBe(true)
      await sendAgain(moved, device, 1)
      // The same words under the same identifier, after its PUBCOMP: another message, also when it is the first thing after a kill.
      await machines.killAndRestart(round % 2 === 0 ? 'broker-b' : 'broker-a')
      const { client: last } = await connectTo('broker-a', device)
      await sendAgain(last, device, 1)
      expect(await rowsOf(device, 2)).toBe(2)
    }
  })

  it('of a client that is connected is there again after Redis was emptied; one that was away gets "no session"', async () => {
    const { client: away } = await connectTo('broker-a', 'was-away')
    await away.close()
    const { client } = await connectTo('broker-a', 'stays')
    await machines.redis.command('FLUSHALL')
    expect((await connectTo('broker-b', 'was-away')).isPresent).toBe(false)
    await until(
      async () => ((await machines.redis.command('KEYS', '*stays*')) as string[]).length > 1,
      'it is there again',
    )
    await client.close()
    expect((await connectTo('broker-b', 'stays')).isPresent).toBe(true)
  })

  async function connectTo(
    broker: PartName,
    clientId: string,
    clean = false,
  ): Promise<{ client: RawClient; isPresent: boolean }> {
    const client = await openRaw(machines.mqttPortOf(broker))
    client.send(connectPacket({ clientId, clean }))
    const connack = await client.next()
    if (connack.cmd !== 'connack' || connack.returnCode !== 0) throw new Error(`refused: ${JSON.stringify(connack)}`)
    return { client, isPresent: connack.sessionPresent }
  }

  function sendTwo(client: RawClient, device: string, messageId: number, dup = false): void {
    const topic = `devices/${device}/telemetry`
    client.send(publishPacket(messageId, { topic, qos: 2, dup, payload: '{"open":1}' }))
  }

  /** As a client does whose PUBREC was lost: PUBLISH with DUP, PUBREC, PUBREL, PUBCOMP. */
  async function sendAgain(client: RawClient, device: string, messageId: number): Promise<void> {
    sendTwo(client, device, messageId, true)
    await until(() => acknowledged(client, 'pubrec').includes(messageId))
    client.send({ cmd: 'pubrel', messageId })
    await until(() => acknowledged(client, 'pubcomp').includes(messageId))
  }

  /** How many of its messages are stored, `least` at least, once one that came after them all is. */
  async function rowsOf(device: string, least: number): Promise<number> {
    const { client } = await connectTo('broker-a', `beside-${device}`, true)
    client.send(publishPacket(1, { topic: `devices/${device}/telemetry`, payload: '{"last":1}' }))
    await client.count(2)
    await until(async () => (await countOf(device, 'last')) === 1, `all of ${device} is stored`)
    await until(async () => (await countOf(device, 'open')) >= least, `${least} of ${device} are stored`)
    return countOf(device, 'open')
  }

  async function countOf(device: string, metric: string): Promise<number> {
    const body = `SELECT count() FROM telemetry.readings WHERE device = '${device}' AND metric = '${metric}'`
    const answer = await fetch(`http://127.0.0.1:${machines.ports.sql}/`, { method: 'POST', body })
    return Number(await answer.text())
  }
})
