/** What Kafka, its network and other writers do to the log, with a real broker: nothing is lost, nothing is there twice. */
import { type ChildProcess, fork } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import kafkajs from 'kafkajs'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Batch, Consumption } from '../../pump/pump.ts'
import { batchOf, deferred, holdClaim, lineOf, rejection } from '../contracts/pump-samples.ts'
import { type KafkaServer, kafkaHere, startKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'
import type { ChildOrder, FromChild } from './kafka-child.ts'
import { type KafkaHarness, openKafkaHarness } from './kafka-harness.ts'
import { ALL, countLines, LINES, onceEach, startLoad } from './kafka-load.ts'
import { type KafkaProxy, openKafkaProxy } from './kafka-proxy.ts'
import { miniWriter, openSink, type Sink } from './kafka-sink.ts'

describe.skipIf(!kafkaHere)('the log in Kafka', () => {
  let kafka: KafkaServer
  let proxy: KafkaProxy
  let harness: KafkaHarness
  beforeAll(async () => {
    proxy = await openKafkaProxy()
    kafka = await startKafka({ advertisedPort: proxy.port })
    proxy.target = kafka.port
  })
  afterAll(async () => {
    await proxy.close()
    await kafka.stop()
  })
  afterEach(() => harness.destroy())
  const open = async (partitions: number, metadataMs = 60_000) => {
    harness = await openKafkaHarness({ brokers: `127.0.0.1:${proxy.port}`, partitions, metadataMs })
    return harness
  }

  describe('when the broker is killed under load', () => {
    it('holds each acknowledged batch once, and no other [G1]', async () => {
      const { openInlet, openView } = await open(3)
      const load = startLoad(await openInlet())
      for (let round = 0; round < 3; round++) {
        await load.acked(30 * (round + 1))
        await kafka.kill()
        await pause(200)
        await kafka.restart()
      }
      await load.acked(150)
      const acked = await load.stop()
      const held = await countLines(await openView())
      expect(held).toEqual(onceEach(acked))
    })
  })

  describe.each(['close', 'cut', 'drop'] as const)('when answers to its writes are lost (%s)', fate => {
    it('holds each acknowledged batch once [G1]', async () => {
      const { openInlet, openView } = await open(3)
      const inlet = await openInlet()
      let answers = 0
      const every = fate === 'drop' ? 40 : 7
      proxy.fate = () => (++answers % every === 0 ? fate : 'pass')
      const before = proxy.keptBack
      const load = startLoad(inlet)
      await load.acked(fate === 'drop' ? 100 : 200)
      const acked = await load.stop()
      proxy.fate = () => 'pass'
      expect(proxy.keptBack - before).toBeGreaterThan(1)
      expect(await countLines(await openView())).toEqual(onceEach(acked))
    })
  })

  describe('when writers come and go under load', () => {
    it('gives each partition to one writer at a time, and each line reaches the table once [G2]', async () => {
      const { openInlet, openOutlet } = await open(6)
      const load = startLoad(await openInlet())
      const sink = openSink(() => Math.random() * 40)
      const writers: Consumption[] = []
      for (const step of ['join', 'join', 'join', 'leave', 'join', 'leave', 'leave', 'join']) {
        const before = load.count
        if (step === 'leave') await writers.shift()?.stop()
        else writers.push(await startWriter(openOutlet, sink))
        await load.acked(before + 40)
      }
      const acked = await load.stop()
      await settledRows(sink, acked.length)
      for (const writer of writers) await writer.stop()
      expect(sink.rows).toEqual(onceEach(acked))
      expect(sink.overlaps).toBe(0)
    })
  })

  describe('when a writer is frozen past its session, and woken', () => {
    it('has given its partitions to another, and refuses its commit [G2]', async () => {
      const { openInlet, openOutlet, openView, options } = await open(2)
      const inlet = await openInlet()
      const sink = openSink()
      const child = await startChild(options, sink)
      for (let number = 0; number < 20; number++) await inlet.append(batchOf(number * LINES, LINES))
      await child.planned
      child.process.kill('SIGSTOP')
      const other = await startWriter(openOutlet, sink)
      await settledRows(sink, 20 * LINES)
      const lost = child.lost()
      child.answerPlan()
      child.process.kill('SIGCONT')
      expect(await lost).toBe('log_claim_lost')
      for (let number = 20; number < 40; number++) await inlet.append(batchOf(number * LINES, LINES))
      await settledRows(sink, 40 * LINES)
      const view = await openView()
      await until(async () =>
        (await view.books()).partitions.every(books => books.readingsCommitted === books.readingsAppended),
      )
      child.process.kill('SIGKILL')
      await other.stop()
      expect(sink.rows).toEqual(onceEach(Array.from({ length: 40 * LINES }, (_, n) => lineOf(n))))
    })
  })

  describe('when its coordinator is killed and comes back', () => {
    it('goes on with the same writers', async () => {
      const { openInlet, openOutlet } = await open(2)
      const load = startLoad(await openInlet())
      const sink = openSink(() => 5)
      const writer = await startWriter(openOutlet, sink)
      await load.acked(30)
      await kafka.kill()
      await kafka.restart()
      await load.acked(100)
      const acked = await load.stop()
      await settledRows(sink, acked.length)
      await writer.stop()
      expect(sink.rows).toEqual(onceEach(acked))
    })
  })

  it('refuses the commit of a claim whose partition went to another while it kept others [G2]', async () => {
    const { openInlet, openOutlet, openView } = await open(2)
    const inlet = await openInlet()
    for (let number = 0; number < 8; number++) await inlet.append(batchOf(number, 1, BIG))
    const claims = new Map<number, Parameters<Parameters<typeof startClaims>[1]>[0]>()
    const first = await startClaims(await openOutlet(), claim => void claims.set(claim.partition, claim), 2)
    const before = new Map(claims)
    const second = await startClaims(await openOutlet(), () => {}, 1)
    for (const claim of before.values()) {
      expect((await rejection(claim.commit(claim.position + 1, null))).code).toBe('log_claim_lost')
    }
    const places = await (await openView()).places()
    expect(places.map(({ committed }) => committed)).toEqual([0, 0])
    await Promise.all([first.stop(), second.stop()])
  })

  it('uses partitions that an operator adds while it runs [G2]', async () => {
    const { openInlet, openOutlet, openView, options } = await open(1, 200)
    const inlet = await openInlet()
    const view = await openView()
    const sink = openSink()
    const writer = await startWriter(openOutlet, sink)
    await asOperator(options.brokers, async admin => {
      await admin.createPartitions({ topicPartitions: [{ topic: options.topic, count: 3 }] })
    })
    const sent: string[] = []
    for (let number = 0; (await view.places()).filter(({ end }) => end > 0).length < 3; number++) {
      // Larger than what a partition takes in one turn.
      const line = `${lineOf(number)}${' '.repeat(1 << 20)}`
      await inlet.append(batchOf(number, 1, { lines: Buffer.from(line) }))
      sent.push(line)
    }
    await settledRows(sink, sent.length)
    await writer.stop()
    expect(sink.rows).toEqual(onceEach(sent))
  })

  it('is another log once its topic is made anew, and tells whoever has it open', async () => {
    const { openInlet, openOutlet, openView, options } = await open(1)
    const inlet = await openInlet()
    await inlet.append(batchOf(0, 3))
    const outlet = await openOutlet()
    const held = await holdClaim(outlet)
    await held.claim.commit(1, null)
    const { source } = held.claim
    await asOperator(options.brokers, admin => admin.deleteTopics({ topics: [options.topic] }))
    await untilMade(async () => (await openInlet()).append(batchOf(10, 4)))
    expect((await rejection(held.consumption.ended)).code).toBe('log_replaced')
    const view = await openView()
    const [place] = (await view.books()).partitions
    expect(place).toMatchObject({ committed: 0, end: 1, readingsAppended: 4, readingsCommitted: 0 })
    expect(place?.source).not.toBe(source)
    const again = await holdClaim(await openOutlet())
    expect(again.claim).toMatchObject({ position: 0, plan: null, source: place?.source })
    await again.end()
  })

  it('shows a writer where the log begins when what it planned was removed', async () => {
    const { openInlet, openOutlet, options } = await open(1)
    const inlet = await openInlet()
    for (let number = 0; number < 6; number++) await inlet.append(batchOf(number, 1))
    const held = await holdClaim(await openOutlet())
    await held.claim.commit(0, { to: 4, mode: 'whole' })
    const removal = { topic: options.topic, partitions: [{ partition: 0, offset: '2' }] }
    await asOperator(options.brokers, async admin => {
      await admin.fetchTopicMetadata({ topics: [options.topic] })
      await admin.deleteTopicRecords(removal)
    })
    const chunks = await held.claim.read(0, ALL)
    expect(chunks.map(({ position }) => position)).toEqual([2, 3, 4, 5])
    await held.end()
  })
})

const BIG: Partial<Batch> = { lines: Buffer.from(`${lineOf(0)}${' '.repeat(1 << 20)}`) }

async function startWriter(openOutlet: KafkaHarness['openOutlet'], sink: Sink): Promise<Consumption> {
  const outlet = await openOutlet()
  return outlet.consume(miniWriter({ insert: sink.insert, chunksMax: () => 1 + Math.floor(Math.random() * 9) }))
}

async function startClaims(
  outlet: Awaited<ReturnType<KafkaHarness['openOutlet']>>,
  claimed: (claim: Parameters<Parameters<typeof outlet.consume>[0]>[0]) => void,
  count: number,
): Promise<Consumption> {
  let seen = 0
  const enough = deferred<void>()
  const consumption = outlet.consume(async claim => {
    claimed(claim)
    if (++seen >= count) enough.resolve()
    await new Promise<void>(resolve => claim.lost.addEventListener('abort', () => resolve()))
  })
  await enough.promise
  return consumption
}

async function settledRows(sink: Sink, rows: number): Promise<void> {
  while (sink.rows.size < rows) await pause(25)
}

async function asOperator(brokers: readonly string[], work: (admin: kafkajs.Admin) => Promise<void>): Promise<void> {
  const admin = new kafkajs.Kafka({ brokers: [...brokers], logLevel: 0 }).admin()
  await admin.connect()
  await work(admin).finally(() => admin.disconnect())
}

/** A topic that is being deleted cannot be made for a moment. */
async function untilMade(work: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (tries === 40) throw error
      await pause(250)
    }
  }
}

interface Child {
  readonly process: ChildProcess
  /** Resolves at its first plan, which waits for its answer. */
  readonly planned: Promise<void>
  answerPlan(): void
  /** The code of the error that its next claim ends with. */
  lost(): Promise<string>
}

async function startChild(options: KafkaHarness['options'], sink: Sink): Promise<Child> {
  const program = fileURLToPath(new URL('../../dist/test/pump/kafka-child.js', import.meta.url))
  const child = fork(program, { execArgv: [] })
  const { log: _, ...rest } = options
  child.on('error', () => {})
  child.send({ ...rest, sessionMs: 2_000 } satisfies ChildOrder)
  const planned = deferred<void>()
  let plans = 0
  let lost = deferred<string>()
  child.on('message', async (message: FromChild) => {
    if (message.kind === 'lost') lost.resolve(message.code)
    else if (message.kind === 'insert') {
      await sink.insert(message.insert)
      child.send('done')
    } else if (plans++ === 0) planned.resolve()
    else child.send('go on')
  })
  return {
    process: child,
    planned: planned.promise,
    answerPlan: () => void child.send('go on'),
    lost: () => {
      lost = deferred<string>()
      return lost.promise
    },
  }
}
