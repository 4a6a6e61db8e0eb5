/**
 * The writer on the real log and the real engine, with rows that ClickHouse refuses: a constraint that an operator added.
 * All others are stored once and counted once, whoever is killed while the batch is taken apart.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { describeEntries } from '../../manager/quarantine.ts'
import { describeVerdict, verify } from '../../manager/verify.ts'
import { encodeLine } from '../../model/message.ts'
import type { Reading } from '../../model/reading.ts'
import type { PumpBooks, PumpView } from '../../pump/pump.ts'
import { openWriter } from '../../writers/writer.ts'
import { onlyLines } from '../contracts/pump-samples.ts'
import { openProxy } from '../database/clickhouse-proxy.ts'
import { type Fixture, openFixture, rows } from '../database/database-fixture.ts'
import { type LmdbHarness, openLmdbHarness } from '../pump/lmdb-harness.ts'
import { until } from '../waits.ts'
import { startWriterProcess } from './writer-process.ts'

const RECEIVED_AT = Date.UTC(2026, 10, 20, 12)
const PACE = { batchRows: 100_000, batchMs: 200, logLevel: 'error' }
const CHUNKS = 3
const MESSAGES = 10
/** Of each message: a number, a text, and now and then what is refused. */
const PLAIN_READINGS = 2

let engine: Fixture
let log: LmdbHarness
let view: PumpView

beforeEach(async () => {
  engine = await openFixture()
  await engine.database.migrate()
  await engine.writer.command({
    query: "ALTER TABLE telemetry.readings ADD CONSTRAINT no_poison CHECK metric != 'poison'",
  })
  log = await openLmdbHarness()
  view = await log.openView()
})

afterEach(async () => {
  await log.destroy()
  await engine.close()
})

describe('readings that ClickHouse refuses', () => {
  it('become dead letters with reason and line; all others are stored once, and the books balance [G2] [G7]', async () => {
    const poisoned = await appendAll(message => message % 10 === 7)
    const writer = await startWriter()
    await written()
    await writer.stop()
    await expectExact(poisoned)
    const [entry] = await view.quarantine(1)
    expect(entry).toMatchObject({ id: `r${poisoned.length}`, reason: 'database_refuses_rows', device: 'press-0' })
    expect(entry?.detail).toMatch(/no_poison/)
    expect(Buffer.from(entry?.bytes ?? []).toString()).toBe(lineOf(poisoned.at(-1) ?? 0, true))
    expect(await view.quarantineEntry('r1')).toMatchObject({ id: 'r1', device: 'press-0' })
    expect(describeEntries(await view.quarantine(10))).toMatch(/^r1 .* database_refuses_rows /m)
  })

  it('are found the same way by the next writer when one is killed while it takes a batch apart [G2] [G7]', async () => {
    const poisoned = await appendAll(message => message % 13 === 7)
    for (const inserts of [6, 12]) {
      await killAtInsert(inserts)
      expect(await partition()).toMatchObject({ readingsCommitted: 0, plan: { mode: 'bisected' } })
    }
    expect(await storedRows()).toBeGreaterThan(0)
    expect(await storedRows()).toBeLessThan(CHUNKS * MESSAGES * PLAIN_READINGS)
    const writer = await startWriter()
    await written()
    await writer.stop()
    await expectExact(poisoned)
  })
})

/** Appends CHUNKS chunks of MESSAGES messages each; returns the numbers of those that hold what is refused. */
async function appendAll(isPoisoned: (message: number) => boolean): Promise<number[]> {
  const inlet = await log.openInlet()
  const poisoned: number[] = []
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const numbers = Array.from({ length: MESSAGES }, (_, n) => chunk * MESSAGES + n)
    const bad = numbers.filter(isPoisoned)
    poisoned.push(...bad)
    await inlet.append({
      lines: Buffer.from(numbers.map(number => lineOf(number, isPoisoned(number))).join('\n')),
      ...onlyLines(numbers.length),
      readings: numbers.length * PLAIN_READINGS + bad.length,
      firstReceivedAt: RECEIVED_AT + (numbers[0] ?? 0),
      lastReceivedAt: RECEIVED_AT + (numbers.at(-1) ?? 0),
    })
  }
  return poisoned
}

function lineOf(number: number, poisoned: boolean): string {
  const ts = (RECEIVED_AT + number) * 1_000
  const reading = (metric: string, value: number | string): Reading => ({
    metric,
    ts,
    receivedAt: ts,
    sentTs: ts,
    value,
  })
  const plain = [reading('temperature', number), reading('phase', `p${number}`)]
  const readings = poisoned ? [reading('poison', number), ...plain] : plain
  return encodeLine({ device: 'press-0', receivedAt: ts, readings })
}

async function startWriter() {
  const outlet = await log.openOutlet()
  const limits = { rowsMax: 100_000, bytesMax: 64 << 20 }
  const { database } = engine
  const silent = pino({ level: 'silent' })
  return openWriter({ outlet, database, limits, batchAgeMsMax: 200, retryMsMin: 10, log: silent })
}

/** The insert at which it is killed still reaches the engine. */
async function killAtInsert(number: number): Promise<void> {
  let inserts = 0
  let child: ChildProcess | null = null
  const answer = (sql: string) => {
    if (sql.startsWith('INSERT INTO readings ') && ++inserts === number) child?.kill('SIGKILL')
    return null
  }
  const proxy = await openProxy(engine.server.url, { answer })
  child = await startWriterProcess(log.dir, { ...engine.server.access, url: proxy.url }, PACE)
  const [, signal] = await once(child, 'exit')
  expect(signal).toBe('SIGKILL')
  await proxy.close()
}

async function expectExact(poisoned: readonly number[]): Promise<void> {
  const messages = CHUNKS * MESSAGES
  const stored = messages * PLAIN_READINGS
  const [counts] = await rows(
    engine.writer,
    `SELECT count(), uniqExact(source_position, source_index), uniqExact(metric, ts), countIf(metric = 'poison'),
       sum(value), (SELECT sum(readings) FROM telemetry_internal.readings_1m), (SELECT sum(readings) FROM telemetry_internal.readings_1h),
       (SELECT sum(value_sum) FROM telemetry_internal.readings_1h) FROM telemetry.readings`,
  )
  const sum = (messages * (messages - 1)) / 2
  expect(counts).toEqual([stored, stored, stored, 0, sum, messages, messages, sum])
  const letters = await view.quarantine(1_000)
  const texts = letters.map(({ bytes }) => Buffer.from(bytes).toString())
  expect(texts.sort()).toEqual(poisoned.map(number => lineOf(number, true)).sort())
  const verdict = await verify(view, engine.database)
  expect(verdict, describeVerdict(verdict)).toMatchObject({ balanced: true, quarantined: 0 })
  expect(verdict.partitions).toMatchObject([
    { accepted: stored + poisoned.length, stored, deadLetters: poisoned.length, inLog: 0, difference: 0 },
  ])
}

async function partition(): Promise<PumpBooks['partitions'][number]> {
  const { partitions } = await view.books()
  if (partitions[0] === undefined) throw new Error('The log has no partition.')
  return partitions[0]
}

async function storedRows(): Promise<number> {
  const [[count] = []] = await rows(engine.writer, 'SELECT count() FROM telemetry.readings')
  return Number(count)
}

function written(): Promise<number> {
  return until(async () => {
    const { readingsAppended, readingsCommitted, plan } = await partition()
    return readingsCommitted === readingsAppended && plan === null
  }, 'all is written')
}
