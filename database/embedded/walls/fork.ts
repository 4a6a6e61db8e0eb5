/**
 * Forks the engine's process behind the walls, and without them where that cannot be: a wall that is missing never keeps
 * the engine from starting.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { SurgetankError } from '../../../errors.ts'
import { type Channel, openChannel } from '../channel.ts'
import { enginePackages } from '../engine.ts'
import { ENVIRONMENT } from '../environment.ts'
import type { LaunchOptions } from './launch.ts'
import { allMissing, areWalls, describeWalls, isLost, type Walls } from './walls.ts'

/** The first message of the engine's process, once it runs and has met the walls: now it can be told what to open. */
export interface AwakeMessage {
  readonly walls: Walls
}

export interface ForkOptions {
  /** The engine's data folder. */
  readonly folder: string
  /** Where the engine makes its sockets, when that is not in its data folder. */
  readonly socketFolder?: string
  /** What stood around earlier engines: whoever can make a wall fail, and end an engine, gets none without it. */
  readonly stood?: Walls
  /** How long it may take behind the walls until it is awake, ms. */
  readonly awakeMsMax?: number
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

/**
 * Resolves when it is awake, or has ended without. Rejects with `walls_lost` when a wall of `stood` is missing, and with
 * `child_failed` when no process can be made; none is left then.
 */
export async function forkEngine(options: ForkOptions): Promise<Forked> {
  const { folder, socketFolder, stood = allMissing('no engine before'), awakeMsMax = AWAKE_MS_MAX } = options
  const absolute = resolve(folder)
  if (process.platform !== 'linux') return forkOpenly(absolute, allMissing('only Linux has what they are made of'))
  const launch: LaunchOptions = {
    entry: compiled('process.js'),
    folder: absolute,
    socketFolder: resolve(socketFolder ?? join(folder, 'sockets')),
    programs: [compiled('../..'), compiled('../../../package.json'), ...enginePackages()],
  }
  const walled = await awake(forkFile(compiled('walls/launch.js'), [JSON.stringify(launch)]), awakeMsMax)
  if (walled.end !== null && isEndedByOthers(walled.end)) return walled
  const walls = walled.end === null ? walled.walls : allMissing(whyNotAwake(walled.end))
  if (isLost(stood, walls)) {
    walled.child.kill('SIGKILL')
    await walled.exited
    throw new SurgetankError('walls_lost', `${describeWalls(walls)}.`)
  }
  // Nothing of the data folder was opened yet: nobody but the machine can have brought this about.
  return walled.end === null ? walled : forkOpenly(absolute, walls)
}

/** What stands on this machine for this user, tried in a folder that is gone afterwards. */
export async function tryWalls(): Promise<Walls> {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-walls-'))
  try {
    const { child, walls, exited } = await forkEngine({ folder })
    child.kill('SIGKILL')
    await exited
    return walls
  } catch (error) {
    return allMissing(error instanceof SurgetankError ? error.detail : String(error))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Without walls; `walls` says why. */
export function forkOpenly(folder: string, walls: Walls): Promise<Forked> {
  return awake(forkFile(compiled('process.js'), [folder, JSON.stringify(walls)]), AWAKE_MS_MAX)
}

interface Starting {
  readonly child: ChildProcess
  readonly channel: Channel
  /** Rejects when there was never a process. */
  readonly exited: Promise<ForkedEnd>
}

function forkFile(file: string, args: readonly string[]): Starting {
  const child = spawned(file, args)
  const channel = openChannel(child.stdio[3] as Duplex)
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS_MAX)
  })
  const exited = new Promise<ForkedEnd>((resolve, reject) => {
    // Of a process that is there it says that a signal did not come through: its end is waited for.
    child.on('error', error => child.pid === undefined && reject(noProcess(error)))
    // The end of stderr and of the channel, too: what it said last may be read after its exit is known.
    child.once('close', (code, signal) => resolve({ code, signal, stderr }))
  })
  return { child, channel, exited }
}

function spawned(file: string, args: readonly string[]): ChildProcess {
  try {
    return spawn(process.execPath, [file, ...args], { env: ENVIRONMENT, stdio: ['ignore', 'ignore', 'pipe', 'pipe'] })
  } catch (error) {
    throw noProcess(error)
  }
}

function noProcess(error: unknown): SurgetankError {
  const why = error instanceof Error ? error.message : String(error)
  return new SurgetankError('child_failed', `The embedded ClickHouse has no process: ${why}.`, error)
}

/** An end before it was awake. */
interface EarlyEnd extends ForkedEnd {
  /** How long was waited for it in vain; null when it ended by itself. */
  readonly lateMs: number | null
}

async function awake(
  { child, channel, exited }: Starting,
  msMax: number,
): Promise<Forked & { readonly end: EarlyEnd | null }> {
  let lateMs: number | null = null
  const timer = setTimeout(() => {
    lateMs = msMax
    child.kill('SIGKILL')
  }, msMax)
  try {
    const walls = (await Promise.race([channel.next(), exited.then(() => null)]))?.walls
    if (areWalls(walls)) return { child, channel, exited, walls, end: null }
    child.kill('SIGKILL')
    return { child, channel, exited, walls: allMissing('it ended at once'), end: { ...(await exited), lateMs } }
  } finally {
    clearTimeout(timer)
  }
}

function whyNotAwake({ code, signal, stderr, lateMs }: EarlyEnd): string {
  if (lateMs !== null) return `the process was not awake after ${lateMs / 1_000} s`
  return stderr.trim().split('\n').at(-1) || `the process ended with ${code ?? signal}`
}

/** Whoever ended it would end the next one, too. */
function isEndedByOthers({ signal, lateMs }: EarlyEnd): boolean {
  return lateMs === null && (signal === 'SIGKILL' || signal === 'SIGTERM')
}

/** Node runs the compiled files, also for tests that run these sources: `npm run build` comes first. */
function compiled(file: string): string {
  const folder = import.meta.url.endsWith('.ts') ? '../../../dist/database/embedded' : '..'
  return join(dirname(fileURLToPath(new URL(`${folder}/process.js`, import.meta.url))), file)
}
