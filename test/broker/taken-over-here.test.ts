/**
 * Two devices with one client id at one broker: the newer connection takes the place of the older one [MQTT-3.1.4-2], what that
 * one handed over is acknowledged first, and an id that is taken over again and again is slowed.
 */
import { Socket } from 'node:net'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { Connection } from '../../broker/connection.ts'
import { openRestless } from '../../broker/restless.ts'
import { openSampledLog } from '../../broker/sampled-log.ts'
import { openTakeover } from '../../broker/takeover.ts'
import { registry } from '../../metrics.ts'
import { until } from '../waits.ts'
import {
  acknowledged,
  type Bench,
  connectPacket,
  openBench,
  openClient,
  openHandSessions,
  openHandSpace,
  openRaw,
  publishPacket,
  type RawClient,
} from './harness.ts'

async function counted(name: string): Promise<number> {
  const metric = await registry.getSingleMetric(name)?.get()
  return metric?.values[0]?.value ?? 0
}

describe('a client that connects again', () => {
  it('gets its CONNACK after the PUBACKs of its older connection were written, which is then closed [G1]', async () => {
    const { broker, ingest } = await openBench()
    const old = await openClient(broker.port)
    for (let id = 1; id <= 3; id++) old.send(publishPacket(id))
    await until(() => ingest.held === 3)
    const next = await openRaw(broker.port)
    next.send(connectPacket())
    await openClient(broker.port, { clientId: 'press-18' })
    expect(next.received).toEqual([])
    ingest.settle()
    expect(await next.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    await old.closed
    expect(acknowledged(old)).toEqual([1, 2, 3])
  })

  it('hands over nothing through its older connection meanwhile', async () => {
    const { broker, ingest } = await openBench()
    const old = await openClient(broker.port)
    old.send(publishPacket(1))
    await until(() => ingest.held === 1)
    const next = await openRaw(broker.port)
    next.send(connectPacket())
    await openClient(broker.port, { clientId: 'press-18' })
    old.send(publishPacket(2))
    ingest.settle()
    await next.next()
    await old.closed
    expect(ingest.offered).toHaveLength(1)
    expect(acknowledged(old)).toEqual([1])
  })

  it('is served within seconds when nothing becomes durable, and when its older peer never closes [G5]', async () => {
    const { broker, ingest } = await openBench()
    const old = await openClient(broker.port)
    old.socket.pause()
    old.send(publishPacket(1))
    await until(() => ingest.held === 1)
    await openClient(broker.port)
    await until(() => broker.connections === 1)
  })

  it('is never said to be offline', async () => {
    const { broker, space, ingest } = await openBench()
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    const old = await openClient(broker.port)
    await until(() => space.online('press-17') === true)
    await openClient(broker.port)
    await old.closed
    await until(() => broker.connections === 1)
    const other = await openClient(broker.port, { clientId: 'marker' })
    await until(() => space.online('marker') === true)
    await other.close()
    await until(() => space.online('marker') === false)
    expect(space.changes.filter(({ device, online }) => device === 'press-17' && !online)).toEqual([])
  })

  it('leaves what is kept of it, after its messages have settled and before it is served anew', async () => {
    const { broker, ingest } = await openBench()
    const order: string[] = []
    const old = await openClient(broker.port)
    let open = () => {}
    ingest.onOffer = ({ held }) => {
      if (held === null) return
      held.connection.leaving = () => {
        order.push(`left with ${ingest.held} held`)
        return new Promise(resolve => (open = resolve))
      }
    }
    old.send(publishPacket(1))
    await until(() => ingest.held === 1)
    const next = await openRaw(broker.port)
    next.send(connectPacket())
    await openClient(broker.port, { clientId: 'press-18' })
    expect(order).toEqual([])
    ingest.settle()
    await until(() => order.length === 1)
    await openClient(broker.port, { clientId: 'press-19' })
    expect(next.received).toEqual([])
    open()
    await next.next()
    await old.closed
    expect(order).toEqual(['left with 0 held'])
  })

  it('closes those that wait with it once the newest is served', async () => {
    const { broker, ingest } = await openBench()
    const old = await openClient(broker.port)
    old.send(publishPacket(1))
    await until(() => ingest.held === 1)
    const waiting = await Promise.all([1, 2, 3].map(() => openRaw(broker.port)))
    for (const client of waiting) {
      client.send(connectPacket())
      await openClient(broker.port, { clientId: 'marker' }).then(marker => marker.close())
    }
    ingest.settle()
    const [one, two, three] = waiting
    await three?.next()
    await Promise.all([old.closed, one?.closed, two?.closed])
    expect([one?.received, two?.received]).toEqual([[], []])
  })
})

/** A device that publishes as soon as it is connected, and connects again at once when it is closed. */
function startDevice(ports: readonly number[], name: string) {
  const device = { connects: 0, sent: 0, acknowledged: 0, stop: () => {} }
  let stopped = false
  let client: RawClient | null = null
  const ended = run()
  device.stop = () => {
    stopped = true
    client?.socket.destroy()
  }
  return { device, ended }

  async function run(): Promise<void> {
    while (!stopped) {
      client = await openRaw(ports[device.connects++ % ports.length] ?? 0)
      client.send(connectPacket({ clientId: 'twin' }))
      const connack = await client.next().catch(() => null)
      while (connack !== null && !client.socket.destroyed && !stopped) {
        const before = acknowledged(client).length
        device.sent++
        client.send(publishPacket((device.sent % 60_000) + 1, { payload: `{"${name}":${device.sent}}` }))
        await client.count(client.received.length + 1).catch(() => {})
        device.acknowledged += acknowledged(client).length - before
      }
      await client.close()
    }
  }
}

/** Two of them, or more, until the id was taken over this often. Each message takes a moment to be durable. */
async function fight(benches: readonly Bench[], takeovers: number, devices = 2) {
  for (const { ingest } of benches) ingest.onOffer = () => setTimeout(() => ingest.settle(), 5)
  const before = await counted('telemetry_takeovers_total')
  const ports = benches.map(({ broker }) => broker.port)
  const twins = ['a', 'b', 'c', 'd']
    .slice(0, devices)
    .map((name, n) => startDevice(n % 2 === 0 ? ports : ports.toReversed(), name))
  await until(async () => (await counted('telemetry_takeovers_total')) >= before + takeovers)
  for (const { device } of twins) device.stop()
  await Promise.all(twins.map(({ ended }) => ended))
  const sum = (key: 'connects' | 'sent' | 'acknowledged') => twins.reduce((all, { device }) => all + device[key], 0)
  const stored = benches.reduce((all, { ingest }) => all + ingest.offered.length, 0)
  return { connects: sum('connects'), sent: sum('sent'), acknowledged: sum('acknowledged'), stored }
}

describe('two devices with one client id that connect again at once', () => {
  it.each(['one broker', 'two brokers'])(
    'have each message that is stored acknowledged, at %s, and are named in the log',
    async where => {
      const [sessions, space] = [openHandSessions(), openHandSpace()]
      const one = await openBench(where === 'one broker' ? {} : { sessions: sessions.broker(), space })
      const benches = where === 'one broker' ? [one] : [one, await openBench({ sessions: sessions.broker(), space })]
      const slowed = await counted('telemetry_takeovers_slowed_total')
      const took = await fight(benches, 13 * benches.length)
      // The last one of each is cut off by the test.
      expect(took.stored - took.acknowledged).toBeLessThanOrEqual(4)
      // Each was served for a while, so it said far more than it connected.
      expect(took.acknowledged).toBeGreaterThan(3 * took.connects)
      expect(await counted('telemetry_takeovers_slowed_total')).toBeGreaterThan(slowed)
      const lines = benches.flatMap(bench => bench.lines).filter(line => line.includes('two clients use one client id'))
      expect(lines.length).toBeGreaterThan(0)
      expect(JSON.parse(lines[0] ?? '')).toMatchObject({ client: 'twin', addresses: ['127.0.0.1'] })
    },
  )

  it('do not close each other without a pause where they are four', async () => {
    const bench = await openBench()
    const took = await fight([bench], 13, 4)
    // The newest of those that wait is served, and the others are closed with the one that was.
    expect(took.connects).toBeLessThanOrEqual(4 * (13 + 2))
  })

  it('hold up nobody else', async () => {
    const bench = await openBench()
    const twins = fight([bench], 10)
    let others = 0
    const other = (async () => {
      for (; others < 50; others++) {
        const client = await openClient(bench.broker.port, { clientId: 'other' })
        client.send(publishPacket(1, { topic: 'devices/other/telemetry' }))
        await client.count(2)
        client.send({ cmd: 'disconnect' })
        await client.closed
      }
    })()
    await Promise.all([twins, other])
    expect(others).toBe(50)
  })
})

describe('a take-over', () => {
  const options = {
    sessions: null,
    ingest: { catchUp: async () => {}, stalled: false },
    lost: () => {},
    clock: () => 1_000,
    log: openSampledLog(pino({ level: 'silent' }), () => 1_000),
  }

  it('says that the newer connection is there before it says that the older one has ended', async () => {
    const order: string[] = []
    const takeover = openTakeover({ ...options, serves: () => void order.push('serves') })
    const [older, newer] = [new Connection(new Socket()), new Connection(new Socket())]
    older.socket.once('close', () => void takeover.ended(older, whose => void order.push(`ended, ${whose}`)))
    await takeover.admit(older, 'twin')
    await takeover.admit(newer, 'twin')
    await until(() => order.length === 3)
    expect(order).toEqual(['serves', 'serves', 'ended, ours'])
  })

  it('has up to 1,024 restless clients wait, beyond that CONNACK 3, and takes none of it from others [G5]', async () => {
    const admit = openAdmit()
    const pairs = Array.from({ length: 1_025 }, (_, n) => `twin-${n}`)
    for (let n = 0; n < 7; n++) await Promise.all(pairs.map(admit))
    const waiting = pairs.slice(1).map(admit)
    expect(await admit('twin-0')).toBe('busy')
    expect(await admit('other')).toBe('serve')
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['serve']))
  })

  it('takes the room of one client, however many connections of it wait [G5]', async () => {
    const admit = openAdmit()
    for (const client of ['twin', 'pair']) for (let n = 0; n < 8; n++) expect(await admit(client)).toBe('serve')
    const waiting = Array.from({ length: 1_024 }, () => admit('twin'))
    expect(await admit('pair')).toBe('serve')
    const answers = await Promise.all(waiting)
    expect(answers.filter(answer => answer === 'serve')).toHaveLength(1)
    expect(answers.at(-1)).toBe('serve')
  })

  /** Connects a client anew; its connection is served from then on. */
  function openAdmit(): (client: string) => Promise<string> {
    const takeover = openTakeover({ ...options, serves: () => {} })
    return client => {
      const connection = new Connection(new Socket())
      connection.connected = true
      return takeover.admit(connection, client)
    }
  }
})

