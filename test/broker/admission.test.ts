import { once } from 'node:events'
import { Socket } from 'node:net'
import type { Client } from 'aedes'
import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { openAdmission } from '../../broker/admission.ts'
import { attach } from '../../broker/aedes-internals.ts'
import { openConnectRate } from '../../broker/connect-rate.ts'
import { Connection } from '../../broker/connection.ts'
import { registry } from '../../metrics.ts'
import { timed, until } from '../waits.ts'
import { connectPacket, openBench, openClient, openRaw, ping, publishPacket } from './harness.ts'

async function refusals(reason: string): Promise<number> {
  const metric = await registry.getSingleMetric('telemetry_connections_refused_total')?.get()
  return metric?.values.find(value => value.labels.reason === reason)?.value ?? 0
}

/** Of clients, tools and platforms as they come. */
const ORDINARY_IDS = [
  'mosqpub|1234-pi',
  '{0f1d3a5e-7b2c-4d6f-8e9a-1b2c3d4e5f60}',
  'tenant@device',
  'press 17',
  'Gerät-7',
  '東京-1',
  '\u{1f321}\ufe0f',
  'auto-5D2A/7',
  'a,b;c=d',
  `it's "quoted" \\ `,
  '%i',
  '$SYS',
  '__proto__',
  'constructor',
  'hasOwnProperty',
  'aedes_0f1d3a5e-7b2c-4d6f-8e9a-1b2c3d4e5f60',
]

async function refusedSubscriptions(reason: string): Promise<number> {
  const metric = await registry.getSingleMetric('telemetry_subscriptions_refused_total')?.get()
  return metric?.values.find(({ labels }) => labels.reason === reason)?.value ?? 0
}

