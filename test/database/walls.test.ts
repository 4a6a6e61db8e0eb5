/** The walls of the engine's process hold whoever gets past the rules for analysts: the writer's own user, and any program [G6]. */
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTcpServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { ClickHouseClient } from '@clickhouse/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openChannel } from '../../database/embedded/channel.ts'
import { forkEngine } from '../../database/embedded/walls/fork.ts'
import type { LaunchOptions } from '../../database/embedded/walls/launch.ts'
import { allMissing, type Walls } from '../../database/embedded/walls/walls.ts'
import { wallsHere } from '../servers/walls-here.ts'
import { type Fixture, openFixture, openOwnClient, rows } from './database-fixture.ts'
import { end, startLone } from './lone.ts'
import { ONCE, type Targets, type Try, triesOf } from './walls-corpus.ts'

const NO_ANSWER = 'no answer'
const SECRET = 'what-nobody-may-read-4711'
const ALL_STAND: Walls = { files: true, network: true, programs: true }
/** Runs a program as root without root's powers, as any other user. */
const POWERLESS = ['setpriv', '--no-new-privs', '--bounding-set=-all', '--inh-caps=-all']
const LAUNCHER = resolve('dist/database/embedded/walls/launch.js')

/** Everything that the engine is not to reach, and what became of it. */
interface Canaries extends Targets {
  readonly unix: string
  readonly abstract: string
  /** Since it was asked last. */
  reached(): string[]
  close(): void
}

async function openCanaries(): Promise<Canaries> {
  const canary = mkdtempSync(join(tmpdir(), 'surgetank-canary-'))
  const out = join(canary, 'out')
  mkdirSync(out)
  chmodSync(canary, 0o755)
  writeFileSync(join(canary, 'secret'), `1\t${SECRET}\n`)
  writeFileSync(join(canary, 'run.sh'), `#!/bin/sh\necho > ${out}/ran\n`, { mode: 0o755 })
  let contacts: string[] = []
  const web = createServer((request, response) => {
    contacts.push(`HTTP ${request.method}`)
    response.end('1\tx\n')
  })
  const counted = (name: string) =>
    createTcpServer(socket => {
      contacts.push(name)
      socket.destroy()
    })
  const listeners: [Server, object][] = [
    [web, { port: 0, host: '127.0.0.1' }],
    [counted('TCP'), { port: 0, host: '127.0.0.1' }],
    [counted('unix'), { path: join(canary, 'unix') }],
    [counted('abstract'), { path: `\0surgetank-canary-${process.pid}` }],
  ]
  for (const [server, where] of listeners) await once(server.listen(where), 'listening')
  const [http, tcp] = listeners.map(([server]) => (server.address() as { port: number }).port) as [number, number]
  return {
    canary,
    http,
    tcp,
    unix: join(canary, 'unix'),
    abstract: `\0surgetank-canary-${process.pid}`,
    parent: process.pid,
    reached() {
      const made = readdirSync(out).map(name => `wrote ${name}`)
      for (const name of readdirSync(out)) rmSync(join(out, name), { recursive: true })
      const kept = readFileSync(join(canary, 'secret'), 'utf8') === `1\t${SECRET}\n` ? [] : ['changed the secret']
      const since = contacts
      contacts = []
      return [...made, ...kept, ...new Set(since)]
    },
    close() {
      for (const [server] of listeners) server.close()
      rmSync(canary, { recursive: true, force: true })
    },
  }
}

/** What each try reached; of what was read, that it was read. */
async function tryAll(
  client: ClickHouseClient,
  tries: readonly Try[],
  canaries: Canaries,
): Promise<Map<string, string[]>> {
  await client.command({ query: 'CREATE DATABASE w' })
  await client.command({ query: 'CREATE TABLE w.lines (l String) ENGINE = Memory' })
  await client.command({ query: 'CREATE TABLE w.kept (x UInt8) ENGINE = MergeTree ORDER BY x' })
  canaries.reached()
  const outcomes = new Map<string, string[]>()
  for (const { what, statements, endless } of tries) {
    let said = ''
    for (const query of statements) said += await textOf(client, query, endless ? 4_000 : 60_000)
    const read = said.includes(SECRET) ? ['read'] : []
    // One that waits for a free lane was never tried.
    const unanswered = said.includes(NO_ANSWER) && !endless ? ['gave no answer'] : []
    outcomes.set(what, [...read, ...unanswered, ...canaries.reached()])
  }
  return outcomes
}

