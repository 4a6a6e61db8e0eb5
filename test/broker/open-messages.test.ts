/**
 * The argument of `broker/open-messages.ts`, attacked: a client that keeps to MQTT 3.1.1, with a persistent session and QoS 2, a
 * log, a store and brokers, in any order of sends, commits, losses of the connection, kills and late commits of a broker that
 * the client has left. Its messages say nothing that tells them apart and its packet identifiers are few, so that whatever is
 * wrongly taken for open, or not taken for it, is a message lost or stored twice.
 */
import { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { type ClientSessions, openClientSessions } from '../../broker/client-sessions.ts'
import { Connection } from '../../broker/connection.ts'
import { type Opened, OpenMessages } from '../../broker/open-messages.ts'
import { openSampledLog } from '../../broker/sampled-log.ts'
import { openMarks } from '../../ingest/marks.ts'
import { encodeLine } from '../../model/message.ts'
import { seeded } from '../crash/rounds.ts'
import { type HandStore, openHandStore } from './hand-store.ts'

const IDS = 3
const CONTENTS = ['0', '1']
const TOPIC = 'devices/press-17/telemetry'

interface Offered {
  readonly connection: Connection
  readonly packet: number
  readonly sent: Sent
  readonly opened: Opened | null
  isCommitted: boolean
}

/** What the client knows of one of its messages. */
interface Sent {
  /** Nobody but the test sees it. */
  readonly number: number
  readonly content: string
  state: 'sent' | 'received'
}

/** The log: how often each message was stored, by its number, and the lines. */
interface Log {
  readonly stored: number[]
  readonly lines: string[]
}

/** A process with its share of the log, and what it was given and has not settled. */
function openProcess(store: HandStore, log: Log, openMax: number) {
  const marks = openMarks()
  let readTo = 0
  let queue: Offered[] = []
  const got: { connection: Connection; kind: 'pubrec' | 'pubcomp'; packet: number }[] = []
  const sampled = openSampledLog(pino({ level: 'silent' }), Date.now)
  const sessions: ClientSessions = openClientSessions({
    store,
    ingest: { marksOf: life => marks.of(life) },
    complete: (connection, packet) => void got.push({ connection, kind: 'pubcomp', packet }),
    released: () => undefined,
    violated: connection => void connection.socket.destroy(),
    log: sampled,
    openMax,
  })

  return { sessions, got, catchUp, offer, commit, settle, kill, queued: () => queue.length }

  /** As ingest does at its start, and before a client of another broker is served; own lines are not read. */
  function catchUp(): void {
    marks.rememberLines(Buffer.from(log.lines.slice(readTo).join('\n')))
    readTo = log.lines.length
  }

  function offer(connection: Connection, packet: number, sent: Sent): void {
    const opened = sessions.open(connection, packet, TOPIC, Buffer.from(sent.content))
    queue.push({ connection, packet, sent, opened, isCommitted: false })
  }

  function commit(count: number): void {
    const isRead = readTo === log.lines.length
    for (const message of queue.slice(0, count)) {
      if (message.isCommitted) continue
      message.isCommitted = true
      if (message.opened === null) continue
      log.stored[message.sent.number] = (log.stored[message.sent.number] ?? 0) + 1
      const extras = { packet: message.packet, mark: message.opened.mark }
      log.lines.push(encodeLine({ device: 'press-17', receivedAt: 1_763_640_000_000_000, readings: [] }, extras))
    }
    if (isRead) readTo = log.lines.length
  }

  function settle(): void {
    while (queue[0]?.isCommitted === true) {
      const { opened, connection, packet } = queue.shift() as Offered
      opened?.settle()
      got.push({ connection, kind: 'pubrec', packet })
    }
  }

  /** What it had not made durable is gone. */
  function kill(): void {
    queue = []
  }
}

type Process = ReturnType<typeof openProcess>

interface Played {
  /** How often each message was stored that the client did not give up. */
  readonly stored: readonly number[]
  /** How many may have been stored twice, because a broker that the client has left had not settled. */
  readonly doubtful: number
  readonly present: number
  readonly absent: number
}

interface Chances {
  readonly steps: number
  /** The client moves between brokers, and those before commit late. */
  readonly isLate?: boolean
  /** The store is away now and then; a client that hears "no session" gives up what it has sent. */
  readonly isAway?: boolean
  /** The most messages that are open in all. */
  readonly openMax?: number
}

async function play(seed: number, chances: Chances): Promise<Played> {
  const random = seeded(seed)
  const { openMax = 100 } = chances
  const below = (count: number) => Math.floor(random() * count)
  const store = openHandStore()
  const log: Log = { stored: [], lines: [] }
  const processes: Process[] = [openProcess(store, log, openMax)]
  let here = processes[0] as Process
  let connection: Connection | null = null
  const flying = new Map<number, Sent>()
  const givenUp = new Set<number>()
  const counts = { doubtful: 0, present: 0, absent: 0 }
  for (let step = 0; step < chances.steps; step++) await doOne()
  await finish()
  return { ...counts, stored: log.stored.filter((_, number) => !givenUp.has(number)) }

  async function doOne(): Promise<void> {
    const chance = random()
    if (connection === null) await connect()
    else if (chance < 0.35) send()
    else if (chance < 0.5) here.commit(below(4) + 1)
    else if (chance < 0.65) settleAndHear()
    else if (chance < 0.7) release()
    else if (chance < 0.75) store.flush()
    else if (chance < 0.85) await lose()
    else if (chance < 0.9) await killHere()
    else if (chance < 0.93 && chances.isAway === true) store.isAway = !store.isAway
    else if (chances.isLate === true) await move()
    await turn()
    hear()
  }

  function send(): void {
    const packet = Array.from({ length: IDS }, (_, at) => at + 1).find(id => !flying.has(id))
    if (packet === undefined || connection === null) return
    const content = CONTENTS[below(CONTENTS.length)] as string
    const sent: Sent = { number: log.stored.push(0) - 1, content, state: 'sent' }
    flying.set(packet, sent)
    here.offer(connection, packet, sent)
  }

  function settleAndHear(): void {
    here.settle()
    hear()
  }

  /** What has arrived of the broker's answers; a PUBREC is followed by PUBREL at once, or with the next step. */
  function hear(): void {
    for (const { connection: to, kind, packet } of here.got.splice(0)) {
      const sent = flying.get(packet)
      if (to !== connection || sent === undefined) continue
      if (kind === 'pubcomp') flying.delete(packet)
      else {
        sent.state = 'received'
        if (random() < 0.7) here.sessions.release(to, packet)
      }
    }
  }

  function release(): void {
    if (connection === null) return
    for (const [packet, { state }] of flying) if (state === 'received') here.sessions.release(connection, packet)
  }

  async function lose(): Promise<void> {
    const old = connection
    connection = null
    old?.socket.destroy()
    if (old === null) return
    here.sessions.ended(old)
    // The wait for what is on its way into the log has its bound.
    if (random() < 0.5) {
      here.commit(here.queued())
      here.settle()
    }
    await old.leaving?.()
  }

  async function killHere(): Promise<void> {
    // A broker that is killed while the store is away cannot keep what it said.
    if (chances.isAway === true) await storeBack()
    // The commit under way may have reached the disk.
    here.commit(below(here.queued() + 1))
    here.kill()
    processes.splice(processes.indexOf(here), 1)
    store.kill()
    connection?.socket.destroy()
    connection = null
    // A process that was killed does not come back.
    processes.splice(processes.indexOf(here), 1)
    here = openProcess(store, log, openMax)
    processes.push(here)
    here.catchUp()
  }

  async function storeBack(): Promise<void> {
    store.isAway = false
    store.pay()
    await turn()
  }

  /** To another broker, which learns the log; what the one before has not settled by then may come late. */
  async function move(): Promise<void> {
    const old = here
    await lose()
    if (old.queued() > 0) counts.doubtful++
    here = processes[below(processes.length)] as Process
    if (here === old || random() < 0.3) {
      here = openProcess(store, log, openMax)
      processes.push(here)
    }
    for (const other of processes) if (other !== here && random() < 0.5) other.commit(other.queued())
    here.catchUp()
  }

  async function connect(): Promise<void> {
    const opened = new Connection(new Socket())
    const isPresent = await here.sessions.begin(opened, 'press-17', false)
    if (isPresent) counts.present++
    else counts.absent++
    connection = opened
    if (!isPresent && chances.isAway === true) giveUp()
    for (const [packet, sent] of flying) {
      if (sent.state === 'received') here.sessions.release(opened, packet)
      else here.offer(opened, packet, sent)
    }
  }

  function giveUp(): void {
    for (const { number } of flying.values()) givenUp.add(number)
    flying.clear()
  }

  async function finish(): Promise<void> {
    store.isAway = false
    for (let tries = 0; flying.size > 0; tries++) {
      if (tries > 2_000) throw new Error(`Not all was taken: ${JSON.stringify([...flying])}`)
      if (connection === null) await connect()
      here.commit(here.queued())
      settleAndHear()
      release()
      await (tries < 20 ? turn() : pause(5))
      hear()
    }
    for (const each of processes) each.commit(each.queued())
  }
}

/** Lets saves and what waits for them run. */
async function turn(): Promise<void> {
  for (let times = 0; times < 3; times++) await new Promise(resolve => setImmediate(resolve))
}

it('PUBCOMP of a message that was forgotten for want of room waits for a record that is beyond its mark', async () => {
  const [store, log] = [openHandStore(), { stored: [0], lines: [] }]
  const { sessions, got, offer, commit, settle } = openProcess(store, log, 0)
  const connection = new Connection(new Socket())
  await sessions.begin(connection, 'press-17', false)
  await sessions.subscribe(connection, 'devices/press-17/cmd/x', 1)
  offer(connection, 1, { number: 0, content: '0', state: 'sent' })
  commit(1)
  settle()
  sessions.release(connection, 1)
  await turn()
  expect(got.map(({ kind }) => kind)).toEqual(['pubrec', 'pubcomp'])
  expect(store.disk.get('press-17')).toMatchObject({ opened: 1, open: [] })
})

it('of clients that left while the store took nothing so many are known as may be, the latest [G5]', async () => {
  const store = openHandStore()
  const sessions = openClientSessions({
    store,
    ingest: { marksOf: () => [] },
    complete: () => undefined,
    released: () => undefined,
    violated: () => undefined,
    log: openSampledLog(pino({ level: 'silent' }), Date.now),
    leftMax: 2,
  })
  const come = async (client: string) => {
    const connection = new Connection(new Socket())
    await sessions.begin(connection, client, false)
    return { connection, opened: sessions.open(connection, 1, TOPIC, Buffer.from('0')) }
  }
  const clients = ['one', 'two', 'three']
  for (const client of clients) {
    const { connection, opened } = await come(client)
    opened?.settle()
    store.isAway = true
    await connection.leaving?.()
    store.isAway = false
  }
  const known = []
  for (const client of clients.toReversed()) if ((await come(client)).opened === null) known.push(client)
  expect(known).toEqual(['three', 'two'])
})

it('clients that release nothing leave room for the messages of all others', () => {
  let forgotten = 0
  const room = { used: 0, max: 4_096, makeRoom: () => false, forgot: () => void forgotten++ }
  const payload = Buffer.from('1')
  const greedy = Array.from({ length: 8 }, () => new OpenMessages(room, null))
  for (let packet = 1; packet <= 5_000; packet++) for (const each of greedy) each.open(packet, TOPIC, payload)
  const others = Array.from({ length: 50 }, () => new OpenMessages(room, null))
  for (const other of others) for (let packet = 1; packet <= 10; packet++) other.open(packet, TOPIC, payload)
  for (const other of others) expect(other.open(1, TOPIC, payload)).toBeNull()
  expect(room.used).toBe([...greedy, ...others].reduce((sum, { size }) => sum + size, 0))
  expect(room.used).toBeLessThan(room.max)
  expect(forgotten).toBe(8 * 5_000 + 50 * 10 - room.used)
})

describe('QoS 2 with a persistent session, whatever happens when', () => {
  it('loses nothing and stores nothing twice, through losses of the connection and kills', async () => {
    let sent = 0
    for (let seed = 1; seed <= 200; seed++) {
      const { stored, absent } = await play(seed, { steps: 120 })
      expect(stored, `seed ${seed}`).toEqual(stored.map(() => 1))
      expect(absent).toBe(1)
      sent += stored.length
    }
    expect(sent).toBeGreaterThan(1_500)
  }, 120_000)

  it('loses nothing where a client moves between brokers that commit late, and stores twice only what was late', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const { stored, doubtful } = await play(seed, { steps: 120, isLate: true })
      expect(Math.min(...stored), `seed ${seed}`).toBeGreaterThanOrEqual(1)
      const twice = stored.reduce((sum, times) => sum + times - 1, 0)
      expect(twice, `seed ${seed}`).toBeLessThanOrEqual(doubtful * IDS)
    }
  }, 120_000)

  it('loses nothing where there is room for few, and stores twice what it forgets', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const { stored } = await play(seed, { steps: 120, openMax: 1, isLate: seed % 2 === 0 })
      expect(Math.min(...stored), `seed ${seed}`).toBeGreaterThanOrEqual(1)
    }
  }, 120_000)

  it('loses nothing where the store is away now and then, and the client gives up what "no session" tells it to', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const { stored } = await play(seed, { steps: 120, isAway: true })
      expect(Math.min(1, ...stored), `seed ${seed}`).toBe(1)
    }
  }, 120_000)
})
