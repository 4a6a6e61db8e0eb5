/**
 * Forks the engine's process behind the walls, and without them where that cannot be: a wall that is missing never keeps
 * the engine from starting.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { type Channel, openChannel } from '../channel.ts'
import { enginePackages } from '../engine.ts'
import { ENVIRONMENT } from '../environment.ts'
import type { LaunchOptions } from './launch.ts'
import { allMissing, areWalls, type Walls } from './walls.ts'

/** The first message of the engine's process, once it runs and has met the walls: now it can be told what to open. */
export interface AwakeMessage {
  readonly walls: Walls
}

export interface ForkOptions {
  /** The engine's data folder. */
  readonly folder: string
  /** Where the engine makes its sockets, when that is not in its data folder. */
  readonly socketFolder?: string
}

export interface Forked {
  readonly child: ChildProcess
  readonly channel: Channel
  /** As they are met from inside; all missing where it ended before it could tell. */
  readonly walls: Walls
  /** Resolves when it is gone, and has said all. */
  readonly exited: Promise<ForkedEnd>
}

export interface ForkedEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** The end of what it wrote to stderr. */
  readonly stderr: string
}

const STDERR_CHARS_MAX = 8_192
/** A process that is this late hangs. */
const AWAKE_MS_MAX = 2 * 60_000

/** Resolves when it is awake, or has ended without. */
export async function forkEngine({ folder, socketFolder }: ForkOptions): Promise<Forked> {
  const absolute = resolve(folder)
  if (process.platform !== 'linux') return forkOpenly(absolute, allMissing('only Linux has what they are made of'))
  const options: LaunchOptions = {
    entry: compiled('process.js'),
    folder: absolute,
    socketFolder: resolve(socketFolder ?? join(folder, 'sockets')),
    programs: [compiled('../..'), compiled('../../../package.json'), ...enginePackages()],
  }
  const walled = await awake(forkFile(compiled('walls/launch.js'), [JSON.stringify(options)]))
  if (walled.end === null || isEndedByOthers(walled.end)) return walled
  // Nothing of the data folder was opened yet: nobody but the machine can have brought this about.
  const why =
    walled.end.stderr.trim().split('\n').at(-1) || `the process ended with ${walled.end.code ?? walled.end.signal}`
  return forkOpenly(absolute, allMissing(why))
}

/** What stands on this machine for this user, tried in a folder that is gone afterwards. */
export async function tryWalls(): Promise<Walls> {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-walls-'))
  try {
    const { child, walls, exited } = await forkEngine({ folder })
    child.kill('SIGKILL')
    await exited
    return walls
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function forkOpenly(folder: string, walls: Walls): Promise<Forked> {
  return awake(forkFile(compiled('process.js'), [folder, JSON.stringify(walls)]))
}

interface Starting {
  readonly child: ChildProcess
  readonly channel: Channel
  readonly exited: Promise<ForkedEnd>
}

function forkFile(file: string, args: readonly string[]): Starting {
  const child = spawn(process.execPath, [file, ...args], {
    env: ENVIRONMENT,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  })
  const channel = openChannel(child.stdio[3] as Duplex)
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS_MAX)
  })
  // The end of stderr and of the channel, too: what it said last may be read after its exit is known.
  const exited = once(child, 'close').then(([code, signal]) => ({ code, signal, stderr }) as ForkedEnd)
  return { child, channel, exited }
}

async function awake({ child, channel, exited }: Starting): Promise<Forked & { readonly end: ForkedEnd | null }> {
  const timer = setTimeout(() => child.kill('SIGKILL'), AWAKE_MS_MAX)
  const walls = (await channel.next())?.walls
  clearTimeout(timer)
  if (areWalls(walls)) return { child, channel, exited, walls, end: null }
  child.kill('SIGKILL')
  return { child, channel, exited, walls: allMissing('it ended at once'), end: await exited }
}

/** Whoever ended it would end the next one, too. */
function isEndedByOthers({ signal }: ForkedEnd): boolean {
  return signal === 'SIGKILL' || signal === 'SIGTERM'
}

/** Node runs the compiled files, also for tests that run these sources: `npm run build` comes first. */
function compiled(file: string): string {
  const folder = import.meta.url.endsWith('.ts') ? '../../../dist/database/embedded' : '..'
  return join(dirname(fileURLToPath(new URL(`${folder}/process.js`, import.meta.url))), file)
}
