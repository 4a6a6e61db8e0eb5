/** The lock of a data directory: who counts as running on it, and that two never hold it, however they start. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { findRunning, openDataDir } from '../../manager/data-dir.ts'
import { killProcess } from '../crash/system.ts'

const PORTS = { mqtt: 1883, http: 8080, sql: 8123 }
const root = mkdtempSync(join(tmpdir(), 'surgetank-lock-'))
let dir: string
let rounds = 0

beforeEach(() => {
  dir = join(root, String(rounds++))
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

describe('a data directory', () => {
  it('that nobody uses is made and held, until it is released', () => {
    expect(findRunning(dir)).toBeNull()
    const data = openDataDir(dir)
    expect(findRunning(dir)).toMatchObject({ pid: process.pid, ports: null })
    data.announce(PORTS)
    expect(findRunning(dir)).toMatchObject({ pid: process.pid, ports: PORTS })
    data.release()
    expect(findRunning(dir)).toBeNull()
    expect(locks()).toEqual([])
  })

  it('tells where the sockets are, at first, and what the engine is walled from, with the ports', () => {
    const data = openDataDir(dir)
    const nothing = { ports: null, socketFolder: null, walls: null }
    const user = process.geteuid?.()
    expect(findRunning(dir)).toMatchObject({ ...nothing, user })
    data.announce({ socketFolder: '/tmp/surgetank-sockets-a1B2c3' })
    expect(findRunning(dir)).toMatchObject({ ...nothing, socketFolder: '/tmp/surgetank-sockets-a1B2c3' })
    const walls = { files: 'this kernel has no Landlock', network: true, programs: true } as const
    data.announce({ ...PORTS, walls })
    expect(findRunning(dir)).toMatchObject({ ports: PORTS, socketFolder: '/tmp/surgetank-sockets-a1B2c3', walls })
    // As versions before wrote it.
    writeFileSync(join(dir, locks()[0] ?? ''), JSON.stringify(PORTS))
    expect(findRunning(dir)).toMatchObject({ ...nothing, ports: PORTS })
    data.release()
  })

  it('in use is refused with the id of its process, and stays in use', () => {
    const data = openDataDir(dir)
    data.announce(PORTS)
    expect(() => openDataDir(dir)).toThrow(`Process ${process.pid} uses ${dir}`)
    expect(findRunning(dir)?.ports).toEqual(PORTS)
    expect(locks()).toHaveLength(1)
    data.release()
  })

  it('is in use from the moment the lock exists, before anything is written into it', () => {
    const data = openDataDir(dir)
    const [lock = ''] = locks()
    for (const content of ['', '{"mqtt":18']) {
      writeFileSync(join(dir, lock), content)
      expect(findRunning(dir)).toMatchObject({ pid: process.pid, ports: null })
      expect(() => openDataDir(dir)).toThrow('data directory')
    }
    data.release()
  })

  it('is released by its holder only: a lock that another one took meanwhile stays', () => {
    const first = openDataDir(dir)
    for (const lock of locks()) rmSync(join(dir, lock))
    const second = openDataDir(dir)
    first.release()
    expect(findRunning(dir)).toMatchObject({ pid: process.pid })
    second.release()
  })

  it('that cannot be made is refused with the setting that names it', () => {
    const file = join(root, `file-${rounds}`)
    writeFileSync(file, '')
    expect(() => openDataDir(join(file, 'data'))).toThrow('SURGETANK_DATA_DIR')
  })
})

describe('a lock is stale, and is taken over, when it names', () => {
  it.each([
    ['a process that is gone', async () => lockOf(await endedProcess())],
    ['a process whose id another one has by now', async () => ownLock().replace(/-\d+\./, '-1.')],
    ['a process of before the machine was started again', async () => ownLock().replace(/\.[\da-f]{8}-/, '.00000000-')],
  ])('%s', async (_who, name) => {
    put(await name(), JSON.stringify(PORTS))
    expect(findRunning(dir)).toBeNull()
    const data = openDataDir(dir)
    expect(findRunning(dir)).toMatchObject({ pid: process.pid, ports: null })
    expect(locks()).toHaveLength(1)
    data.release()
  })

  it('a process that has ended and was not yet collected by its parent', async () => {
    // The shell becomes a `sleep`, which never asks for the end of the child that it inherits.
    const parent = spawn('sh', ['-c', 'sleep 600 & echo $!; exec sleep 600'], { stdio: ['ignore', 'pipe', 'ignore'] })
    const [line] = await once(parent.stdout, 'data')
    const pid = Number(line)
    try {
      put(lockOf(pid, startTicks(pid)), '')
      expect(findRunning(dir)).toMatchObject({ pid })
      process.kill(pid, 'SIGKILL')
      await zombie(pid)
      expect(findRunning(dir)).toBeNull()
      openDataDir(dir).release()
    } finally {
      killProcess(pid)
      await end(parent)
    }
  })
})

it('of a killed process the folder of its sockets is removed, when it was a temporary one', async () => {
  const folder = mkdtempSync(join(root, 'surgetank-sockets-'))
  put(lockOf(await endedProcess()), JSON.stringify({ socketFolder: folder }))
  expect(findRunning(dir)).toBeNull()
  expect(existsSync(folder)).toBe(true)
  const data = openDataDir(dir)
  expect(existsSync(folder)).toBe(false)
  const kept = join(dir, 'sockets')
  mkdirSync(kept)
  data.release()
  put(lockOf(await endedProcess()), JSON.stringify({ ...PORTS, socketFolder: kept }))
  openDataDir(dir).release()
  expect(existsSync(kept)).toBe(true)
})

it('files that are no locks are neither read nor removed', () => {
  const names = ['surgetank.lock', 'surgetank.lock.x', 'surgetank.lock.12', 'surgetank.lock.1.2.3.new', 'readme']
  for (const name of names) put(name, 'garbage')
  expect(findRunning(dir)).toBeNull()
  openDataDir(dir).release()
  expect(readdirSync(dir)).toEqual(expect.arrayContaining(names))
})

it('of several that start at one moment beside a stale lock, one at most holds it [G2]', async () => {
  const stale = lockOf(await endedProcess())
  const starters = await Promise.all(Array.from({ length: 4 }, startStarter))
  try {
    let held = 0
    for (let round = 0; round < 40; round++) {
      const at = join(root, `race-${round}`)
      mkdirSync(at)
      writeFileSync(join(at, stale), '')
      const outcomes = await Promise.all(starters.map(starter => tryLock(starter, at)))
      const holders = outcomes.filter(outcome => outcome === 'held').length
      expect(holders).toBeLessThanOrEqual(1)
      held += holders
    }
    expect(held).toBeGreaterThan(30)
  } finally {
    await Promise.all(starters.map(end))
  }
})

/** Takes the lock of each directory that it is told, and keeps it. */
const STARTER = `
const { openDataDir } = await import('${pathToFileURL('dist/manager/data-dir.js')}')
process.on('message', dir => {
  try { openDataDir(dir); process.send('held') } catch (error) { process.send(error.code) }
})
process.on('disconnect', () => process.exit())
process.send('ready')`

