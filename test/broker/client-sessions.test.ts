/** What is kept of a client that connects with clean=0, as it sees it: session present, its filters, its QoS 2 messages. */
import { describe, expect, it } from 'vitest'
import type { FoundMark } from '../../ingest/ingest.ts'
import { metrics } from '../../metrics.ts'
import { encodeLine, findMarks } from '../../model/message.ts'
import { until } from '../waits.ts'
import { openHandStore } from './hand-store.ts'
import {
  acknowledged,
  type Bench,
  type BenchOptions,
  connectPacket,
  openBench,
  openClient,
  openRaw,
  ping,
  publishPacket,
  type RawClient,
} from './harness.ts'

const KEPT = { clean: false }
const COMMAND = 'devices/press-17/cmd/reboot'

async function connect(bench: Bench, clean = false, clientId = 'press-17') {
  const client = await openRaw(bench.broker.port)
  client.send(connectPacket({ clean, clientId }))
  const connack = await client.next()
  if (connack.cmd !== 'connack') throw new Error('no CONNACK')
  return { client, present: connack.sessionPresent, returnCode: connack.returnCode }
}

async function presence(bench: Bench, clean = false): Promise<boolean> {
  const { client, present } = await connect(bench, clean)
  await client.close()
  return present
}

function open(options: BenchOptions = {}) {
  const sessionStore = options.sessionStore ?? openHandStore()
  return openBench({ ...options, sessionStore })
}

function subscribe(client: RawClient, messageId: number, ...topics: string[]): void {
  client.send({ cmd: 'subscribe', messageId, subscriptions: topics.map(topic => ({ topic, qos: 1 })) })
}

describe('session present [MQTT-3.2.2-2]', () => {
  it('is 0 for a new session, and 1 when a client with clean=0 comes back', async () => {
    const bench = await open()
    expect(await presence(bench)).toBe(false)
    expect(await presence(bench)).toBe(true)
    expect(await presence(bench)).toBe(true)
  })

  it('is 0 with clean=1, which ends the session [MQTT-3.1.2-6]', async () => {
    const bench = await open()
    await presence(bench)
    expect(await presence(bench, true)).toBe(false)
    expect(await presence(bench)).toBe(false)
  })

  it('is 1 after a restart, and after a kill', async () => {
    const store = openHandStore()
    const first = await open({ sessionStore: store })
    await openClient(first.broker.port, KEPT)
    await first.broker.close()
    const second = await open({ sessionStore: store })
    expect(await presence(second)).toBe(true)
    store.kill()
    expect(await presence(await open({ sessionStore: store }))).toBe(true)
  })

  it('is 0 at the bound and while the store is away, and the client is served', async () => {
    const store = openHandStore(1)
    const bench = await open({ sessionStore: store })
    await connect(bench)
    for (let times = 0; times < 2; times++) {
      const other = await connect(bench, false, 'press-18')
      expect(other).toMatchObject({ present: false, returnCode: 0 })
      await ping(other.client)
      await other.client.close()
    }
    store.isAway = true
    const { client, present } = await connect(bench)
    expect(present).toBe(false)
    await ping(client)
  })

  it('is 0 for a client that was told so while the store was away: it has forgotten what the store has', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    await exactlyOnce(bench, client, 1, { release: false })
    store.flush()
    store.isAway = true
    expect(await presence(bench)).toBe(false)
    store.isAway = false
    const { client: later, present } = await connect(bench)
    expect(present).toBe(false)
    later.send(publishPacket(1, { qos: 2 }))
    await until(() => bench.ingest.offered.length === 2)
  })

  it('does not change anything else of CONNACK, whatever is pipelined behind CONNECT', async () => {
    const bench = await open()
    await presence(bench)
    const client = await openRaw(bench.broker.port)
    const bytes: Buffer[] = []
    client.socket.on('data', chunk => bytes.push(chunk))
    client.send(connectPacket(KEPT))
    client.send({ cmd: 'pingreq' })
    client.send(publishPacket(1, { qos: 2 }))
    await until(() => bench.ingest.held === 1)
    bench.ingest.settle()
    await client.count(3)
    expect(Buffer.concat(bytes).toString('hex')).toBe('20020100' + 'd000' + '50020001')
  })
})