async function textOf(client: ClickHouseClient, query: string, msMax: number): Promise<string> {
  const gone = AbortSignal.timeout(msMax)
  try {
    const { stream } = await client.exec({ query, clickhouse_settings: ONCE, abort_signal: gone })
    return Buffer.concat(await stream.toArray()).toString('latin1')
  } catch (error) {
    return gone.aborted ? NO_ANSWER : (error as Error).message
  }
}

/** Links of its own that lead out of the engine's folder. */
function linkOut(folder: string, canary: string): void {
  symlinkSync(join(canary, 'secret'), join(folder, 'engine', 'linked'))
  symlinkSync(canary, join(folder, 'engine', 'folder'))
}

let canaries: Canaries
let on: Fixture

beforeAll(async () => {
  canaries = await openCanaries()
  on = await openFixture()
})

afterAll(async () => {
  await on.close()
  canaries.close()
})

describe.runIf(wallsHere)('behind the walls', () => {
  test('all of which stand here', () => {
    expect(on.child.walls).toEqual(ALL_STAND)
  })

  test('the engine names nothing of the machine where it tells of its files', async () => {
    await on.writer.command({ query: 'CREATE TABLE named (x UInt8) ENGINE = MergeTree ORDER BY x' })
    await on.writer.command({ query: 'INSERT INTO named SELECT 1' })
    const told = await rows(
      on.writer,
      `SELECT path FROM system.parts UNION ALL SELECT path FROM system.disks
       UNION ALL SELECT data_path FROM system.databases UNION ALL SELECT arrayJoin(data_paths) FROM system.tables`,
    )
    expect(told.length).toBeGreaterThan(5)
    expect(told.filter(([path]) => String(path).startsWith('/'))).toEqual([])
  })

  test('[G6] no statement of anybody reads, writes, contacts or runs what is not the engine’s', async () => {
    linkOut(on.folder, canaries.canary)
    const outcomes = await tryAll(on.writer, triesOf(canaries), canaries)
    expect([...outcomes].filter(([, reached]) => reached.length > 0)).toEqual([])
    expect(outcomes.size).toBeGreaterThan(60)
  })

  test('ordinary work goes on: inserts, merges, sorting in files, partitions moved, and a restart', async () => {
    const run = (query: string) => on.writer.command({ query })
    await run('CREATE DATABASE work')
    await run(`CREATE TABLE work.t (x UInt64, s String) ENGINE = MergeTree PARTITION BY x % 2 ORDER BY x
      SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`)
    const values = Array.from({ length: 1000 }, (_, x) => ({ x, s: String(x) }))
    await on.writer.insert({ table: 'work.t', values, format: 'JSONEachRow' })
    await run('INSERT INTO work.t SELECT number + 1000, toString(number) FROM numbers(500000)')
    await run('OPTIMIZE TABLE work.t FINAL')
    await run('ALTER TABLE work.t DETACH PARTITION 1')
    await run('ALTER TABLE work.t ATTACH PARTITION 1')
    await run('CREATE TABLE work.u AS work.t')
    await run('EXCHANGE TABLES work.t AND work.u')
    await run('EXCHANGE TABLES work.t AND work.u')
    await run('DROP TABLE work.u SYNC')
    const spilled = `SELECT count() FROM (SELECT s, count() FROM work.t GROUP BY s)
      SETTINGS max_bytes_before_external_group_by = 1000000, max_bytes_ratio_before_external_group_by = 0`
    expect(await rows(on.writer, spilled)).toEqual([[500_000]])
    const before = await rows(on.writer, 'SELECT count(), sum(x) FROM work.t')
    await on.child.stop()
    await on.restart()
    expect(await rows(on.writer, 'SELECT count(), sum(x) FROM work.t')).toEqual(before)
    expect(on.child.walls).toEqual(ALL_STAND)
  })
})

