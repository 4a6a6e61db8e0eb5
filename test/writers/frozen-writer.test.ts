/**
 * [G2] A writer's process that is stopped by SIGSTOP in the middle of its work, while another takes over its partition of the real
 * log, and that is woken later: on the real engine.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { describeVerdict, verify } from '../../manager/verify.ts'
import { encodeLine } from '../../model/message.ts'
import type { PumpInlet, PumpView } from '../../pump/pump.ts'
import { onlyLines } from '../contracts/pump-samples.ts'
import { type Fixture, openFixture, rows } from '../database/database-fixture.ts'
import { type LmdbHarness, openLmdbHarness } from '../pump/lmdb-harness.ts'
import { until } from '../waits.ts'
import { startWriterProcess } from './writer-process.ts'

const RECEIVED_AT = Date.UTC(2026, 10, 20, 12)
const ROUNDS = 3
/** Until one was frozen in the middle of a batch, and the other wrote it meanwhile. */
const ROUNDS_MAX = 20
const FROZEN_MS_MAX = 10_000
const CHUNKS = 6
const READINGS = 2_000

let engine: Fixture
let log: LmdbHarness
let view: PumpView
let inlet: PumpInlet
const children = new Set<ChildProcess>()

beforeEach(async () => {
  engine = await openFixture()
  await engine.database.migrate()
  log = await openLmdbHarness()
  inlet = await log.openInlet()
  view = await log.openView()
})

afterEach(async () => {
  for (const child of children) await end(child)
  await log.destroy()
  await engine.close()
})

it('stores nothing twice, loses nothing, and the books balance', async () => {
  let appended = 0
  let caught = 0
  for (let round = 0; round < ROUNDS || (caught === 0 && round < ROUNDS_MAX); round++) {
    const first = await startWriter()
    for (let chunk = 0; chunk < CHUNKS; chunk++) await append(appended++)
    // Later in each round: before its insert, in the middle of it, or after it.
    await until(async () => {
      const now = await partition()
      return now.plan !== null || isWritten(now)
    })
    await pause((round % ROUNDS) * 20)
    first.kill('SIGSTOP')
    const inTheMiddle = (await partition()).plan !== null

    const second = await startWriter()
    // In the middle of a commit it holds LMDB's lock, which it gives back when it goes on.
    let woken = false
    const waking = setTimeout(() => {
      woken = true
      first.kill('SIGCONT')
    }, FROZEN_MS_MAX)
    await until(async () => isWritten(await partition()))
    clearTimeout(waking)
    if (inTheMiddle && !woken) caught++
    first.kill('SIGCONT')
    // Both want the partition now, and have more to write.
    for (let chunk = 0; chunk < CHUNKS; chunk++) await append(appended++)
    await until(async () => isWritten(await partition()))
    await Promise.all([first, second].map(end))
  }
  expect(caught).toBeGreaterThan(0)
  const last = await startWriter()
  await until(async () => isWritten(await partition()))
  await end(last)
  const total = appended * READINGS
  const [counts] = await rows(
    engine.writer,
    `SELECT count(), uniqExact(source_position, source_index), (SELECT sum(readings) FROM telemetry_internal.readings_1m),
       (SELECT sum(readings) FROM telemetry_internal.readings_1h) FROM telemetry.readings`,
  )
  expect(counts).toEqual([total, total, total, total])
  const verdict = await verify(view, engine.database)
  expect(verdict.balanced, describeVerdict(verdict)).toBe(true)
})

async function append(number: number): Promise<void> {
  const at = RECEIVED_AT + number
  const line = (n: number) => {
    const receivedAt = at * 1_000
    const readings = Array.from({ length: 10 }, (_, i) => ({
      metric: `m${i}`,
      ts: receivedAt,
      receivedAt,
      value: n,
      sentTs: null,
    }))
    return encodeLine({ device: `press-${n % 20}`, receivedAt, readings })
  }
  const lines = Array.from({ length: READINGS / 10 }, (_, n) => line(n)).join('\n')
  await inlet.append({
    lines: Buffer.from(lines),
    ...onlyLines(READINGS / 10),
    readings: READINGS,
    firstReceivedAt: at,
    lastReceivedAt: at,
  })
}

async function startWriter(): Promise<ChildProcess> {
  const child = await startWriterProcess(log.dir, engine.access, {
    batchRows: 3 * READINGS,
    batchMs: 50,
    logLevel: 'fatal',
  })
  children.add(child)
  return child
}

async function end(child: ChildProcess): Promise<void> {
  if (!children.delete(child) || child.exitCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

async function partition() {
  const [place] = await view.places()
  if (place === undefined) throw new Error('The log has no partition.')
  return place
}

function isWritten({ committed, end: endOfLog, plan }: Awaited<ReturnType<typeof partition>>): boolean {
  return committed === endOfLog && plan === null
}
