/**
 * ClickHouse hangs for so long that the log is full of what it did not take: the one moment in which devices wait. They
 * stay connected and are not acknowledged, memory stays where it is, and all goes on when ClickHouse does.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { stays, until } from '../waits.ts'
import { metric, readiness, rssMb, sql } from './observed.ts'
import { openWideDevices, TEXT_SQL, type WideDevices } from './wide-devices.ts'

const LOG_MB = 64
const DEVICES = 8
const KEEPALIVE_S = 5
/** Longer than one and a half keepalives, when a broker closes [MQTT-3.1.2-24]. */
const FULL_MS = 9_000
const GROWTH_MB_MAX = 32

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-cap-'))
let system: SystemOptions
let running: RunningSystem
let devices: WideDevices

beforeAll(async () => {
  system = { dataDir, ports: await freePorts(), env: { SURGETANK_LOG_MB: String(LOG_MB) } }
  running = await startSystem(system)
  devices = await openWideDevices({ port: system.ports.mqtt, count: DEVICES, keepalive: KEEPALIVE_S })
})

afterAll(async () => {
  devices.close()
  await running.killTree()
  rmSync(dataDir, { recursive: true, force: true })
})

it('a log full of unwritten readings makes devices wait, connected, until ClickHouse is back [G1] [G2] [G5]', async () => {
  const { ports } = system
  devices.start()
  await until(
    async () => Number((await sql(ports, 'SELECT count() FROM telemetry.readings'))[0]) > 0,
    'readings are written',
  )
  const database = running.child('database')
  process.kill(database, 'SIGSTOP')

  // How the seconds fall depends on the machine: test/manager/gauges.test.ts counts them.
  const countdown: number[] = []
  await until(async () => {
    const seconds = await metric(ports, 'telemetry_log_full_seconds')
    if (seconds !== countdown.at(-1) && Number.isFinite(seconds)) countdown.push(seconds)
    return seconds === 0 && (await readiness(ports)).status === 503
  }, 'the log is full')
  const { acked } = devices.counts()
  const before = rssMb(running.pid)
  await stays(
    'no PUBACK, nobody closed',
    () => {
      const now = devices.counts()
      return now.acked === acked && now.closed === 0
    },
    FULL_MS,
  )
  const growthMb = rssMb(running.pid) - before
  expect(growthMb).toBeLessThan(GROWTH_MB_MAX)
  expect(await metric(ports, 'telemetry_log_bytes')).toBeLessThanOrEqual(LOG_MB << 20)

  process.kill(database, 'SIGCONT')
  const resumedMs = await until(() => devices.counts().acked > acked, 'acknowledged again')
  process.stdout.write(
    `log full: countdown ${countdown.map(seconds => seconds.toFixed(1)).join(' ')} s, memory ${before.toFixed(0)} MB and ` +
      `${growthMb.toFixed(1)} MB more, acknowledgements ${Math.round(resumedMs)} ms after ClickHouse woke up\n`,
  )
  devices.stop()
  await until(() => devices.counts().inFlight === 0, 'all is acknowledged')
  const { sent, closed } = devices.counts()
  expect(closed).toBe(0)
  await until(async () => (await metric(ports, 'telemetry_lag_readings')) === 0, 'all is written')
  const [stored] = await sql(
    ports,
    `SELECT count(), uniqExact(device, metric, ts), countIf(value_str = ${TEXT_SQL}) FROM telemetry.readings`,
  )
  const all = sent * devices.metricsPerMessage
  expect(stored).toEqual([all, all, all])
  expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
})