describe.runIf(wallsHere)('a program in the place of the engine', () => {
  test('[G6] is denied whatever is not its own, on every thread, and keeps what is', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-attacked-'))
    const victim = spawn('sleep', ['600'])
    const entry = fileURLToPath(new URL('./walls-attacker.mjs', import.meta.url))
    const koffi = ['package.json', 'node_modules/koffi', 'node_modules/@koromix'].map(path => resolve(path))
    const options: LaunchOptions = { entry, folder, socketFolder: join(folder, 'sockets'), programs: [entry, ...koffi] }
    const child = spawn(process.execPath, [LAUNCHER, JSON.stringify(options)], {
      env: {},
      stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
    })
    const channel = openChannel(child.stdio[3] as Duplex)
    expect(await channel.next()).toEqual({ walls: ALL_STAND })
    const opened = readdirSync(`/proc/${child.pid}/fd`).map(fd => readlinkSync(`/proc/${child.pid}/fd/${fd}`))
    expect(opened.filter(target => target.startsWith('/') && !target.startsWith('/dev/'))).toEqual([])
    const { canary, http, tcp, unix, abstract } = canaries
    await channel.send({ canary, http, tcp, unix, abstract, victim: victim.pid })
    const { tries, allowed } = (await channel.next()) as Record<'tries' | 'allowed', Record<string, string>>
    expect(Object.entries(tries).filter(([, outcome]) => outcome !== 'denied')).toEqual([])
    expect(Object.keys(tries).length).toBeGreaterThanOrEqual(40)
    expect(Object.entries(allowed).filter(([, outcome]) => !outcome.startsWith('did'))).toEqual([])
    expect(canaries.reached()).toEqual([])
    expect(victim.exitCode ?? victim.signalCode).toBe(null)
    victim.kill()
    await end(child)
    rmSync(folder, { recursive: true })
  })
})

describe.runIf(wallsHere)('a program that hears nothing any more', () => {
  test('ends with its parent', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-stuck-'))
    const entry = join(folder, 'stuck.mjs')
    writeFileSync(
      entry,
      `import { writeSync } from 'node:fs'; process.chdir('${folder}/engine'); writeSync(3, '{}\\n'); for (;;);`,
    )
    const options: LaunchOptions = { entry, folder, socketFolder: join(folder, 'sockets'), programs: [entry] }
    const script = `require('child_process')
      .spawn(process.execPath, ['${LAUNCHER}', process.argv[1]], { stdio: ['ignore', 'ignore', 'inherit', 'pipe'] })
      .stdio[3].once('data', () => process.send({}))`
    const stdio = ['ignore', 'ignore', 'inherit', 'ipc'] as const
    const parent = spawn(process.execPath, ['-e', script, JSON.stringify(options)], { stdio: [...stdio] })
    await once(parent, 'message')
    expect(ended(folder)).toBe(false)
    await end(parent)
    await isGone(folder)
  })
})

describe.runIf(wallsHere)('a machine that grants no wall', () => {
  test('has the engine all the same, which says so; and the tries reach what they are to show', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-open-'))
    const { parent, own, walls } = await startLone('./without-walls.mjs', folder)
    const [files, ...others] = Object.values(walls)
    expect(files).toContain('no Landlock')
    for (const wall of others) expect(wall).toContain('refused')
    linkOut(folder, canaries.canary)
    const client = openOwnClient(own)
    const reaching = triesOf(canaries).filter(({ reaches }) => reaches)
    const outcomes = await tryAll(client, reaching, canaries)
    expect([...outcomes].filter(([, reached]) => reached.length === 0)).toEqual([])
    expect(outcomes.size).toBeGreaterThan(35)
    await client.close()
    await end(parent)
    await isGone(folder)
  })
})

