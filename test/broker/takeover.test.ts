/**
 * Two brokers over one set of sessions and one space: a client is served by one at a time [MQTT-3.1.4-2], and nothing that
 * the first made durable is stored again by the second. The sessions and each ingest are driven by the test.
 */
import { Socket } from 'node:net'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { Connection } from '../../broker/connection.ts'
import { openSampledLog } from '../../broker/sampled-log.ts'
import { openTakeover } from '../../broker/takeover.ts'
import { registry } from '../../metrics.ts'
import { timed, until } from '../waits.ts'
import {
  acknowledged,
  type Bench,
  connectPacket,
  type HandSessions,
  openBench,
  openClient,
  openHandSessions,
  openHandSpace,
  openRaw,
  ping,
  publishPacket,
} from './harness.ts'

const DEVICE = 'press-17'
const NOT_CAUGHT_UP = { result: 'not_caught_up' }

interface Pair {
  readonly sessions: HandSessions
  readonly first: Bench
  readonly second: Bench
}

async function openPair(): Promise<Pair> {
  const sessions = openHandSessions()
  const space = openHandSpace()
  const first = await openBench({ sessions: sessions.broker(), space })
  const second = await openBench({ sessions: sessions.broker(), space })
  return { sessions, first, second }
}

async function counted(name: string, labels: Record<string, string> = {}): Promise<number> {
  const metric = await registry.getSingleMetric(name)?.get()
  const found = metric?.values.find(({ labels: has }) =>
    Object.entries(labels).every(([key, value]) => has[key] === value),
  )
  return found?.value ?? 0
}

