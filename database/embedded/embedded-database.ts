/**
 * Starts the embedded ClickHouse: a child process with the chDB engine and its HTTP interface on 127.0.0.1.
 *
 * One start, one process: whoever supervises calls again after an exit, with the same folder, port and password. The
 * child dies with this process, also when that is killed; its data survives either.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { SurgetankError } from '../../errors.ts'
import type { AnalystLimits } from './analyst-settings.ts'
import type { ChildMessage, OpenMessage } from './process.ts'

export interface EmbeddedDatabaseOptions {
  /** Holds the engine's files and unfinished inserts; made when it does not exist. */
  readonly dataDir: string
  /** 0 for any free one; pass the one that was given when starting again. */
  readonly port: number
  /** Of the user `surgetank`, the only one who may write. Made anew at each start of the whole, never stored. */
  readonly password: string
  readonly limits?: Partial<AnalystLimits>
  /** How long to wait for a folder in use, ms: a predecessor that was killed holds it until the kernel has torn it down. */
  readonly folderMsMax?: number
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
  readonly port: number
  readonly pid: number
  /** The engine's version, such as 26.7.3. */
  readonly version: string
  /** Ends it after what runs, within about 5 s: by SIGTERM, or SIGKILL when something did not end; resolves when it is gone. */
  stop(): Promise<void>
  /** Ends it at once. */
  kill(): void
}

const FOLDER_MS_MAX = 10_000
/** An engine with many parts loads them all before it answers; a held lock is waited for by `folderMsMax`, within this. */
const READY_MS_MAX = 5 * 60_000
const STOP_MS_MAX = 6_000
const STDERR_CHARS_MAX = 8_192

const LIMITS: AnalystLimits = {
  secondsMax: 60,
  memoryBytesMax: 1024 * 1024 * 1024,
  threadsMax: Math.max(1, Math.floor(availableParallelism() / 2)),
  resultBytesMax: 128 * 1024 * 1024,
}

/**
 * All of the child's environment: nothing of this process's reaches it. A statement under way holds one thread of libuv's
 * pool, and files need some, too: more than all lanes together. Times without a zone are UTC, as everywhere here.
 */
const ENVIRONMENT = { UV_THREADPOOL_SIZE: '20', TZ: 'UTC' }

/**
 * Resolves when the database answers. Rejects with `data_dir_in_use` when another process holds the folder for longer than `folderMsMax`,
 * `port_in_use`, or `child_failed`; no process is left then.
 */
export async function startEmbeddedDatabase(options: EmbeddedDatabaseOptions): Promise<EmbeddedDatabase> {
  const child = fork(childEntry(), {
    env: ENVIRONMENT,
    execArgv: [],
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARS_MAX)
  })
  let expected = false
  // The end of stderr and of the channel, too: what it said last may be read after its exit is known.
  const exited = Promise.all([once(child, 'close'), once(child, 'disconnect')]).then(
    ([[code, signal]]) => ({ code, signal, expected, stderr }) as EmbeddedExit,
  )
  const open: OpenMessage = {
    folder: options.dataDir,
    port: options.port,
    password: options.password,
    limits: { ...LIMITS, ...options.limits },
    folderMsMax: options.folderMsMax ?? FOLDER_MS_MAX,
  }
  child.send(open, () => {})
  const { port, version } = await readiness(child, exited, options)
  void exited.then(exit => options.onExit?.(exit))
  return { port, version, pid: child.pid ?? 0, stop, kill }

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
  child: ChildProcess,
  exited: Promise<EmbeddedExit>,
  { dataDir, port }: EmbeddedDatabaseOptions,
): Promise<ChildMessage & { ready: true }> {
  const timer = setTimeout(() => child.kill('SIGKILL'), READY_MS_MAX)
  const first = await Promise.race([once(child, 'message').then(([message]) => message as ChildMessage), exited])
  clearTimeout(timer)
  if ('ready' in first && first.ready) return first
  const { stderr } = await exited
  if (!('ready' in first))
    throw new SurgetankError('child_failed', `The embedded ClickHouse did not start. ${stderr.slice(-500)}`)
  switch (first.why) {
    case 'folder_in_use':
      throw new SurgetankError(
        'data_dir_in_use',
        `The embedded ClickHouse cannot open ${dataDir}. ${stderr.slice(-300)}`.trim(),
      )
    case 'port_in_use':
      throw new SurgetankError(
        'port_in_use',
        `127.0.0.1:${port}, for SQL: end what listens there, or set SURGETANK_SQL_PORT.`,
      )
    case 'failed':
      throw new SurgetankError('child_failed', `The embedded ClickHouse did not start: ${first.detail}`)
  }
}

/** Node runs the compiled child, also for tests that run these sources: `npm run build` comes first. */
function childEntry(): string {
  const entry = import.meta.url.endsWith('.ts') ? '../../dist/database/embedded/process.js' : './process.js'
  return fileURLToPath(new URL(entry, import.meta.url))
}
