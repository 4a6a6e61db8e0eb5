/** The SQL port in a running system: it is nobody's but the analysts', and comes back on its port. */
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openClient, publishPacket } from '../broker/harness.ts'
import {
  freePorts,
  type RunningSystem,
  runCommand,
  type SystemOptions,
  startSystem,
  untilGone,
} from '../crash/system.ts'
import { until } from '../waits.ts'
import { readiness, sql } from './observed.ts'

const MESSAGES = 200

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-sql-port-'))
let system: SystemOptions
let running: RunningSystem

beforeAll(async () => {
  system = { dataDir, ports: await freePorts() }
  running = await startSystem(system)
})
afterAll(async () => {
  await running.killTree()
  rmSync(dataDir, { recursive: true, force: true })
})

async function childUp(name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${system.ports.http}/metrics`)).text()
  return Number(new RegExp(`^telemetry_child_up\\{child="${name}"\\} (\\d)$`, 'm').exec(text)?.[1])
}

it('killed while readings come in, it is started again, and everything else goes on meanwhile [G2] [G6]', async () => {
  const { ports } = system
  const before = { database: running.child('database'), writer: running.child('writer') }
  const killed = running.child('sql')
  expect(await childUp('sql')).toBe(1)
  const client = await openClient(ports.mqtt)
  for (let id = 1; id <= MESSAGES; id++) {
    client.send(publishPacket(id))
    if (id === MESSAGES / 2) process.kill(killed, 'SIGKILL')
  }
  await client.count(MESSAGES + 1)
  expect((await readiness(ports)).status).toBe(200)
  await untilGone([killed])
  await until(async () => (await childUp('sql')) === 1, 'it is up again')
  const stored = async () => (await sql(ports, 'SELECT count() FROM telemetry.readings').catch(() => [[null]]))[0]?.[0]
  await until(async () => (await stored()) === MESSAGES, 'all is stored')
  expect(running.child('sql')).not.toBe(killed)
  expect({ database: running.child('database'), writer: running.child('writer') }).toEqual(before)
})

it('verify and doctor do not go by it: they work while it hangs', async () => {
  const pid = running.child('sql')
  process.kill(pid, 'SIGSTOP')
  try {
    expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
    expect((await runCommand(['doctor'], system)).stdout).toContain('its tables are there')
    expect((await readiness(system.ports)).status).toBe(200)
  } finally {
    process.kill(pid, 'SIGCONT')
  }
})

it('while the engine is started again, an analyst is told so at once, and the port stays', async () => {
  const { ports } = system
  const pid = running.child('sql')
  const database = running.child('database')
  process.kill(database, 'SIGSTOP')
  process.kill(database, 'SIGKILL')
  await untilGone([database])
  await until(async () => (await sql(ports, 'SELECT 1').catch(() => null)) !== null, 'the engine is back')
  expect(running.child('sql')).toBe(pid)
})

it('the end is in order, and leaves no process and no way in', async () => {
  const all = [running.child('sql'), running.child('database'), running.child('writer')]
  expect(await running.stop(), running.output()).toBe(0)
  await untilGone(all)
  expect(statSync(join(dataDir, 'clickhouse', 'sockets')).mode & 0o777).toBe(0o700)
  const { code, stderr } = await runCommand(['verify'], system)
  expect(code).toBe(1)
  expect(stderr).toContain(`surgetank does not run on ${dataDir}`)
  running = await startSystem(system)
})
