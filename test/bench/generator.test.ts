import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { type BareBroker, openBareBroker } from '../../bench/bare-broker.ts'
import { type Fleet, type FleetOptions, openFleet } from '../../bench/generator.ts'
import { answerReader, COUNTER_BASE, readingsOf } from '../../bench/wire.ts'
import { timed } from '../waits.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

interface Received {
  readonly topic: string
  readonly payload: { ts: number; values: Record<string, number> }
  readonly bytes: number
  readonly dup: boolean
}

/** Bare Aedes that notes each PUBLISH before it acknowledges it. */
async function openNotingBroker(): Promise<BareBroker & { received: Received[] }> {
  const received: Received[] = []
  const broker = await openBareBroker(0, {
    authorizePublish(_client, packet, done) {
      const text = packet.payload.toString()
      received.push({ topic: packet.topic, payload: JSON.parse(text), bytes: text.length, dup: packet.dup })
      done(null)
    },
  })
  cleanups.push(broker.close)
  return { ...broker, received }
}

async function openTestFleet(options: FleetOptions): Promise<Fleet> {
  const fleet = await openFleet(options)
  cleanups.push(fleet.close)
  return fleet
}

function deviceIds(count: number): string[] {
  return Array.from({ length: count }, (_, n) => `device-${n}`)
}

test('a closed-loop fleet sends messages with the values of their counters, and gets each acknowledged once', async () => {
  const broker = await openNotingBroker()
  const acked: number[] = []
  const sent = new Map<number, number>()
  const journal = {
    sent: (counter: number, _device: string, ts: number) => void sent.set(counter, ts),
    acked: (counter: number) => {
      acked.push(counter)
      if (acked.length === 2_000) reached()
    },
  }
  let reached = () => {}
  const enough = new Promise<void>(resolve => {
    reached = resolve
  })
  const fleet = await openTestFleet({
    port: broker.port,
    devices: deviceIds(5),
    connections: 5,
    window: 20,
    rate: null,
    journal,
  })
  fleet.start()
  await enough
  expect(await fleet.drain(5_000)).toBe(true)

  expect(new Set(acked).size).toBe(acked.length)
  expect(new Set(acked)).toEqual(new Set(sent.keys()))
  expect(fleet.counts()).toMatchObject({
    sent: acked.length,
    acked: acked.length,
    inFlight: 0,
    strayAcks: 0,
    resent: 0,
  })
  expect(fleet.latency.count).toBe(acked.length)
  for (const { payload, bytes } of broker.received) {
    const counter = (payload.values.message_counter ?? 0) - COUNTER_BASE
    expect(Object.entries(payload.values)).toEqual(readingsOf(counter))
    expect(payload.ts).toBe(sent.get(counter))
    expect(bytes).toBeGreaterThanOrEqual(110)
  }
})

test('an open-loop fleet keeps its rate', async () => {
  const broker = await openNotingBroker()
  const fleet = await openTestFleet({
    port: broker.port,
    devices: deviceIds(10),
    connections: 10,
    window: 5,
    rate: 1_000,
  })
  const startedAt = performance.now()
  fleet.start()
  const { ms } = await timed(async () => {
    await expect.poll(() => fleet.counts().acked, { interval: 1 }).toBeGreaterThanOrEqual(400)
  })
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(399)
  expect(ms).toBeLessThan(4_000)
})

test('latency of an open-loop fleet counts from the moment a message was meant for, not from when it could be sent', async () => {
  const held: (() => void)[] = []
  const broker = await openBareBroker(0, {
    authorizePublish: (_client, _packet, done) => void held.push(() => done(null)),
  })
  cleanups.push(broker.close)
  const fleet = await openTestFleet({
    port: broker.port,
    devices: deviceIds(1),
    connections: 1,
    window: 1,
    rate: 1_000,
  })
  fleet.start()
  await new Promise(resolve => setTimeout(resolve, 200))
  const timer = setInterval(() => held.shift()?.(), 1)
  cleanups.push(() => clearInterval(timer))
  await expect.poll(() => fleet.counts().acked).toBeGreaterThan(20)
  await fleet.drain(5_000)
  // The second message was due 1 ms after the start and waited 200 ms for the first one's acknowledgement.
  expect(fleet.latency.percentile(10)).toBeGreaterThan(100_000)
})