describe('filters of a session', () => {
  it('are durable before SUBACK', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    let letThrough = () => {}
    store.gate = new Promise(resolve => {
      letThrough = resolve
    })
    subscribe(client, 1, COMMAND)
    await ping(client)
    expect(client.received.some(({ cmd }) => cmd === 'suback')).toBe(false)
    letThrough()
    await client.count(3)
    expect(client.received.at(-1)).toMatchObject({ cmd: 'suback', granted: [1] })
    expect(store.disk.get('press-17')?.filters).toEqual([{ filter: COMMAND, qos: 1 }])
  })

  it('are refused with 0x80 when they cannot be made durable, and not kept', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    store.isAway = true
    subscribe(client, 1, COMMAND, `${COMMAND}/now`)
    await client.count(2)
    expect(client.received.at(-1)).toMatchObject({ cmd: 'suback', granted: [128, 128] })
    store.isAway = false
    subscribe(client, 2, `${COMMAND}/now`)
    await client.count(3)
    expect(store.disk.get('press-17')?.filters).toEqual([{ filter: `${COMMAND}/now`, qos: 1 }])
  })

  it('that were granted before count towards the ten that a client may have', async () => {
    const bench = await open()
    const { client } = await connect(bench)
    subscribe(client, 1, ...Array.from({ length: 10 }, (_, at) => `${COMMAND}/${at}`))
    await client.count(2)
    await client.close()
    const { client: later } = await connect(bench)
    subscribe(later, 2, `${COMMAND}/3`, `${COMMAND}/10`)
    await later.count(2)
    expect(later.received.at(-1)).toMatchObject({ cmd: 'suback', granted: [1, 128] })
    later.send({ cmd: 'unsubscribe', messageId: 3, unsubscriptions: [`${COMMAND}/3`] })
    subscribe(later, 4, `${COMMAND}/10`)
    await later.count(4)
    expect(later.received.at(-1)).toMatchObject({ cmd: 'suback', granted: [1] })
  })

  it('are gone after UNSUBSCRIBE, also when it was sent right behind SUBSCRIBE', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    subscribe(client, 1, COMMAND)
    client.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: [COMMAND] })
    subscribe(client, 3, `${COMMAND}/now`)
    await client.count(4)
    store.flush()
    expect(store.disk.get('press-17')?.filters).toEqual([{ filter: `${COMMAND}/now`, qos: 1 }])
  })
})

