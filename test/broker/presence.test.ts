import type { PublishPacket } from 'aedes'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { openAcknowledger } from '../../broker/acknowledge.ts'
import { openPresence } from '../../broker/presence.ts'
import { openPublishing } from '../../broker/publish.ts'
import { openSampledLog } from '../../broker/sampled-log.ts'
import { registry } from '../../metrics.ts'
import { until } from '../waits.ts'
import {
  type HandIngest,
  openBench,
  openClient,
  openHandIngest,
  openHandSpace,
  openRaw,
  ping,
  publishPacket,
} from './harness.ts'

const DEVICE = 'press-17'
const status = (payload: string, device = DEVICE) => ({ topic: `devices/${device}/status`, payload, qos: 0 as const })
const will = (payload: string, topic = `devices/${DEVICE}/status`) => ({
  topic,
  payload: Buffer.from(payload),
  qos: 1 as const,
})

async function ignored(reason: string): Promise<number> {
  const metric = await registry.getSingleMetric('telemetry_presence_ignored_total')?.get()
  return metric?.values.find(value => value.labels.reason === reason)?.value ?? 0
}

/** As a real space: it knows a device from its first message on. */
function learnDevices(ingest: HandIngest, known: Set<string>): void {
  ingest.onOffer = publish => void known.add(publish.device)
}