describe('admission', () => {
  it.each([
    ['a plain id', { clientId: 'press-17' }, 0],
    ['256 bytes', { clientId: 'ü'.repeat(128) }, 0],
    ...ORDINARY_IDS.map(clientId => [`the id ${clientId}`, { clientId }, 0] as const),
    ['an id of U+202E', { clientId: '\u202e' }, 0],
    ['an id of U+2028', { clientId: '\u2028' }, 0],
    ['wildcards in the id', { clientId: 'press/+/#' }, 0],
    ['256 bytes in MQTT 3.1', { clientId: 'ü'.repeat(128), protocolVersion: 3, protocolId: 'MQIsdp' }, 0],
    ['no id, and asks for one', { clientId: '', clean: true }, 0],
    ['a user name and a password', { username: 'anyone', password: Buffer.from('anything') }, 0],
    ['MQTT 3.1', { protocolVersion: 3, protocolId: 'MQIsdp' }, 0],
    ['257 bytes', { clientId: `${'ü'.repeat(128)}x` }, 2],
    ['257 bytes in MQTT 3.1', { clientId: 'x'.repeat(257), protocolVersion: 3, protocolId: 'MQIsdp' }, 2],
    ['a control character of Latin-1 in the id', { clientId: 'press\u0085' }, 2],
    ['a newline in the id', { clientId: 'press\nlevel=error' }, 2],
  ] as const)('answers a client with %s as it should', async (_what, connect, returnCode) => {
    const { broker } = await openBench()
    const client = await openRaw(broker.port)
    client.send(connectPacket(connect as object))
    expect(await client.next()).toMatchObject({ cmd: 'connack', returnCode, sessionPresent: false })
    if (returnCode === 0) await ping(client)
    else await client.closed
  })

  it('refuses a client with no id and a session to keep [MQTT-3.1.3-8]', async () => {
    const { broker } = await openBench()
    const client = await openRaw(broker.port)
    const bytes = mqtt.generate(connectPacket({ clientId: '' }))
    // The connect flags, without the bit for a clean session, which a careful generator would not leave out.
    bytes[9] = (bytes[9] ?? 0) & ~0x02
    client.socket.write(bytes)
    expect(await client.next()).toMatchObject({ cmd: 'connack', returnCode: 2 })
    await client.closed
  })

  it.each([
    [0, 1_200],
    [60, 60],
    [1_200, 1_200],
    [65_535, 1_200],
  ])('treats a keepalive of %i seconds as %i', (given, taken) => {
    const packet = { ...connectPacket({ keepalive: given }), cmd: 'connect' as const }
    const client = {} as Client
    attach(client, new Connection(new Socket()))
    const sessions = { begin: async () => false, subscribe: async () => true }
    const takeover = { admit: async () => 'serve' as const }
    const admission = openAdmission({
      takeover,
      sessions,
      wills: { keep: () => true },
      refused: () => {},
      log: { warn: () => {} },
    })
    admission.preConnect(client, packet, () => undefined)
    expect(packet.keepalive).toBe(taken)
  })

  it('assigns an id of its own to each client that gives none', async () => {
    const { broker } = await openBench()
    const one = await openClient(broker.port, { clientId: '' })
    const two = await openClient(broker.port, { clientId: '' })
    await ping(one)
    await ping(two)
    expect(broker.connections).toBe(2)
  })

  it('has no presence for a client whose id is no device id', async () => {
    const { broker, space } = await openBench()
    for (const clientId of ['tenant/device', 'gate\u202eway', '+'])
      await ping(await openClient(broker.port, { clientId }))
    await ping(await openClient(broker.port, { clientId: 'Gerät 7' }))
    await until(() => space.changes.length > 0, 'the presence of the one that is a device')
    expect(space.changes.map(({ device }) => device)).toEqual(['Gerät 7'])
  })

  it.each(['__proto__', 'constructor', '{guid}', '\u{1f321}'])(
    'closes the older of two connections with the client id %s',
    async clientId => {
      const { broker } = await openBench()
      const older = await openClient(broker.port, { clientId })
      const newer = await openClient(broker.port, { clientId })
      await older.closed
      await ping(newer)
    },
  )

  it('closes the older of two connections with one client id', async () => {
    const { broker } = await openBench()
    const older = await openClient(broker.port)
    const newer = await openClient(broker.port)
    await older.closed
    await ping(newer)
  })

  it('keeps no session: whoever returns is told so', async () => {
    const { broker } = await openBench()
    const topic = 'devices/press-17/cmd/restart'
    const client = await openClient(broker.port, { clean: false })
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic, qos: 1 }] })
    expect(await client.next()).toMatchObject({ cmd: 'suback', granted: [1] })
    await client.close()
    const again = await openRaw(broker.port)
    again.send(connectPacket({ clean: false }))
    expect(await again.next()).toMatchObject({ cmd: 'connack', returnCode: 0, sessionPresent: false })
  })

  it('grants a client all below its own command topic, also with wildcards', async () => {
    const { broker } = await openBench()
    const client = await openClient(broker.port)
    const below = ['#', '+', 'restart', 'a/b', '+/x', 'a/+', 'a/#']
    const subscriptions = below.map(filter => ({ topic: `devices/press-17/cmd/${filter}`, qos: 1 as const }))
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
    expect(await client.next()).toMatchObject({ cmd: 'suback', granted: below.map(() => 1) })
  })

  it('says which subscriptions it refused, in the log with the client and the filter, and counts them', async () => {
    const { broker, lines } = await openBench()
    const before = await refusedSubscriptions('not_own_command')
    const client = await openClient(broker.port)
    const filter = `devices/\u202e${'x'.repeat(100)}/#`
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: filter, qos: 1 }] })
    expect(await client.next()).toMatchObject({ cmd: 'suback', granted: [0x80] })
    const shown = `devices/\\u202e${'x'.repeat(55)}…`
    const line = lines.map(line => JSON.parse(line)).find(({ msg }) => msg === 'subscription refused')
    expect(line).toMatchObject({ reason: 'not_own_command', client: 'press-17', filter: shown })
    expect(await refusedSubscriptions('not_own_command')).toBe(before + 1)
  })

  it('writes few lines of a client that asks for what it may not have, over and over', async () => {
    const { broker, lines } = await openBench()
    const client = await openClient(broker.port)
    const subscriptions = Array.from({ length: 1_000 }, (_, n) => ({ topic: `nothing/${n}`, qos: 0 as const }))
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
    expect(await client.next()).toMatchObject({ cmd: 'suback' })
    expect(lines.filter(line => line.includes('subscription refused')).length).toBeLessThan(10)
  })

  it('refuses every subscription but ten below the own command topic', async () => {
    const { broker } = await openBench()
    const client = await openClient(broker.port)
    const own = Array.from({ length: 11 }, (_, i) => `devices/press-17/cmd/${i}`)
    const topics = [
      '#',
      '+/+',
      '$SYS/#',
      'devices/+/telemetry',
      'devices/press-17/telemetry',
      'devices/press-18/cmd/x',
      ...own,
    ]
    const subscriptions = topics.map(topic => ({ topic, qos: 1 as const }))
    client.send({ cmd: 'subscribe', messageId: 1, subscriptions })
    const granted = [...new Array(6).fill(0x80), ...new Array(10).fill(1), 0x80]
    expect(await client.next()).toMatchObject({ cmd: 'suback', granted })
    client.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: [own[0] ?? ''] })
    expect(await client.next()).toMatchObject({ cmd: 'unsuback' })
    client.send({ cmd: 'subscribe', messageId: 3, subscriptions: [{ topic: own[10] ?? '', qos: 0 }] })
    expect(await client.next()).toMatchObject({ cmd: 'suback', granted: [0] })
  })

  it('closes a socket that sends no CONNECT, also one that dribbles', async () => {
    const { broker } = await openBench()
    const silent = await openRaw(broker.port)
    const slow = await openRaw(broker.port)
    slow.socket.write(Buffer.from([0x10]))
    const dribble = setInterval(() => slow.socket.write(Buffer.from([0x10])), 1_000)
    const canary = await openClient(broker.port, { clientId: 'canary' })
    const { ms } = await timed(() => Promise.all([silent.closed, slow.closed]))
    clearInterval(dribble)
    expect(ms).toBeLessThan(15_000)
    await ping(canary)
  })

  it('closes a client that is silent for one and a half of its keepalive', async () => {
    const { broker } = await openBench()
    const before = await refusals('keepalive')
    const since = Date.now()
    const client = await openClient(broker.port, { keepalive: 1 })
    await client.closed
    expect(Date.now() - since).toBeGreaterThan(1_400)
    expect((await refusals('keepalive')) - before).toBe(1)
  })

  it('takes clients with the keepalives that people use', async () => {
    const { broker } = await openBench()
    for (const keepalive of [0, 60, 300, 65_535]) {
      const client = await openClient(broker.port, { keepalive, clientId: `k${keepalive}` })
      await ping(client)
    }
  })

  it('[G5] closes connections above the most at once, and takes new ones when there is room', async () => {
    const { broker } = await openBench({ connectionsMax: 3 })
    const clients = await Promise.all(['a', 'b', 'c'].map(clientId => openClient(broker.port, { clientId })))
    const surplus = await openRaw(broker.port)
    await surplus.closed
    await clients[0]?.close()
    await until(() => broker.connections === 2)
    await openClient(broker.port, { clientId: 'd' })
  })

  it('[G5] closes connections of an address that connects too fast', async () => {
    const { broker, setClock } = await openBench({ connectionsMax: 5 })
    setClock(1_000)
    const before = await refusals('connect_rate')
    for (let i = 0; i < 5; i++) {
      await (await openClient(broker.port)).close()
      await until(() => broker.connections === 0)
    }
    const tooFast = await openRaw(broker.port)
    await tooFast.closed
    expect((await refusals('connect_rate')) - before).toBe(1)
    setClock(1_010)
    await openClient(broker.port)
  })

  it('serves a thousand clients that connect at once', async () => {
    const { broker, ingest } = await openBench()
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    const clients = await Promise.all(
      Array.from({ length: 1_000 }, (_, i) => openClient(broker.port, { clientId: `press-${i}` })),
    )
    expect(broker.connections).toBe(1_000)
    for (const client of clients) client.send(publishPacket(1))
    await Promise.all(clients.map(client => client.count(2)))
    for (const client of clients) client.socket.end()
    await until(() => broker.connections === 0)
  })

  it('listens on loopback only [G6]', async () => {
    const { broker } = await openBench()
    const client = await openClient(broker.port)
    expect(client.socket.remoteAddress).toBe('127.0.0.1')
    const { networkInterfaces } = await import('node:os')
    const outer = Object.values(networkInterfaces())
      .flat()
      .find(address => address?.family === 'IPv4' && !address.internal)
    if (outer === undefined) return
    const { connect } = await import('node:net')
    const socket = connect({ host: outer.address, port: broker.port })
    const [error] = await once(socket, 'error')
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('says which port is taken and which setting changes it', async () => {
    const { broker } = await openBench()
    await expect(openBench({ port: broker.port })).rejects.toMatchObject({ code: 'port_in_use' })
  })
})

describe('connect rate', () => {
  it('lets a burst through, then a thousand per second, for each address', () => {
    let now = 0
    const rate = openConnectRate(100, () => now)
    const taken = (address: string, tries: number) =>
      Array.from({ length: tries }, () => rate.take(address)).filter(Boolean).length
    expect(taken('127.0.0.1', 150)).toBe(100)
    expect(taken('127.0.0.2', 150)).toBe(100)
    now = 10
    expect(taken('127.0.0.1', 150)).toBe(10)
    now = 60_000
    expect(taken('127.0.0.1', 150)).toBe(100)
  })

  it('remembers a bounded number of addresses, and forgets those at rest', () => {
    let now = 0
    const rate = openConnectRate(100, () => now)
    const taken = Array.from({ length: 12_000 }, (_, i) => rate.take(`address-${i}`)).filter(Boolean).length
    expect(taken).toBe(10_000)
    now = 1_000
    rate.tick()
    expect(rate.take('address-11000')).toBe(true)
  })
})