test('the hot device gets its share of the messages, over all connections', async () => {
  const broker = await openNotingBroker()
  const fleet = await openTestFleet({
    port: broker.port,
    devices: deviceIds(20),
    connections: 4,
    window: 10,
    rate: null,
    hotShare: 0.8,
  })
  fleet.start()
  await expect.poll(() => broker.received.length).toBeGreaterThan(2_000)
  await fleet.drain(5_000)
  const hot = broker.received.filter(message => message.topic === 'devices/device-0/telemetry').length
  expect(hot / broker.received.length).toBeCloseTo(0.8, 1)
  expect(new Set(broker.received.map(message => message.topic)).size).toBe(20)
})

test('after a lost connection everything unacknowledged is sent again with the DUP flag, in its first order', async () => {
  const firsts: number[][] = []
  const dups: boolean[][] = []
  const server = createServer(socket => void serveSilently(socket, firsts, dups))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => server.close())
  const { port } = server.address() as { port: number }
  const fleet = await openTestFleet({ port, devices: deviceIds(1), connections: 1, window: 5, rate: null })
  fleet.start()
  await expect.poll(() => firsts[1]?.length).toBe(5)
  expect(dups[0]).toEqual([false, false, false, false, false])
  expect(dups[1]).toEqual([true, true, true, true, true])
  expect(firsts[1]).toEqual(firsts[0])
  expect(fleet.counts()).toMatchObject({ sent: 5, acked: 0, resent: 5, inFlight: 5, reconnects: 1 })
})

test('a fleet survives cuts of all connections: every message is acknowledged in the end', async () => {
  const broker = await openNotingBroker()
  const fleet = await openTestFleet({
    port: broker.port,
    devices: deviceIds(10),
    connections: 10,
    window: 10,
    rate: 2_000,
  })
  fleet.start()
  for (let cuts = 1; cuts <= 3; cuts++) {
    const before = fleet.counts().acked
    await expect.poll(() => fleet.counts().acked).toBeGreaterThan(before + 100)
    broker.cut()
    await expect.poll(() => fleet.counts().reconnects).toBe(cuts * 10)
  }
  expect(await fleet.drain(10_000)).toBe(true)
  const { sent, acked } = fleet.counts()
  expect(acked).toBe(sent)
  const counters = new Set(broker.received.map(message => message.payload.values.message_counter))
  expect(counters.size).toBe(sent)
})

test('answers are read from chunks cut anywhere', () => {
  const bytes = Buffer.from([0x20, 2, 0, 0, 0x40, 2, 0, 1, 0x40, 2, 0x12, 0x34])
  for (let cut = 0; cut <= bytes.length; cut++) {
    const seen: string[] = []
    const read = answerReader({
      connack: code => void seen.push(`connack ${code}`),
      puback: id => void seen.push(`puback ${id}`),
    })
    read(bytes.subarray(0, cut))
    read(bytes.subarray(cut))
    expect(seen).toEqual(['connack 0', 'puback 1', `puback ${0x1234}`])
  }
})

/** Accepts the connection, notes five PUBLISH packets, acknowledges none and cuts the first connection. */
function serveSilently(socket: Socket, counters: number[][], dups: boolean[][]): void {
  const mine: number[] = []
  const flags: boolean[] = []
  counters.push(mine)
  dups.push(flags)
  const first = counters.length === 1
  let bytes = Buffer.alloc(0)
  socket.on('error', () => {})
  socket.once('data', () => {
    socket.write(Buffer.from([0x20, 2, 0, 0]))
    socket.on('data', chunk => {
      bytes = Buffer.concat([bytes, chunk])
      while (bytes.length > 3) {
        const length = ((bytes[1] ?? 0) & 0x7f) + ((bytes[2] ?? 0) << 7) + 3
        if (bytes.length < length) break
        flags.push(((bytes[0] ?? 0) & 8) !== 0)
        mine.push(Number(/"message_counter":(\d+)/.exec(bytes.subarray(0, length).toString())?.[1]))
        bytes = bytes.subarray(length)
      }
      if (first && mine.length === 5) socket.destroy()
    })
  })
}