describe('presence', () => {
  it('marks a device online from its first reading, and offline when its connection ends', async () => {
    const { broker, space } = await openBench()
    const client = await openClient(broker.port, { clientId: 'gateway' })
    await ping(client)
    expect(space.online(DEVICE)).toBe(undefined)
    client.send(publishPacket(1))
    await until(() => space.online(DEVICE) === true)
    await client.reset()
    await until(() => space.online(DEVICE) === false)
  })

  it('tells the space once, however many readings a device sends, and however its topics alternate', async () => {
    const { broker, space, ingest } = await openBench()
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    const client = await openClient(broker.port, { clientId: 'gateway' })
    for (let round = 1; round <= 3; round++) {
      for (let id = 1; id <= 100; id++) client.send(publishPacket(id, { topic: `devices/press-${id % 2}/telemetry` }))
      client.send(publishPacket(101, { topic: `devices/marker-${round}/telemetry` }))
      await until(() => space.online(`marker-${round}`) === true)
    }
    const told = space.changes.map(change => change.device).sort()
    expect(told).toEqual(['gateway', 'marker-1', 'marker-2', 'marker-3', 'press-0', 'press-1'])
  })

  it('marks the device of a client id online when it connects, whether the space knows it yet or not', async () => {
    const { broker, space } = await openBench()
    await openClient(broker.port)
    await until(() => space.online(DEVICE) === true)
  })

  it('marks every device of a gateway offline when its connection ends', async () => {
    const { broker, space } = await openBench()
    const gateway = await openClient(broker.port, { clientId: 'gateway' })
    for (let id = 1; id <= 50; id++) gateway.send(publishPacket(id, { topic: `devices/press-${id}/telemetry` }))
    await until(() => space.online('press-50') === true)
    await gateway.reset()
    await until(() =>
      Array.from({ length: 50 }, (_, i) => space.online(`press-${i + 1}`)).every(online => online === false),
    )
  })

  it('keeps a device online while another connection holds it', async () => {
    const { broker, space } = await openBench()
    const topic = `devices/${DEVICE}/telemetry`
    const one = await openClient(broker.port, { clientId: 'gateway-1' })
    const two = await openClient(broker.port, { clientId: 'gateway-2' })
    one.send(publishPacket(1, { topic }))
    two.send(publishPacket(1, { topic }))
    await until(() => space.online(DEVICE) === true)
    await ping(two)
    await one.reset()
    await until(() => broker.connections === 1)
    // Changes are told in order, so what came before this one has been told too.
    two.send(publishPacket(2, { topic: 'devices/marker/telemetry' }))
    await until(() => space.online('marker') === true)
    expect(space.online(DEVICE)).toBe(true)
    await two.reset()
    await until(() => space.online(DEVICE) === false)
  })

  it('leaves a device online after a takeover, whose old session had a will, at a clock that stands still', async () => {
    const { broker, space, setClock, ingest } = await openBench()
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    setClock(1_763_640_000_000)
    let client = await openClient(broker.port, { will: will('offline') })
    client.send(publishPacket(1))
    await until(() => space.online(DEVICE) === true)
    for (let round = 0; round < 6; round++) {
      const next = await openRaw(broker.port)
      next.send({
        cmd: 'connect',
        clientId: DEVICE,
        protocolId: 'MQTT',
        protocolVersion: 4,
        clean: true,
        keepalive: 60,
        will: will('offline'),
      })
      await client.closed
      await next.next()
      await ping(next)
      await until(() => space.online(DEVICE) === true)
      client = next
    }
    await until(() => broker.connections === 1)
    client.send(publishPacket(2, { topic: 'devices/marker/telemetry' }))
    await until(() => space.online('marker') === true)
    expect(space.online(DEVICE)).toBe(true)
    await client.reset()
    await until(() => space.online(DEVICE) === false)
  })

  it('leaves a device online that came back within a millisecond of its will', async () => {
    const { broker, space, setClock, ingest } = await openBench()
    learnDevices(ingest, space.known)
    for (let ms = 1; ms <= 10; ms++) {
      setClock(1_763_640_000_000 + ms)
      const client = await openClient(broker.port, { will: will('offline') })
      client.send(publishPacket(1))
      await until(() => space.online(DEVICE) === true)
      await client.reset()
      await until(() => space.online(DEVICE) === false)
    }
    const times = space.changes.map(change => change.at)
    expect(new Set(times).size).toBe(times.length)
    expect(times).toEqual([...times].sort((a, b) => a - b))
  })

  it('takes a will on a status topic for presence, of another device too', async () => {
    const { broker, space, ingest } = await openBench()
    const gateway = await openClient(broker.port, { clientId: 'gateway', will: will('{"state":"offline"}') })
    gateway.send(publishPacket(1, { topic: 'devices/other/telemetry' }))
    await until(() => space.online('other') === true)
    await gateway.reset()
    await until(() => space.online(DEVICE) === false)
    expect(ingest.offered).toHaveLength(1)
  })

  it('publishes no will after a DISCONNECT, but the devices are offline all the same', async () => {
    const { broker, space } = await openBench()
    const client = await openClient(broker.port, { will: will('offline', 'devices/other/status') })
    client.send(publishPacket(1))
    await until(() => space.online(DEVICE) === true)
    client.send({ cmd: 'disconnect' })
    await until(() => space.online(DEVICE) === false)
    expect(space.online('other')).toBe(undefined)
  })

  it('takes no news from a will that says online', async () => {
    const { broker, space, ingest } = await openBench()
    const before = await ignored('will')
    const client = await openClient(broker.port, { clientId: 'other', will: will('online') })
    await client.reset()
    await until(async () => (await ignored('will')) === before + 1)
    expect(ingest.offered).toEqual([])
    expect(space.online(DEVICE)).toBeUndefined()
  })

  it('takes no news from a will that Aedes swept up, which has no client', async () => {
    const space = openHandSpace()
    const clock = () => 1_763_640_000_000
    const log = openSampledLog(pino({ level: 'silent' }), clock)
    const publishing = openPublishing({
      ingest: openHandIngest(),
      acknowledger: openAcknowledger({ clock, released: () => undefined, notReading: () => undefined }),
      presence: openPresence({ space, devicesMax: 10, clock, disown: () => {}, log }),
      sessions: { open: () => null, release: () => undefined },
      floodgate: { shut: false },
      clock,
      violated: () => undefined,
    })
    const before = await ignored('swept_will')
    const swept = { ...will('offline'), retain: false } as unknown as PublishPacket
    const error = await new Promise(resolve => publishing.authorizePublish(null, swept, resolve))
    expect(error).toBeInstanceOf(Error)
    expect((await ignored('swept_will')) - before).toBe(1)
    expect(space.changes).toEqual([])
  })

  it('takes status messages for presence, and a later reading puts the device online again', async () => {
    const { broker, space, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(0, status('online')))
    await until(() => space.online(DEVICE) === true)
    client.send(publishPacket(0, status('{"state":"offline"}')))
    await until(() => space.online(DEVICE) === false)
    client.send(publishPacket(1))
    await until(() => space.online(DEVICE) === true)
    expect(ingest.offered).toHaveLength(1)
  })

  it('says online again with the first reading when the status came before the space knew the device', async () => {
    const { broker, space } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(0, status('online')))
    await until(() => space.changes.length === 1)
    client.send(publishPacket(1))
    await until(() => space.changes.length === 2)
    expect(space.changes.every(change => change.online)).toBe(true)
  })

  it('refuses a status that is none through ingest, and acknowledges it', async () => {
    const { broker, space, ingest } = await openBench()
    const client = await openClient(broker.port)
    client.send(publishPacket(1, { ...status('gone fishing'), qos: 1 }))
    await until(() => ingest.held === 1)
    expect(ingest.offered[0]).toMatchObject({ reason: 'invalid_status', device: DEVICE })
    ingest.settle()
    expect(await client.next()).toMatchObject({ cmd: 'puback', messageId: 1 })
    expect(space.changes.filter(({ online }) => !online)).toEqual([])
  })

  it('tells the newest presence when the space was away', async () => {
    const { broker, space } = await openBench()
    space.away = new Error('away')
    const client = await openClient(broker.port)
    client.send(publishPacket(1))
    await ping(client)
    await client.reset()
    await until(() => broker.connections === 0)
    await openClient(broker.port, { clientId: 'other' })
    space.away = null
    await until(() => space.online(DEVICE) === false)
  })

  it('[G5] tracks ten thousand devices of one connection, and counts those beyond', async () => {
    const { broker, space, ingest } = await openBench({ inFlightPerClient: 60_000 })
    const before = await ignored('too_many_devices')
    const gateway = await openClient(broker.port, { clientId: 'gateway' })
    for (let id = 1; id <= 10_050; id++) gateway.send(publishPacket(id, { topic: `devices/press-${id}/telemetry` }))
    await until(() => ingest.held === 10_050)
    await until(() => space.changes.length === 10_000)
    // One of the ten thousand is the gateway itself.
    expect((await ignored('too_many_devices')) - before).toBe(51)
    await gateway.reset()
    await until(() => space.changes.length === 20_000)
    expect(space.online('press-1')).toBe(false)
  })
})