async function startStarter(): Promise<ChildProcess> {
  const args = ['--input-type=module', '--eval', STARTER]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  await once(child, 'message')
  return child
}

async function tryLock(starter: ChildProcess, at: string): Promise<string> {
  const answer = once(starter, 'message')
  starter.send(at)
  return (await answer)[0] as string
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

async function endedProcess(): Promise<number> {
  const child = spawn('true')
  await once(child, 'exit')
  return child.pid ?? 0
}

async function zombie(pid: number): Promise<void> {
  while (!/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) await new Promise(setImmediate)
}

/** The name of a lock that this process would have. */
function ownLock(): string {
  const data = openDataDir(join(root, 'own'))
  const [name = ''] = readdirSync(join(root, 'own')).filter(isLock)
  data.release()
  return name
}

/** The lock of another process, that started when this one did unless told otherwise. */
function lockOf(pid: number, ticks = startTicks(process.pid)): string {
  return ownLock()
    .replace(`.${process.pid}.`, `.${pid}.`)
    .replace(/-\d+\./, `-${ticks}.`)
}

function startTicks(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}

function put(name: string, content: string): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, name), content)
}

function locks(): string[] {
  return readdirSync(dir).filter(isLock)
}

function isLock(name: string): boolean {
  return name.startsWith('surgetank.lock')
}
