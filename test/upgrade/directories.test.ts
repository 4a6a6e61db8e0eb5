/**
 * Data directories of older versions, as their processes left them: each opens with the present build, is migrated, also
 * through kills in the middle of that, and holds every acknowledged reading once, with its value and its time.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import mqtt from 'mqtt'
import { afterAll, describe, expect, it } from 'vitest'
import { freePorts, runCommand, type SystemOptions, type SystemPorts, startSystem } from '../crash/system.ts'
import { until } from '../waits.ts'
import { acknowledgedLines, newestLines, query, stateLines, storedLines } from './known-state.ts'
import { readKnown, readPosition, unpack, unpackBuild } from './packed.ts'

const NAMES = readdirSync('test/data/upgrade')
  .filter(name => name.endsWith('.json'))
  .map(name => name.slice(0, -'.json'.length))
const OLD = 'b556fd9'
const [ENDED, KILLED] = ['ended', 'killed'].map(how => NAMES.filter(name => name.endsWith(how))) as [string[], string[]]
const KILLS = 3
const TRIES = 10
/** From the first answer of the engine on: about as long as it takes to migrate, settle and serve. */
const KILL_MS_MAX = 1_200

const folder = mkdtempSync(join(tmpdir(), 'surgetank-upgrade-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('a data directory of an older version', () => {
  it.each(KILLED)('%s: a plan is open, and the log has readings that ClickHouse has not', async name => {
    const { dataDir } = await systemOf(name, 'looked-at')
    const { acknowledged, stored, committed } = readKnown(name)
    expect(await readPosition(dataDir)).toEqual({ appended: acknowledged.length, committed, hasPlan: true })
    expect(committed).toBeLessThan(stored)
    expect(stored).toBeLessThan(acknowledged.length)
  })

  it.each(ENDED)('%s is opened, migrated and goes on: every reading is there once [G2] [G3] [G4] [G7]', async name => {
    await expectAllThere(name, await systemOf(name, 'opened'))
  })

  it.each(KILLED)('%s is migrated through kill -9 of every process at any moment [G2] [G7]', async name => {
    const system = await systemOf(name, 'killed')
    const moments = Array.from({ length: KILLS }, () => Math.random() * KILL_MS_MAX)
    for (const ms of moments) await startAndKill(system, ms)
    await expectAllThere(name, system).catch((error: Error) => {
      error.message += `\nIt was killed ${moments.map(Math.round).join(', ')} ms after the engine answered.`
      throw error
    })
  })
})

describe('a data directory that was migrated', () => {
  it('is left as it is by the older version, which says that it is none of its own, and goes on with the present one', async () => {
    const name = `${OLD}-ended`
    const system = await systemOf(name, 'back-and-forth')
    const running = await startSystem(system)
    await until(() => isOfThisVersion(system.ports), 'it is migrated')
    expect(await running.stop()).toBe(0)
    const dist = unpackBuild(`${OLD}-build`, join(folder, OLD))
    await expect(startSystem({ ...system, dist })).rejects.toThrow(/It ended with 1:[\s\S]*\[database_\w+\]/)
    await expectAllThere(name, system)
  })
})

describe('a data directory whose migration was begun and killed', () => {
  it.each([
    ['when there was a copy', 'countIf(isCopy)'],
    ['when the copy held readings', 'sumIf(total_rows, isCopy)'],
  ])(
    '%s: the older version goes on as if nothing had been, and the present one begins again [G2] [G7]',
    async (when, begun) => {
      const name = `${OLD}-ended`
      const system = await begunAndKilled(name, when, begun)
      const dist = unpackBuild(`${OLD}-build`, join(folder, `build ${when}`))
      await expectAllThere(name, { ...system, dist })
      const running = await startSystem(system)
      await until(() => isOfThisVersion(system.ports), 'it is migrated')
      expect(await rowsIn(system.ports)).toBe(readKnown(name).acknowledged.length + 1)
      expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
      expect(await running.stop()).toBe(0)
    },
  )
})

/** A migration of so few readings is short: one that was through before it was seen does not count. */
async function begunAndKilled(name: string, when: string, begun: string): Promise<SystemOptions> {
  const sql = `WITH name = 'migration_readings_copy' AS isCopy,
      database = 'telemetry_internal' AND name = 'migrations' AS isEnd
    SELECT multiIf(countIf(isEnd) > 0, 'swapped', ifNull(${begun}, 0) > 0, 'begun', 'before') FROM system.tables
    FORMAT JSONStringsEachRow`
  for (let tries = 1; tries <= TRIES; tries++) {
    const system = await systemOf(name, `${when} ${tries}`)
    const stage = async () => Object.values((await query<Record<string, string>>(system.ports, sql))[0] ?? {})[0]
    if (await startAndKillIn(system, async () => (await stage()) ?? 'before')) return system
  }
  throw new Error(`It was through before it was seen, ${TRIES} times.`)
}