describe('a QoS 2 message that is sent again before its PUBREL [MQTT-4.3.3-2]', () => {
  it.each([
    ['on one connection, clean=1', true],
    ['on one connection, clean=0', false],
  ])('is stored once: %s', async (_name, clean) => {
    const bench = await open()
    const { client } = await connect(bench, clean)
    client.send(publishPacket(7, { qos: 2 }))
    client.send(publishPacket(7, { qos: 2, dup: true }))
    await until(() => bench.ingest.held === 2)
    bench.ingest.settle()
    client.send(publishPacket(7, { qos: 2, dup: true }))
    await until(() => bench.ingest.held === 1)
    bench.ingest.settle()
    await client.count(4)
    expect(acknowledged(client, 'pubrec')).toEqual([7, 7, 7])
    expect(bench.ingest.offered).toHaveLength(1)
    expect(bench.ingest.repeated).toHaveLength(2)
  })

  it('[G1] gets no PUBREC before its original is durable, also on the next connection', async () => {
    const bench = await open()
    const { client } = await connect(bench)
    client.send(publishPacket(7, { qos: 2 }))
    await until(() => bench.ingest.held === 1)
    await client.close()
    const { client: later } = await connect(bench)
    later.send(publishPacket(7, { qos: 2, dup: true }))
    await until(() => bench.ingest.held === 2)
    await ping(later)
    expect(acknowledged(later, 'pubrec')).toEqual([])
    bench.ingest.settle()
    await later.count(3)
    expect(acknowledged(later, 'pubrec')).toEqual([7])
    expect(bench.ingest.offered).toHaveLength(1)
  })

  it.each([
    ['and the connection was lost', async (bench: Bench) => bench],
    ['and the broker was stopped', restarted],
    ['and the broker was killed right after the commit', killed],
  ])('is stored once: %s', async (_name, interrupt) => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    await exactlyOnce(bench, client, 6, { release: true })
    await exactlyOnce(bench, client, 7, { release: false })
    await client.close()
    const next = await interrupt(bench, store)
    const { client: later, present } = await connect(next)
    expect(present).toBe(true)
    const before = next.ingest.offered.length
    later.send(publishPacket(7, { qos: 2, dup: true }))
    await until(() => next.ingest.held === 1)
    next.ingest.settle()
    await later.count(2)
    expect(next.ingest.offered).toHaveLength(before)
    expect(next.ingest.repeated).toHaveLength(1)
    // What was released is new under its old identifier, though it says the same.
    await exactlyOnce(next, later, 6, { release: false })
    expect(next.ingest.offered).toHaveLength(before + 1)
  })

  it('is stored when it says something else: a client that breaks the protocol loses nothing', async () => {
    const bench = await open()
    const { client } = await connect(bench)
    await exactlyOnce(bench, client, 7, { release: false })
    client.send(publishPacket(7, { qos: 2, payload: '{"n":8}' }))
    await until(() => bench.ingest.offered.length === 2)
    client.send(publishPacket(7, { qos: 2, payload: '{"n":8}', topic: 'devices/press-17/telemetry/m' }))
    await until(() => bench.ingest.offered.length === 3)
  })

  it('is no repetition with clean=1 on another connection', async () => {
    const bench = await open()
    const { client } = await connect(bench, true)
    await exactlyOnce(bench, client, 7, { release: false })
    await client.close()
    const { client: later } = await connect(bench, true)
    later.send(publishPacket(7, { qos: 2, dup: true }))
    await until(() => bench.ingest.offered.length === 2)
  })

  it('is quarantined once', async () => {
    const bench = await open()
    const { client } = await connect(bench)
    const odd = { qos: 2, topic: 'elsewhere' } as const
    client.send(publishPacket(7, odd))
    client.send(publishPacket(7, { ...odd, dup: true }))
    await until(() => bench.ingest.held === 2)
    expect(bench.ingest.offered).toMatchObject([{ reason: 'unknown_topic' }])
    expect(bench.ingest.repeated).toMatchObject([{ topic: 'elsewhere', packet: 7 }])
  })
})

describe('PUBREL', () => {
  it('gets PUBCOMP when the release is durable, in order', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    for (const id of [1, 2, 3]) await exactlyOnce(bench, client, id, { release: false })
    let letThrough = () => {}
    store.gate = new Promise(resolve => {
      letThrough = resolve
    })
    for (const id of [3, 1, 2]) client.send({ cmd: 'pubrel', messageId: id })
    await ping(client)
    expect(acknowledged(client, 'pubcomp')).toEqual([])
    letThrough()
    await client.count(8)
    expect(acknowledged(client, 'pubcomp')).toEqual([3, 1, 2])
    expect(store.disk.get('press-17')).toMatchObject({ opened: 3, open: [] })
    expect(store.saved.length).toBeLessThanOrEqual(2)
  })

  it('waits while the store is away, and is answered when it is back', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    await exactlyOnce(bench, client, 1, { release: false })
    store.isAway = true
    client.send({ cmd: 'pubrel', messageId: 1 })
    await until(() => bench.lines.some(line => line.includes('could not be saved')))
    await ping(client)
    expect(acknowledged(client, 'pubcomp')).toEqual([])
    store.isAway = false
    await until(() => acknowledged(client, 'pubcomp').length === 1)
  })

  it('waits, and the log line shows the client id with escapes', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench, false, 'a\u202eb')
    await exactlyOnce(bench, client, 1, { release: false })
    store.isAway = true
    client.send({ cmd: 'pubrel', messageId: 1 })
    await until(() => bench.lines.some(line => line.includes('could not be saved')))
    const line = bench.lines.find(text => text.includes('could not be saved'))
    expect(line).not.toContain('\u202e')
    expect(line).toContain('a\\\\u202eb')
    store.isAway = false
    await until(() => acknowledged(client, 'pubcomp').length === 1)
  })

  it('of a message that is not durable yet waits for it, so that no mark of the log can bring it back', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    client.send(publishPacket(1, { qos: 2 }))
    client.send({ cmd: 'pubrel', messageId: 1 })
    await ping(client)
    expect(acknowledged(client, 'pubcomp')).toEqual([])
    bench.ingest.settle()
    await until(() => acknowledged(client, 'pubcomp').length === 1)
    expect(store.disk.get('press-17')).toMatchObject({ opened: 1, open: [] })
  })

  it('is answered once for an identifier that is used anew before PUBCOMP, and what used it is stored', async () => {
    const bench = await open()
    const { client } = await connect(bench)
    client.send(publishPacket(1, { qos: 2 }))
    client.send({ cmd: 'pubrel', messageId: 1 })
    client.send(publishPacket(1, { qos: 2 }))
    await until(() => bench.ingest.offered.length === 2)
    bench.ingest.settle()
    await until(() => acknowledged(client, 'pubcomp').length === 1)
    await ping(client)
    expect(acknowledged(client, 'pubrec')).toEqual([1, 1])
    expect(acknowledged(client, 'pubcomp')).toEqual([1])
  })

  it('is not answered once another connection has the session', async () => {
    const store = openHandStore()
    const bench = await open({ sessionStore: store })
    const { client } = await connect(bench)
    await exactlyOnce(bench, client, 1, { release: false })
    await store.open({ principal: '', client: 'press-17' })
    client.send({ cmd: 'pubrel', messageId: 1 })
    await ping(client)
    await ping(client)
    expect(acknowledged(client, 'pubcomp')).toEqual([])
  })
})