describe('restless clients', () => {
  it('are not slowed by five take-overs in a row, then ever longer, up to a second', () => {
    const restless = openRestless(() => 1_000)
    const waits = Array.from({ length: 40 }, () => {
      restless.count('twin')
      return restless.waitMs('twin')
    })
    expect(waits.slice(0, 8)).toEqual([0, 0, 0, 0, 0, 100, 200, 300])
    expect(Math.max(...waits)).toBe(1_000)
    expect(restless.waitMs('other')).toBe(0)
  })

  it('are quick again after twenty seconds of rest, whatever went before, and a clock set back changes nothing', () => {
    let now = 1_000_000
    const restless = openRestless(() => now)
    for (let n = 0; n < 1_000; n++) restless.count('twin')
    now -= 500_000
    expect(restless.waitMs('twin')).toBe(1_000)
    now += 520_000
    expect(restless.waitMs('twin')).toBe(0)
  })

  it('are counted for ten thousand ids, the one taken over longest ago forgotten [G5]', () => {
    const restless = openRestless(() => 1_000)
    for (let n = 0; n < 7; n++) restless.count('first')
    for (let id = 0; id < 9_999; id++) restless.count(`id-${id}`)
    expect(restless.waitMs('first')).toBe(200)
    restless.count('one-more')
    expect(restless.waitMs('first')).toBe(0)
  })
})