async function systemOf(name: string, why: string): Promise<SystemOptions> {
  const dataDir = join(folder, `${name}-${why}`)
  unpack(name, dataDir)
  return { dataDir, ports: await freePorts() }
}

async function expectAllThere(name: string, system: SystemOptions): Promise<void> {
  const known = readKnown(name)
  const running = await startSystem(system)
  try {
    const { ports } = running
    await until(async () => (await rowsIn(ports)) >= known.acknowledged.length, 'the log is in ClickHouse')
    expect(await storedLines(ports)).toEqual(acknowledgedLines(known))
    await until(() => isWarm(ports), 'the state is rebuilt')
    expect(await stateLines(ports.http, known)).toEqual(newestLines(known))
    expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
    const refused = (await runCommand(['quarantine', 'ls', '--json'], system)).stdout.trim().split('\n')
    expect(refused).toHaveLength(known.quarantined)
    await publish(ports)
    await until(async () => (await rowsIn(ports)) === known.acknowledged.length + 1, 'it goes on')
    expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
    expect(await running.stop()).toBe(0)
  } finally {
    await running.killTree()
  }
}

/** SIGKILL of the whole tree at one moment, so long after the engine began to answer. */
async function startAndKill(system: SystemOptions, ms: number): Promise<void> {
  const { child, ended } = await spawnGroup(system)
  await Promise.race([pause(ms), ended])
  if (child.exitCode !== null) throw new Error(`It ended by itself with ${child.exitCode}.`)
  process.kill(-(child.pid ?? 0), 'SIGKILL')
  await ended
}

/**
 * The same as soon as the migration has begun; false when it was too late. The process that migrates is frozen first, so that
 * nothing follows the statement under way.
 */
async function startAndKillIn(system: SystemOptions, stage: () => Promise<string>): Promise<boolean> {
  const { child, ended } = await spawnGroup(system)
  try {
    while ((await stage()) === 'before')
      if (child.exitCode !== null) throw new Error(`It ended with ${child.exitCode}.`)
    child.kill('SIGSTOP')
    return (await stage()) === 'begun'
  } finally {
    process.kill(-(child.pid ?? 0), 'SIGKILL')
    await ended
  }
}

/** In a process group of its own, which all of its children are in. Resolves when the engine answers. */
async function spawnGroup({ dataDir, ports }: SystemOptions) {
  const settings = {
    SURGETANK_DATA_DIR: dataDir,
    SURGETANK_MQTT_PORT: String(ports.mqtt),
    SURGETANK_HTTP_PORT: String(ports.http),
    SURGETANK_SQL_PORT: String(ports.sql),
  }
  const options = { env: { PATH: process.env.PATH, ...settings }, stdio: 'ignore', detached: true } as const
  const child = spawn(process.execPath, ['dist/main.js'], options)
  const ended = once(child, 'exit')
  await until(async () => child.exitCode !== null || (await answers(ports.sql)), 'the engine answers')
  return { child, ended }
}

function answers(port: number): Promise<boolean> {
  return fetch(`http://127.0.0.1:${port}/ping`).then(
    () => true,
    () => false,
  )
}

async function rowsIn(ports: SystemPorts): Promise<number> {
  const [rows = 0] = await query<number>(ports, 'SELECT toUInt32(count()) FROM telemetry.readings FORMAT TSV')
  return rows
}

/** The schema is brought to this version beside everything else. */
async function isOfThisVersion({ http }: SystemPorts): Promise<boolean> {
  const answer = await fetch(`http://127.0.0.1:${http}/readyz`)
  const { checks } = (await answer.json()) as { checks: Record<string, { detail: string }> }
  return checks.schema?.detail === 'of this version'
}

async function isWarm({ http }: SystemPorts): Promise<boolean> {
  const answer = await fetch(`http://127.0.0.1:${http}/v1/devices/press-0`)
  return ((await answer.json()) as { rehydrating: boolean }).rehydrating === false
}

async function publish({ mqtt: port }: SystemPorts): Promise<void> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: 'after-the-upgrade' })
  await client.publishAsync('devices/press-new/telemetry', '{"temperature":21.5}', { qos: 1 })
  await client.endAsync()
}