describe('a client that connects to another broker', () => {
  it('is served there, and its first connection is closed before it gets its CONNACK [MQTT-3.1.4-2]', async () => {
    const { sessions, first, second } = await openPair()
    const old = await openClient(first.broker.port)
    await openClient(second.broker.port)
    await old.closed
    await until(() => first.broker.connections === 0)
    expect(sessions.holder(DEVICE)).toBe(1)
    expect(sessions.releases).toEqual([])
  })

  it('gets its CONNACK only after what it had handed over is durable and learnt of [G1] [G2]', async () => {
    const { first, second } = await openPair()
    const old = await openClient(first.broker.port)
    old.send(publishPacket(1))
    await until(() => first.ingest.held === 1)
    const next = await openRaw(second.broker.port)
    next.send(connectPacket())
    expect(second.ingest.catchUps).toBe(0)
    let look = () => {}
    second.ingest.catchingUp = () => new Promise(resolve => (look = resolve))
    first.ingest.settle()
    await until(() => second.ingest.catchUps === 1)
    expect(next.received).toEqual([])
    look()
    expect(await next.next()).toMatchObject({ cmd: 'connack', returnCode: 0, sessionPresent: false })
    await old.closed
    expect(acknowledged(old)).toEqual([1])
  })

  it('leaves what is kept of it where it was before it is served there', async () => {
    const { first, second } = await openPair()
    let open = () => {}
    let lefts = 0
    first.ingest.onOffer = ({ held }) => {
      if (held === null) return
      held.connection.leaving = () => {
        lefts++
        return new Promise(resolve => (open = resolve))
      }
    }
    const old = await openClient(first.broker.port)
    old.send(publishPacket(1))
    await until(() => first.ingest.held === 1)
    first.ingest.settle()
    const next = await openRaw(second.broker.port)
    next.send(connectPacket())
    await until(() => lefts === 1)
    expect(next.received).toEqual([])
    open()
    expect(await next.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    await old.closed
    await until(() => first.broker.connections === 0)
    expect(lefts).toBe(1)
  })

  it('is served after a second when what it had handed over does not become durable, and that is counted [G5]', async () => {
    const { first, second } = await openPair()
    const old = await openClient(first.broker.port)
    old.send(publishPacket(1))
    await until(() => first.ingest.held === 1)
    const [before, since] = [await counted('telemetry_sessions_moved_total', NOT_CAUGHT_UP), performance.now()]
    const { ms } = await timed(() => openClient(second.broker.port))
    expect(performance.now() - since).toBeGreaterThan(900)
    expect(ms).toBeLessThan(10_000)
    expect(await counted('telemetry_sessions_moved_total', NOT_CAUGHT_UP)).toBe(before + 1)
    first.ingest.settle()
  })

  it('is served all the same when the log cannot be read, and that is counted [G5]', async () => {
    const { first, second } = await openPair()
    await openClient(first.broker.port)
    second.ingest.catchingUp = () => Promise.reject(new Error('away'))
    const before = await counted('telemetry_sessions_moved_total', NOT_CAUGHT_UP)
    await openClient(second.broker.port)
    expect(await counted('telemetry_sessions_moved_total', NOT_CAUGHT_UP)).toBe(before + 1)
    expect(second.lines.join()).toContain('the log could not be read for a client of another broker')
  })

  it('is learnt of once more when it connects again after the log could not be read', async () => {
    const { first, second } = await openPair()
    await openClient(first.broker.port)
    second.ingest.catchingUp = () => Promise.reject(new Error('away'))
    const next = await openClient(second.broker.port)
    second.ingest.catchingUp = async () => {}
    await next.close()
    await openClient(second.broker.port)
    await openClient(second.broker.port)
    expect(second.ingest.catchUps).toBe(2)
  })

  it('is not served before its messages are known when its first try there broke off [G2]', async () => {
    const { sessions, first, second } = await openPair()
    const old = await openClient(first.broker.port)
    old.send(publishPacket(1))
    await until(() => first.ingest.held === 1)
    const broken = await openRaw(second.broker.port)
    broken.send(connectPacket())
    await until(() => sessions.holder(DEVICE) === 1)
    // A peer that only ends its half waits for its CONNACK.
    await broken.reset()
    await until(() => second.broker.connections === 0)
    let look = () => {}
    second.ingest.catchingUp = () => new Promise(resolve => (look = resolve))
    const next = await openRaw(second.broker.port)
    next.send(connectPacket())
    first.ingest.settle()
    await until(() => second.ingest.catchUps === 1)
    expect(next.received).toEqual([])
    look()
    expect(await next.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    expect(second.ingest.catchUps).toBe(1)
  })

  it('is not served before a try that is still under way is through [G2]', async () => {
    const { sessions, first, second } = await openPair()
    await openClient(first.broker.port)
    let open = () => {}
    sessions.gate = new Promise(resolve => (open = resolve))
    const [one, two] = [await openRaw(second.broker.port), await openRaw(second.broker.port)]
    one.send(connectPacket())
    await until(() => sessions.takes.length === 2)
    sessions.gate = Promise.resolve()
    two.send(connectPacket())
    // One that sends its CONNECT after that has its CONNACK.
    await openClient(second.broker.port, { clientId: 'press-18' })
    expect(two.received).toEqual([])
    expect(second.ingest.catchUps).toBe(0)
    open()
    expect(await two.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    expect(second.ingest.catchUps).toBe(1)
  })

  it('that went back and came again while its first try was under way is taken anew [G2]', async () => {
    const { sessions, first, second } = await openPair()
    await openClient(first.broker.port)
    const looks: (() => void)[] = []
    second.ingest.catchingUp = () => new Promise(resolve => looks.push(resolve))
    const stuck = await openRaw(second.broker.port)
    stuck.send(connectPacket())
    await until(() => looks.length === 1)
    const back = await openClient(first.broker.port)
    await stuck.closed
    const again = await openRaw(second.broker.port)
    again.send(connectPacket())
    await back.closed
    await until(() => looks.length === 2)
    looks[0]?.()
    await openClient(first.broker.port, { clientId: 'press-18' })
    expect(again.received).toEqual([])
    looks[1]?.()
    expect(await again.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
    expect(sessions.holder(DEVICE)).toBe(1)
    await until(() => first.space.online(DEVICE) === true)
  })

  it('finds the messages that it pipelined behind its CONNECT taken in order', async () => {
    const { first, second } = await openPair()
    await openClient(first.broker.port)
    let look = () => {}
    second.ingest.catchingUp = () => new Promise(resolve => (look = resolve))
    second.ingest.onOffer = () => setImmediate(() => second.ingest.settle())
    const next = await openRaw(second.broker.port)
    next.send(connectPacket())
    for (let id = 1; id <= 100; id++) next.send(publishPacket(id))
    await until(() => second.ingest.catchUps === 1)
    expect(second.ingest.offered).toEqual([])
    look()
    await next.count(101)
    expect(acknowledged(next)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1))
  })
})

describe('presence of a client that moves', () => {
  it('is never offline, whatever the will of its first connection says', async () => {
    const { first, second } = await openPair()
    const will = { topic: `devices/${DEVICE}/status`, payload: Buffer.from('offline'), qos: 1 as const, retain: false }
    const old = await openClient(first.broker.port, { will })
    await until(() => first.space.online(DEVICE) === true)
    const ignored = await counted('telemetry_presence_ignored_total', { reason: 'taken_over' })
    const next = await openClient(second.broker.port, { will })
    await old.closed
    await until(() => first.space.changes.length === 2)
    expect(await counted('telemetry_presence_ignored_total', { reason: 'taken_over' })).toBe(ignored + 1)
    await ping(next)
    await first.broker.close()
    expect(first.space.changes.map(({ online }) => online)).toEqual([true, true])
    await next.close()
    await until(() => first.space.online(DEVICE) === false)
  })

  it("leaves a gateway's devices offline until they speak through the other broker, even when that one's clock is behind", async () => {
    const { first, second } = await openPair()
    const space = first.space
    first.setClock(1_000_000)
    const old = await openClient(first.broker.port, { clientId: 'gateway' })
    old.send(publishPacket(1, { topic: 'devices/a/telemetry' }))
    old.send(publishPacket(2, { topic: 'devices/b/telemetry' }))
    await until(() => space.online('a') === true && space.online('b') === true)
    first.ingest.settle()
    first.setClock(1_060_000)
    second.setClock(1_059_000)
    const next = await openClient(second.broker.port, { clientId: 'gateway' })
    await until(() => space.online('a') === false && space.online('b') === false)
    next.send(publishPacket(1, { topic: 'devices/a/telemetry' }))
    await until(() => space.online('a') === true)
    expect(space.online('b')).toBe(false)
    expect(space.online('gateway')).toBe(true)
  })

  it('is offline when it goes before it is served, because its first broker leaves that to the second', async () => {
    const { first, second } = await openPair()
    await openClient(first.broker.port)
    await until(() => first.space.online(DEVICE) === true)
    let look = () => {}
    second.ingest.catchingUp = () => new Promise(resolve => (look = resolve))
    const next = await openRaw(second.broker.port)
    next.send(connectPacket())
    await until(() => second.ingest.catchUps === 1)
    await next.close()
    look()
    await until(() => first.space.online(DEVICE) === false)
    expect(second.broker.connections).toBe(0)
  })

  it('is no device when its id is none: nothing is said of it, also when it goes before it is served', async () => {
    const { sessions, first, second } = await openPair()
    const clientId = 'tenant/device'
    await openClient(first.broker.port, { clientId })
    let look = () => {}
    second.ingest.catchingUp = () => new Promise(resolve => (look = resolve))
    const next = await openRaw(second.broker.port)
    next.send(connectPacket({ clientId }))
    await until(() => second.ingest.catchUps === 1)
    await next.close()
    look()
    await until(() => sessions.holder(clientId) === null)
    await openClient(second.broker.port)
    await until(() => second.space.online(DEVICE) === true)
    for (const { space } of [first, second]) expect(space.changes.map(({ device }) => device)).not.toContain(clientId)
  })

  it('is offline when it goes before its session there is even taken', async () => {
    const { sessions, first, second } = await openPair()
    const old = await openClient(first.broker.port)
    await until(() => first.space.online(DEVICE) === true)
    let open = () => {}
    sessions.gate = new Promise(resolve => (open = resolve))
    const next = await openRaw(second.broker.port)
    next.send(connectPacket())
    await old.closed
    await next.close()
    await until(() => second.broker.connections === 0)
    open()
    await until(() => first.space.online(DEVICE) === false)
    expect(second.ingest.catchUps).toBe(1)
    await until(() => sessions.holder(DEVICE) === null)
  })

  it('is online when its first broker was not told, and closes the old connection, with its will, later', async () => {
    const { sessions, first, second } = await openPair()
    const will = { topic: `devices/${DEVICE}/status`, payload: Buffer.from('offline'), qos: 1 as const, retain: false }
    const old = await openClient(first.broker.port, { will })
    await until(() => first.space.online(DEVICE) === true)
    sessions.isUnheard = true
    await openClient(second.broker.port)
    await until(() => first.space.changes.length === 2)
    await old.close()
    await until(() => sessions.releases.length === 1)
    await first.broker.close()
    expect(first.space.online(DEVICE)).toBe(true)
    expect(sessions.disowned).toEqual([DEVICE])
    expect(sessions.holder(DEVICE)).toBe(1)
  })

  it('is online when nobody can tell whose it is as its old connection ends', async () => {
    const { sessions, first, second } = await openPair()
    const old = await openClient(first.broker.port)
    await until(() => first.space.online(DEVICE) === true)
    sessions.isUnheard = true
    const next = await openClient(second.broker.port)
    await until(() => first.space.changes.length === 2)
    sessions.forget(DEVICE)
    await old.close()
    await until(() => first.space.changes.length === 3)
    expect(first.space.online(DEVICE)).toBe(true)
    await next.close()
    await until(() => first.space.online(DEVICE) === false)
  })

  it('is disowned by its first broker, unless a gateway there speaks for it, too', async () => {
    const { sessions, first, second } = await openPair()
    await openClient(first.broker.port)
    await openClient(first.broker.port, { clientId: 'press-18' })
    const gateway = await openClient(first.broker.port, { clientId: 'gateway' })
    gateway.send(publishPacket(1, { topic: 'devices/press-18/telemetry' }))
    await until(() => first.ingest.held === 1)
    first.ingest.settle()
    await openClient(second.broker.port)
    await openClient(second.broker.port, { clientId: 'press-18' })
    await until(() => first.broker.connections === 1)
    await ping(gateway)
    expect(sessions.disowned).toEqual([DEVICE])
  })
})

describe('sessions', () => {
  it('are released when the last connection of the client ends, and when the broker closes', async () => {
    const { sessions, first, second } = await openPair()
    const client = await openClient(first.broker.port)
    await client.close()
    await until(() => sessions.holder(DEVICE) === null)
    await openClient(second.broker.port, { clientId: 'press-18' })
    await second.broker.close()
    expect(sessions.holder('press-18')).toBeNull()
  })

  it('stay with the newest connection when a client takes itself over on one broker', async () => {
    const { sessions, first } = await openPair()
    const old = await openClient(first.broker.port)
    const next = await openClient(first.broker.port)
    await old.closed
    await ping(next)
    expect(sessions.holder(DEVICE)).toBe(0)
    expect(sessions.releases).toEqual([])
    expect(first.ingest.catchUps).toBe(0)
    await next.close()
    await until(() => sessions.releases.length === 1)
  })

  it('are not taken for a client whose id the server makes up, nor for one that is refused', async () => {
    const { sessions, first } = await openPair()
    await openClient(first.broker.port, { clientId: '' })
    const refused = await openRaw(first.broker.port)
    refused.send(connectPacket({ clientId: 'no id\n' }))
    expect(await refused.next()).toMatchObject({ cmd: 'connack', returnCode: 2 })
    expect(sessions.takes).toEqual([])
  })

  it('that cannot be taken in time hold a client up for a while and no longer [G5]', async () => {
    const { sessions, first } = await openPair()
    let open = () => {}
    sessions.gate = new Promise(resolve => (open = resolve))
    const { ms } = await timed(() => openClient(first.broker.port))
    expect(ms).toBeLessThan(10_000)
    expect(first.ingest.catchUps).toBe(1)
    open()
  })

  it('of clients that left while they waited are let go of, and the broker closes in time with some waiting', async () => {
    const { sessions, first } = await openPair()
    let open = () => {}
    sessions.gate = new Promise(resolve => (open = resolve))
    const clients = await Promise.all(Array.from({ length: 20 }, () => openRaw(first.broker.port)))
    for (const [n, client] of clients.entries()) client.send(connectPacket({ clientId: `press-${n}` }))
    await until(() => sessions.takes.length === 20)
    for (const client of clients.slice(0, 10)) await client.close()
    await until(() => first.broker.connections === 10)
    await first.broker.close()
    open()
    await until(() => sessions.releases.length === 20)
    expect(first.ingest.offered).toEqual([])
  })
})

describe('more clients than may wait', () => {
  it('get CONNACK 3, and the next is served once there is room [G5]', async () => {
    const { sessions, first } = await openPair()
    let open = () => {}
    sessions.gate = new Promise(resolve => (open = resolve))
    const log = openSampledLog(pino({ level: 'silent' }), Date.now)
    const options = { ingest: first.ingest, serves: () => {}, lost: () => {}, clock: Date.now, log }
    const takeover = openTakeover({ sessions: sessions.broker(), ...options })
    const waiting = Array.from({ length: 4_096 }, (_, n) => takeover.admit(new Connection(new Socket()), `d-${n}`))
    expect(await takeover.admit(new Connection(new Socket()), 'one-more')).toBe('busy')
    open()
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['serve']))
    expect(await takeover.admit(new Connection(new Socket()), 'one-more')).toBe('serve')
  })
})
