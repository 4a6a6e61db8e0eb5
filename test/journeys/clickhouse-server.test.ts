/**
 * The first part that is outgrown: ClickHouse as a server at CLICKHOUSE_URL, everything else on this machine. The engine in
 * a process of its own stands in for the server, with a password of its own.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openClient, publishPacket } from '../broker/harness.ts'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { type Fixture, openFixture, scalar } from '../database/database-fixture.ts'
import { until } from '../waits.ts'
import { metric } from './observed.ts'

const MESSAGES = 500
const LATER = "SELECT count() FROM telemetry.readings WHERE metric = 'later'"

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-server-'))
let server: Fixture
let system: SystemOptions
let running: RunningSystem

beforeAll(async () => {
  server = await openFixture()
  const secret = join(dataDir, 'secret')
  writeFileSync(secret, `${server.server.password}\n`)
  const env = {
    CLICKHOUSE_URL: server.server.url,
    SURGETANK_CLICKHOUSE_USER: 'surgetank',
    SURGETANK_CLICKHOUSE_PASSWORD_FILE: secret,
  }
  system = { dataDir: join(dataDir, 'data'), ports: await freePorts(), env }
  running = await startSystem(system)
})
afterAll(async () => {
  await running.killTree()
  await server.close()
  rmSync(dataDir, { recursive: true, force: true })
})

it('starts no engine, listens on no SQL port, and keeps no directory for one', async () => {
  expect(() => running.child('database')).toThrow('No database runs')
  expect(await isFree(system.ports.sql)).toBe(true)
  expect(readdirSync(system.dataDir).filter(name => !name.startsWith('surgetank.lock'))).toEqual(['log', 'sessions'])
  expect(running.output()).toContain(`${server.server.url}    ClickHouse server`)
})

it('stores every reading on the server, once, in the tables that its writer made there [G1] [G2]', async () => {
  const client = await openClient(system.ports.mqtt)
  for (let id = 1; id <= MESSAGES; id++) client.send(publishPacket(id))
  await client.count(MESSAGES + 1)
  await expect.poll(() => scalar(server.analyst, 'SELECT count() FROM telemetry.readings')).toBe(MESSAGES)
})

it('verify and doctor ask the server, by the settings that it was started with [G7]', async () => {
  // Its rows show before the writer has moved on.
  await until(async () => (await metric(system.ports, 'telemetry_lag_readings')) === 0, 'all is written')
  const verdict = await runCommand(['verify', '--json'], system)
  expect(verdict).toMatchObject({ code: 0 })
  expect(JSON.parse(verdict.stdout)).toMatchObject({ balanced: true, partitions: [{ accepted: MESSAGES, inLog: 0 }] })
  const findings = await runCommand(['doctor', '--json'], system)
  expect(findings.code, findings.stdout).toBe(0)
  const found = expect.stringContaining('user surgetank; its tables are there')
  expect(JSON.parse(findings.stdout)).toContainEqual(
    expect.objectContaining({ what: 'clickhouse', verdict: 'ok', found }),
  )
})

it('simulate --verify finds the readings on the server without being told its password', async () => {
  const { mqtt, http } = system.ports
  const urls = ['--url', `mqtt://127.0.0.1:${mqtt}`, '--http', `http://127.0.0.1:${http}`]
  const load = ['--devices', '5', '--rate', '100', '--seconds', '1', '--verify', '--json']
  const { code, stdout, stderr } = await runCommand(['simulate', ...urls, ...load], system)
  expect(code, stderr).toBe(0)
  const { acked, verify } = JSON.parse(stdout)
  expect(verify).toMatchObject({ ok: true, lost: 0, duplicated: 0 })
  expect(acked).toBeGreaterThan(0)
})

it('verify without CLICKHOUSE_URL says what is missing instead of asking another ClickHouse', async () => {
  const { code, stderr } = await runCommand(['verify'], { ...system, env: {} })
  expect(code).toBe(1)
  expect(stderr).toContain('uses a ClickHouse server; set CLICKHOUSE_URL as it has it.')
})

it('the password stands in no argument, no environment and no line of any of its processes', () => {
  for (const pid of [running.pid, running.child('writer')]) {
    for (const file of ['cmdline', 'environ']) {
      expect(readFileSync(`/proc/${pid}/${file}`, 'utf8'), file).not.toContain(server.server.password)
    }
  }
  expect(readFileSync(`/proc/${running.child('writer')}/environ`, 'utf8')).not.toContain('SURGETANK_')
  expect(running.output()).not.toContain(server.server.password)
})

it('starts and takes readings while the server is away, and brings them once it is back [G1] [G5]', async () => {
  expect(await running.stop()).toBe(0)
  await server.child.stop()
  running = await startSystem(system)
  const client = await openClient(system.ports.mqtt)
  for (let id = 1; id <= MESSAGES; id++) client.send(publishPacket(id, { payload: `{"later":${id}}` }))
  await client.count(MESSAGES + 1)
  await server.restart()
  await expect.poll(() => scalar(server.analyst, LATER).catch(() => null)).toBe(MESSAGES)
})

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
