/** The end of a system, asked for or not: it ends in time, leaves no process behind, and the next start goes on. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Fleet, openFleet } from '../../bench/generator.ts'
import { check, type FleetJournal, holds, openJournal } from '../crash/checker.ts'
import {
  freePorts,
  killProcess,
  type RunningSystem,
  type SystemOptions,
  startSystem,
  untilGone,
} from '../crash/system.ts'
import { accepts } from '../free-port.ts'
import { until } from '../waits.ts'

const DEVICES = 50
const RATE = 2_000

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-stop-'))
let system: SystemOptions
let running: RunningSystem
let fleet: Fleet
let journal: FleetJournal

beforeAll(async () => {
  system = { dataDir, ports: await freePorts() }
  running = await startSystem(system)
  journal = openJournal()
  const devices = Array.from({ length: DEVICES }, (_, n) => `stop-${String(n).padStart(2, '0')}`)
  fleet = await openFleet({ port: system.ports.mqtt, devices, connections: DEVICES, window: 50, rate: RATE, journal })
  fleet.start()
})

afterAll(async () => {
  fleet.close()
  await running.killTree()
  rmSync(dataDir, { recursive: true, force: true })
})

/** The fleet publishes all the while: each test ends with a system that it goes on with. */
describe('under load', () => {
  it('SIGTERM drains, ends every process and exits with 0 [G1]', async () => {
    await acknowledgedMore()
    const all = await processes()
    const since = performance.now()
    expect(await running.stop(), running.output()).toBe(0)
    const stopMs = performance.now() - since
    await untilGone(all)
    const startMs = await startAgain()
    tell(`stopped in ${Math.round(stopMs)} ms, ready again in ${Math.round(startMs)} ms`)
  })

  it('SIGTERM ends it with 0 also while ClickHouse hangs [G5]', async () => {
    await acknowledgedMore()
    const all = await processes()
    process.kill(running.child('database'), 'SIGSTOP')
    const since = performance.now()
    expect(await running.stop(), running.output()).toBe(0)
    const stopMs = performance.now() - since
    await untilGone(all)
    tell(`stopped in ${Math.round(stopMs)} ms while ClickHouse hung`)
    await startAgain()
  })

  it('a second SIGTERM ends it at once, and no child outlives it', async () => {
    await acknowledgedMore()
    const all = await processes()
    // The first drain waits for it, so that the second signal comes in the middle.
    process.kill(running.child('database'), 'SIGSTOP')
    const exited = running.stop()
    await until(async () => !(await accepts(system.ports.mqtt)), 'draining')
    const since = performance.now()
    process.kill(running.pid, 'SIGTERM')
    expect(await exited).toBe(1)
    const endMs = performance.now() - since
    await untilGone(all)
    tell(`a second signal ended it in ${Math.round(endMs)} ms`)
    await startAgain()
  })

  it('SIGKILL of the process that was started takes its children along', async () => {
    await acknowledgedMore()
    const all = await processes()
    killProcess(running.pid)
    const goneMs = await untilGone(all)
    tell(`children gone ${Math.round(goneMs)} ms after SIGKILL of their parent`)
    await startAgain()
  })

  it('and after all of it, what was acknowledged is in ClickHouse, once [G1] [G2] [G4] [G7]', async () => {
    await acknowledgedMore()
    expect(await fleet.drain(60_000)).toBe(true)
    expect(fleet.counts().resent).toBeGreaterThan(0)
    const report = await check(journal, system, fleet)
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
  })
})

async function acknowledgedMore(): Promise<void> {
  const { acked } = fleet.counts()
  await until(() => fleet.counts().acked > acked + RATE / 2, 'acknowledgements')
}

/** All of them: the writer may come a moment after devices are served. */
async function processes(): Promise<number[]> {
  const all = () => [running.pid, running.child('writer'), running.child('database')]
  await until(() => {
    try {
      return all().length > 0
    } catch {
      return false
    }
  }, 'the writer runs')
  return all()
}

async function startAgain(): Promise<number> {
  const since = performance.now()
  running = await startSystem(system)
  return performance.now() - since
}

function tell(sentence: string): void {
  process.stdout.write(`${sentence}\n`)
}
