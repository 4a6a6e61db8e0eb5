/**
 * Starts the embedded ClickHouse: a child process with the chDB engine, which listens on two Unix sockets (sockets.ts).
 *
 * One start, one process: whoever supervises calls again after an exit, with the same folders; the sockets are the same then. The
 * child dies with this process, also when that is killed; its data survives either.
 */
import { availableParallelism } from 'node:os'
import { SurgetankError } from '../../errors.ts'
import { stopChild } from '../../stop-child.ts'
import type { AnalystLimits } from './analyst-settings.ts'
import type { ChildMessage, OpenMessage } from './process.ts'
import { keepPrivate, openSocketPlace, type Sockets, socketsIn } from './sockets.ts'
import { type Forked, forkEngine } from './walls/fork.ts'
import { allMissing, type Walls } from './walls/walls.ts'

export interface EmbeddedDatabaseOptions {
  /** Holds the engine's files and unfinished inserts; made when it does not exist. */
  readonly dataDir: string
  /** Where it listens: of a place that stays the same when it is started again. Without, a place of its own until its end. */
  readonly socketFolder?: string
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
 * `no_socket_place` when there is none that is closed to other users, `walls_lost`, or `child_failed`; no process is left then.
 */
export async function startEmbeddedDatabase(options: EmbeddedDatabaseOptions): Promise<EmbeddedDatabase> {
  if (options.socketFolder !== undefined) return startIn(options.socketFolder, options)
  const place = await openSocketPlace(options.dataDir)
  const onExit = (exit: EmbeddedExit) => {
    place.close()
    options.onExit?.(exit)
  }
  try {
    return await startIn(place.folder, { ...options, onExit })
  } catch (error) {
    place.close()
    throw error
  }
}

async function startIn(socketFolder: string, options: EmbeddedDatabaseOptions): Promise<EmbeddedDatabase> {
  const sockets = socketsIn(socketFolder)
  closeToOthers(socketFolder)
  const { stood = allMissing('no engine before') } = options
  const forked = await forkEngine({ folder: options.dataDir, socketFolder, stood })
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

  function stop(): Promise<void> {
    expected = true
    return stopChild(child, exited, STOP_MS_MAX)
  }

  function kill(): void {
    expected = true
    child.kill('SIGKILL')
  }
}

/** Again at each start: one for temporary files may have been cleared away meanwhile. */
function closeToOthers(socketFolder: string): void {
  try {
    keepPrivate(socketFolder)
  } catch (error) {
    throw new SurgetankError('no_socket_place', `${socketFolder}: ${(error as Error).message}.`, error)
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