describe('the bounds of open messages', () => {
  it('forget the oldest of that session, count it, and keep the others', async () => {
    const bench = await open({ inFlightPerClient: 2_000 })
    const before = await forgotten()
    const { client } = await connect(bench)
    for (let id = 1; id <= 1_025; id++) client.send(publishPacket(id, { qos: 2 }))
    await until(() => bench.ingest.offered.length === 1_025)
    bench.ingest.settle()
    expect((await forgotten()) - before).toBe(1)
    client.send(publishPacket(2, { qos: 2, dup: true }))
    client.send(publishPacket(1, { qos: 2, dup: true }))
    await until(() => bench.ingest.held === 2)
    expect(bench.ingest.repeated.map(({ packet }) => packet)).toEqual([2])
    expect(bench.ingest.offered.at(-1)).toMatchObject({ packet: 1 })
  })
})

/** Sends a message and waits for its PUBREC, and for its PUBCOMP where it is released. */
async function exactlyOnce(bench: Bench, client: RawClient, id: number, { release }: { release: boolean }) {
  const [recs, comps] = [acknowledged(client, 'pubrec').length, acknowledged(client, 'pubcomp').length]
  client.send(publishPacket(id, { qos: 2 }))
  await until(() => bench.ingest.held === 1)
  bench.ingest.settle()
  await until(() => acknowledged(client, 'pubrec').length === recs + 1)
  if (!release) return
  client.send({ cmd: 'pubrel', messageId: id })
  await until(() => acknowledged(client, 'pubcomp').length === comps + 1)
}

async function restarted(bench: Bench, sessionStore: ReturnType<typeof openHandStore>): Promise<Bench> {
  await bench.broker.close()
  return open({ sessionStore })
}

/** The record is as it was saved last before message 7; the log has its line. */
async function killed(bench: Bench, sessionStore: ReturnType<typeof openHandStore>): Promise<Bench> {
  const record = sessionStore.saved.find(({ opened }) => opened === 1)
  if (record === undefined) throw new Error('The release of message 6 was not saved.')
  await until(() => sessionStore.left.length > 0)
  sessionStore.kill()
  sessionStore.disk.set('press-17', record)
  const next = await open({ sessionStore })
  next.ingest.marks = bench.ingest.offered.flatMap(marksOf)
  return next
}

function marksOf({ device, packet, mark }: Bench['ingest']['offered'][number]): FoundMark[] {
  return findMarks(
    Buffer.from(encodeLine({ device, receivedAt: 1_763_640_000_000_000, readings: [] }, { packet, mark })),
  )
}

async function forgotten(): Promise<number> {
  return (await metrics.openForgotten.get()).values[0]?.value ?? 0
}
