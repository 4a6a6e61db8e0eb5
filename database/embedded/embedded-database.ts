/**
 * Starts the embedded ClickHouse: a child process with the chDB engine, which listens on two Unix sockets (sockets.ts).
 *
 * One start, one process: whoever supervises calls again after an exit, with the same folder; the sockets are the same then. The
 * child dies with this process, also when that is killed; its data survives either.
 */
import { availableParallelism } from 'node:os'
import { dirname } from 'node:path'
import { SurgetankError } from '../../errors.ts'
import type { AnalystLimits } from './analyst-settings.ts'
import type { ChildMessage, OpenMessage } from './process.ts'
import { makeSocketFolder, type Sockets, socketsOf } from './sockets.ts'
import { type Forked, forkEngine } from './walls/fork.ts'
import type { Walls } from './walls/walls.ts'

export interface EmbeddedDatabaseOptions {
  /** Holds the engine's files and unfinished inserts; made when it does not exist. */
  readonly dataDir: string
  readonly limits?: Partial<AnalystLimits>
  /** How long to wait for a folder in use, ms: a predecessor that was killed holds it until the kernel has torn it down. */
  readonly folderMsMax?: number
  /** What stood around earlier engines of this process: without one of these walls there is no engine. */
  readonly stood?: Walls
  /** Called once when the child has ended after it was ready, for whatever reason. */
  readonly onExit?: (exit: EmbeddedExit) => void
}

export interface EmbeddedExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** True after `stop` or `kill`. */
  readonly expected: boolean
  /** The end of what the engine wrote to stderr: a fault of the engine leaves its trace there. */
  readonly stderr: string
}

export interface EmbeddedDatabase {
  readonly sockets: Sockets
  readonly pid: number
  /** The engine's version, such as 26.7.3. */
  readonly version: string
  /** What the kernel holds it to. */
  readonly walls: Walls
  /** Ends it after what runs, within about 5 s: by SIGTERM, or SIGKILL when something did not end; resolves when it is gone. */
  stop(): Promise<void>
  /** Ends it at once. */
  kill(): void
}

const FOLDER_MS_MAX = 10_000
/** An engine with many parts loads them all before it answers; a held lock is waited for by `folderMsMax`, within this. */
const READY_MS_MAX = 5 * 60_000
const STOP_MS_MAX = 6_000

const LIMITS: AnalystLimits = {
  secondsMax: 60,
  memoryBytesMax: 1024 * 1024 * 1024,
  threadsMax: Math.max(1, Math.floor(availableParallelism() / 2)),
  resultBytesMax: 128 * 1024 * 1024,
}

/**
 * Resolves when the database answers. Rejects with `data_dir_in_use` when another process holds the folder for longer than `folderMsMax`,
 * `data_dir_unusable` when the sockets cannot be kept from other users, `walls_lost`, or `child_failed`; no process is left then.
 */
export async function startEmbeddedDatabase(options: EmbeddedDatabaseOptions): Promise<EmbeddedDatabase> {
  const sockets = socketsOf(options.dataDir)
  makeSocketFolder(sockets)
  const forked = await forkEngine({
    folder: options.dataDir,
    socketFolder: dirname(sockets.own),
    ...(options.stood === undefined ? {} : { stood: options.stood }),
  })
  const { child, walls } = forked
  let expected = false
  const exited: Promise<EmbeddedExit> = forked.exited.then(end => ({ ...end, expected }))
  const open: OpenMessage = {
    sockets,
    limits: { ...LIMITS, ...options.limits },
    folderMsMax: options.folderMsMax ?? FOLDER_MS_MAX,
  }
  void forked.channel.send(open)
  const { version } = await readiness(forked, exited, options)
  void exited.then(exit => options.onExit?.(exit))
  return { sockets, version, walls, pid: child.pid ?? 0, stop, kill }

  async function stop(): Promise<void> {
    expected = true
    child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX)
    await exited
    clearTimeout(timer)
  }

  function kill(): void {
    expected = true
    child.kill('SIGKILL')
  }
}

async function readiness(
  { child, channel }: Forked,
  exited: Promise<EmbeddedExit>,
  { dataDir }: EmbeddedDatabaseOptions,
): Promise<ChildMessage & { ready: true }> {
  const timer = setTimeout(() => child.kill('SIGKILL'), READY_MS_MAX)
  const first = (await channel.next()) as ChildMessage | null
  clearTimeout(timer)
  if (first?.ready === true && typeof first.version === 'string') return first
  child.kill('SIGKILL')
  const { stderr } = await exited
  if (first === null)
    throw new SurgetankError('child_failed', `The embedded ClickHouse did not start. ${stderr.slice(-500)}`)
  if (first.ready === false && first.why === 'folder_in_use')
    throw new SurgetankError(
      'data_dir_in_use',
      `The embedded ClickHouse cannot open ${dataDir}. ${stderr.slice(-300)}`.trim(),
    )
  const detail = first.ready === false ? first.detail : 'it says what it never says'
  throw new SurgetankError('child_failed', `The embedded ClickHouse did not start: ${detail}`)
}