describe.runIf(wallsHere)('a machine that grants walls no more', () => {
  test('has no other engine than a walled one, until surgetank starts anew', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-lost-'))
    const script = fileURLToPath(new URL('./walls-lost.mjs', import.meta.url))
    const parent = fork(script, [folder], { execArgv: [] })
    const [{ before, refused, walls }] = await once(parent, 'message')
    expect(before).toEqual(ALL_STAND)
    expect(refused).toMatchObject({ code: 'walls_lost', fate: 'retry', detail: expect.stringContaining('no Landlock') })
    expect(walls.files).toContain('no Landlock')
    await end(parent)
    await isGone(folder)
  })
})

describe.runIf(wallsHere)('an engine that is not awake behind the walls in time', () => {
  test('starts without them at first, and not where they stood', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-late-'))
    const late = { folder, awakeMsMax: 1 }
    const { child, walls, exited } = await forkEngine(late)
    expect(walls).toEqual(allMissing('the process was not awake after 0.001 s'))
    child.kill('SIGKILL')
    expect(await exited).toMatchObject({ signal: 'SIGKILL' })
    await expect(forkEngine({ ...late, stood: ALL_STAND })).rejects.toMatchObject({ code: 'walls_lost', fate: 'retry' })
    await isGone(folder)
  })
})

describe('a machine that makes no process', () => {
  test('is an error of ours', async () => {
    const { execPath } = process
    process.execPath = '/nowhere/node'
    const forked = forkEngine({ folder: join(tmpdir(), 'surgetank-none') })
    process.execPath = execPath
    await expect(forked).rejects.toMatchObject({ code: 'child_failed', fate: 'retry' })
  })
})

/** The engine that belonged to a parent is gone with it. */
async function isGone(folder: string): Promise<void> {
  await expect.poll(() => ended(folder)).toBe(true)
  rmSync(folder, { recursive: true })
}

function ended(folder: string): boolean {
  return !readdirSync('/proc').some(pid => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/cwd`).startsWith(folder)
    } catch {
      return false
    }
  })
}

describe.runIf(wallsHere)('a user without any right', () => {
  test('has all walls: none of them needs a capability', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-bare-'))
    const { parent, walls } = await startLone('./lone-parent.mjs', folder, process.getuid?.() === 0 ? POWERLESS : [])
    expect(walls).toEqual(ALL_STAND)
    await end(parent)
    await isGone(folder)
  })

  test('is not held up by a time zone that is the name of a pipe of its own', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-pipes-'))
    const { parent, own } = await startLone('./lone-parent.mjs', folder, process.getuid?.() === 0 ? POWERLESS : [])
    const client = openOwnClient(own)
    for (let fd = 3; fd < 64; fd++) {
      const zone = `concat('fi', 'le:/proc/self/fd/${fd}')`
      const asked = client.query({ query: `SELECT toDateTime(0, ${zone})` }).then(result => result.text())
      await asked.catch(() => {})
    }
    expect(await rows(client, 'SELECT 1')).toEqual([[1]])
    await client.close()
    await end(parent)
    await isGone(folder)
  })
})

describe.runIf(wallsHere)('a folder of the version before', () => {
  test('opens as it is, and what was written is there', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-before-'))
    const before = fork(fileURLToPath(new URL('./engine-before.mjs', import.meta.url)), [join(folder, 'engine')], {
      execArgv: [],
    })
    const [, signal] = await once(before, 'exit')
    expect(signal).toBe('SIGKILL')
    const { parent, own } = await startLone('./lone-parent.mjs', folder)
    const client = openOwnClient(own)
    expect(await rows(client, 'SELECT count(), sum(x) FROM old.t')).toEqual([[1000, 499_500]])
    await client.insert({ table: 'old.t', values: [{ x: 500 }], format: 'JSONEachRow' })
    await client.command({ query: 'OPTIMIZE TABLE old.t FINAL' })
    expect(await rows(client, 'SELECT count(), sum(x) FROM old.t')).toEqual([[1001, 500_000]])
    await client.close()
    await end(parent)
    await isGone(folder)
  })
})
