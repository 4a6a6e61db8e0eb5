/**
 * The database hangs under load: its process is frozen by SIGSTOP, so that connections are taken and nothing is answered,
 * and wakes up again. Devices must see nothing of it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { openFleet } from '../../bench/generator.ts'
import { type CheckReport, check, openJournal } from './checker.ts'
import { freePorts, type RunningSystem, startSystem } from './system.ts'

export interface OutageOptions {
  readonly seconds: number
  readonly rate: number
}

export interface OutageReport extends CheckReport {
  /** Connections that were lost. */
  readonly reconnects: number
  /** ms from the intended send to the PUBACK, during the outage. */
  readonly ackP99Ms: number
  readonly lagBefore: number
  readonly lagAtEnd: number
  readonly drainedAfterMs: number
  /** Of the process that devices talk to: its own memory, without the pages of the log, which the kernel takes back at need. */
  readonly memoryGrowthMb: number
}

const DEVICES = 100
const WARMUP_MS = 5_000
const DRAIN_MS_MAX = 60_000

export async function runOutage({ seconds, rate }: OutageOptions): Promise<OutageReport> {
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-outage-'))
  const system = { dataDir, ports: await freePorts() }
  const journal = openJournal()
  const running = await startSystem(system)
  const devices = Array.from({ length: DEVICES }, (_, n) => `outage-${String(n).padStart(3, '0')}`)
  const fleet = await openFleet({ port: system.ports.mqtt, devices, connections: DEVICES, window: 50, rate, journal })
  try {
    fleet.start()
    await pause(WARMUP_MS)
    const [lagBefore, memoryBefore] = [await lagOf(running), ownMb(running.pid)]
    fleet.latency.reset()
    const database = running.child('database')
    process.kill(database, 'SIGSTOP')
    await pause(seconds * 1_000)
    const [lagAtEnd, memoryAtEnd, ackP99Ms] = [
      await lagOf(running),
      ownMb(running.pid),
      fleet.latency.percentile(99) / 1_000,
    ]
    process.kill(database, 'SIGCONT')
    const since = performance.now()
    while ((await lagOf(running)) > lagBefore + rate * 3 && performance.now() - since < DRAIN_MS_MAX) await pause(200)
    const drainedAfterMs = performance.now() - since
    await fleet.drain(DRAIN_MS_MAX)
    const report = await check(journal, system, fleet)
    const { reconnects } = fleet.counts()
    return {
      ...report,
      reconnects,
      ackP99Ms,
      lagBefore,
      lagAtEnd,
      drainedAfterMs,
      memoryGrowthMb: memoryAtEnd - memoryBefore,
    }
  } finally {
    fleet.close()
    await running.killTree()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

async function lagOf({ ports }: RunningSystem): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${ports.http}/metrics`)).text()
  return Number(/^telemetry_lag_readings (\S+)$/m.exec(text)?.[1] ?? Number.NaN)
}

function ownMb(pid: number): number {
  return Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}
