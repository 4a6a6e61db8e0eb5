/**
 * Who else can read what lies on the disk: nobody, whatever umask the processes were started with, also of what the engine
 * and the log make later and of what was there before. What cannot be closed is told, and everything runs all the same.
 */
import { spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt, { type MqttClient } from 'mqtt'
import { afterAll, describe, expect, it } from 'vitest'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { anotherUserHere } from '../servers/another-user.ts'
import { until } from '../waits.ts'
import { sql } from './observed.ts'

const root = mkdtempSync(join(tmpdir(), 'surgetank-files-'))
/** Of nobody; what runs here has another id. */
const ANOTHER_USER = 65_534
/** Root without its powers: an ordinary user, who can still read this checkout wherever it lies. */
const POWERLESS = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']

/** About 100 KB. */
const MUCH = Object.fromEntries(Array.from({ length: 400 }, (_, at) => [`text-${at}`, 'x'.repeat(240)]))
const clients: MqttClient[] = []

afterAll(async () => {
  await Promise.all(clients.map(client => client.endAsync(true)))
  rmSync(root, { recursive: true, force: true })
})

describe.each(['000', '022'])('with umask %s', umask => {
  it('folders are 0700 and files 0600 at every moment, those of merges, a growing log and commands too [G6]', async () => {
    const system = await systemIn(`umask-${umask}`, ['sh', '-c', `umask ${umask} && exec "$@"`, 'sh'])
    const running = await startSystem(system)
    try {
      expectClosed(system.dataDir)
      const [before, publish] = [sizeOf(system, 'log/log/data.mdb'), await publisher(running)]
      for (let round = 0; round < 8; round++) {
        await publish(JSON.stringify({ round, ...MUCH }))
        await rowsAre(running, round + 1)
        expectClosed(system.dataDir)
      }
      await until(() => namesIn(system.dataDir).some(name => /_\d+_\d+_[1-9]\d*$/.test(name)), 'parts are merged')
      expect(sizeOf(system, 'log/log/data.mdb')).toBeGreaterThan(before)
      process.kill(running.child('database'), 'SIGKILL')
      process.kill(running.child('writer'), 'SIGKILL')
      await publish('{"round": 8}')
      await rowsAre(running, 9)
      await publish('{"round": 1e999}')
      for (const command of ['quarantine', 'repeated']) expect((await runCommand([command, 'ls'], system)).code).toBe(0)
      expect((await runCommand(['verify'], system)).code).toBe(0)
      const doctor = await runCommand(['doctor'], system)
      expect(doctor.stdout).toMatch(/ok +data files +open to its user only/)
      expectClosed(system.dataDir)
    } finally {
      await running.stop()
    }
    expectClosed(system.dataDir)
  })
})

it('what an older version left open is closed when it is ready, and nothing else is touched [G6]', async () => {
  const system = await systemIn('older')
  const first = await startSystem(system)
  await (await publisher(first))('{"round": 0}')
  await rowsAre(first, 1)
  await first.stop()
  const outside = join(root, 'outside')
  mkdirSync(outside)
  writeFileSync(join(outside, 'file'), 'of another program')
  for (const [path, mode] of [
    [outside, 0o755],
    [join(outside, 'file'), 0o644],
  ] as const)
    chmodSync(path, mode)
  symlinkSync(outside, join(system.dataDir, 'clickhouse/engine/store/link'))
  openToAll(system.dataDir)
  expect(openIn(system.dataDir).length).toBeGreaterThan(50)

  const running = await startSystem({ ...system, env: { SURGETANK_LOG_LEVEL: 'info' } })
  try {
    await until(() => openIn(system.dataDir).length === 0, 'all of it is closed')
    expect(running.output()).toContain('files of the data directory were open to others, and are not any more')
    expect(modeOf(outside) + modeOf(join(outside, 'file'))).toBe(0o755 + 0o644)
    await rowsAre(running, 1)
  } finally {
    await running.stop()
  }
})

describe.runIf(anotherUserHere)('a data directory on which no folder can be closed', () => {
  it('has its sockets in a temporary folder, where the commands find them whatever their own is, and leaves none', async () => {
    const temporary = mkdtempSync(join(tmpdir(), 'surgetank-tmp-'))
    const system = { ...(await systemIn('no-modes', POWERLESS)), env: { TMPDIR: temporary } }
    const near = join(system.dataDir, 'clickhouse/sockets')
    mkdirSync(near, { recursive: true })
    chmodSync(near, 0o777)
    chownSync(near, ANOTHER_USER, ANOTHER_USER)
    const folders = () => readdirSync(temporary).filter(name => name.startsWith('surgetank-sockets-'))
    try {
      const killed = await startSystem(system)
      const [left] = folders()
      expect(folders()).toEqual([expect.stringMatching(/^surgetank-sockets-\w{6}$/)])
      await killed.killTree()
      const running = await startSystem(system)
      try {
        expect(folders()).toHaveLength(1)
        expect(folders()).not.toContain(left)
        expect(modeOf(join(temporary, folders()[0] ?? ''))).toBe(0o700)
        process.kill(running.child('database'), 'SIGKILL')
        await (await publisher(running))('{"round": 0}')
        await rowsAre(running, 1)
        const elsewhere = { ...system, env: { TMPDIR: '/var/tmp' } }
        expect((await runCommand(['verify'], elsewhere)).code).toBe(0)
        const { stdout } = await runCommand(['doctor'], elsewhere)
        expect(stdout).toMatch(/ok +clickhouse +embedded, ClickHouse .*its tables are there/)
        expect(stdout).toContain(`such as ${near}`)
      } finally {
        await running.stop()
      }
      expect(folders()).toEqual([])
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  })
})

describe.runIf(anotherUserHere)('a data directory that belongs to another user', () => {
  it('is a warning and a finding of doctor, and everything works [G6]', async () => {
    const system = await systemIn('of-another', POWERLESS)
    mkdirSync(system.dataDir)
    chmodSync(system.dataDir, 0o777)
    chownSync(system.dataDir, ANOTHER_USER, ANOTHER_USER)
    const running = await startSystem(system)
    try {
      const told = `"path":"${system.dataDir}","why":"it belongs to user ${ANOTHER_USER}"`
      await until(() => running.output().includes(told), 'it is told')
      await (await publisher(running))('{"round": 0}')
      await rowsAre(running, 1)
      expect(openIn(system.dataDir)).toEqual([system.dataDir])
      const doctor = await runCommand(['doctor'], system)
      expect(doctor.stdout).toMatch(/WARN +data files +open to others: 1 of \d+, such as .*\n +A start corrects/)
      expect(doctor.code).toBe(0)
    } finally {
      await running.stop()
    }
  })

  it('is told also when a superuser closed it: its owner still reads it', async () => {
    const system = await systemIn('of-another-closed')
    mkdirSync(system.dataDir)
    chownSync(system.dataDir, ANOTHER_USER, ANOTHER_USER)
    const running = await startSystem(system)
    await running.stop()
    expectClosed(system.dataDir)
    expect(running.output()).toContain(`it belongs to user ${ANOTHER_USER}`)
    // A superuser who asks is not the one that runs: of a directory that nobody runs on there is nothing to tell.
    expect((await runCommand(['doctor'], system)).stdout).toMatch(/ok +data files/)
  })

  it('and is its own alone is no finding for a superuser who asks', async () => {
    const system = await systemIn('of-service')
    mkdirSync(system.dataDir, { mode: 0o700 })
    chownSync(system.dataDir, ANOTHER_USER, ANOTHER_USER)
    // The one that runs, as far as the lock and /proc tell.
    const holder = spawn('setpriv', [`--reuid=${ANOTHER_USER}`, '--clear-groups', 'sleep', '600'], { stdio: 'ignore' })
    await until(() => /\(sleep\)/.test(statOf(holder.pid)), 'it runs as another user')
    const [boot, ticks] = [readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8), ticksOf(holder.pid)]
    const lock = join(system.dataDir, `surgetank.lock.${holder.pid}.${boot}-${ticks}.abc`)
    const walls = { files: 'of a test', network: true, programs: true }
    writeFileSync(lock, JSON.stringify({ mqtt: 1, http: 2, sql: 3, socketFolder: join(root, 'none'), walls }))
    chmodSync(lock, 0o600)
    try {
      const { stdout } = await runCommand(['doctor'], system)
      expect(stdout).toMatch(/ok +data files +open to its user only/)
      expect(stdout).toMatch(/WARN +SQL engine +walled from network and programs; not from files: of a test/)
      expect(stdout).toMatch(/WARN +clickhouse .*its sockets in .*none, which is not to be seen from here/)
      expect((await runCommand(['verify'], system)).stderr).toContain('which is not to be seen from here')
      chmodSync(lock, 0o644)
      expect((await runCommand(['doctor'], system)).stdout).toContain(`chown -R ${ANOTHER_USER} ${system.dataDir} `)
    } finally {
      holder.kill('SIGKILL')
    }
  })

  it('and is closed to this one is said so by every command', async () => {
    const system = await systemIn('closed', POWERLESS)
    mkdirSync(join(system.dataDir, 'log'), { recursive: true })
    for (const path of ['log', '']) {
      chmodSync(join(system.dataDir, path), 0o700)
      chownSync(join(system.dataDir, path), ANOTHER_USER, ANOTHER_USER)
    }
    for (const command of [['doctor'], ['verify'], ['quarantine', 'ls'], ['repeated', 'ls']]) {
      const { code, stdout, stderr } = await runCommand(command, system)
      expect(code, command.join(' ')).toBe(1)
      expect(stdout + stderr).toContain('is closed to this user. Run this as the user that surgetank runs as.')
    }
  })
})

async function systemIn(name: string, launcher: readonly string[] = []): Promise<SystemOptions> {
  return { dataDir: join(root, name), ports: await freePorts(), launcher }
}

async function publisher({ ports }: RunningSystem): Promise<(payload: string) => Promise<unknown>> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${ports.mqtt}`, { clientId: 'press-17' })
  clients.push(client)
  return payload => client.publishAsync('devices/press-17/telemetry', payload, { qos: 1 })
}

async function rowsAre({ ports }: RunningSystem, count: number): Promise<void> {
  const statement = "SELECT count() FROM telemetry.readings WHERE metric = 'round'"
  await until(async () => {
    const rows = await sql(ports, statement).catch(() => [])
    return Number(rows[0]?.[0]) === count
  }, `${count} readings are stored`)
}

function expectClosed(dir: string): void {
  expect(openIn(dir)).toEqual([])
}

/** What of a tree is not 0700 for folders and 0600 for the rest, links apart. */
function openIn(path: string): string[] {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined || found.isSymbolicLink()) return []
  const isRight = (found.mode & 0o777) === (found.isDirectory() ? 0o700 : 0o600)
  return [...(isRight ? [] : [path]), ...(found.isDirectory() ? entriesOf(path).flatMap(openIn) : [])]
}

function namesIn(dir: string): string[] {
  return [
    dir,
    ...entriesOf(dir).flatMap(path => (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ? namesIn(path) : [])),
  ]
}

function openToAll(path: string): void {
  const found = lstatSync(path)
  if (found.isSymbolicLink()) return
  chmodSync(path, found.isDirectory() ? 0o755 : 0o644)
  if (found.isDirectory()) for (const entry of entriesOf(path)) openToAll(entry)
}

/** Nothing of one that vanished meanwhile. */
function entriesOf(dir: string): string[] {
  try {
    return readdirSync(dir).map(name => join(dir, name))
  } catch {
    return []
  }
}

function statOf(pid: number | undefined): string {
  return readFileSync(`/proc/${pid}/stat`, 'utf8')
}

/** When a process started. */
function ticksOf(pid: number | undefined): string | undefined {
  const stat = statOf(pid)
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}

function sizeOf({ dataDir }: SystemOptions, file: string): number {
  return statSync(join(dataDir, file)).size
}

function modeOf(path: string): number {
  return statSync(path).mode & 0o777
}
