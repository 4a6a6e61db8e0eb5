/**
 * Starts the SQL port: a child process with ClickHouse's HTTP protocol for analysts on 127.0.0.1, in front of the engine's
 * socket for them. One start, one process: whoever supervises calls again after an exit, with the same port. The child dies
 * with this process. Its end touches neither the engine nor the writers.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { SurgetankError } from '../../errors.ts'
import { stopChild } from '../../stop-child.ts'
import type { ChildMessage, OpenMessage } from './process.ts'

export interface SqlPortOptions {
  /** 0 for any free one; pass the one that was given when starting again. */
  readonly port: number
  /** Where the engine listens for analysts; it may be away now and come later. */
  readonly analystsSocket: string
  /** Called once when the child has ended after it was ready, for whatever reason. */
  readonly onExit?: (exit: SqlPortExit) => void
}

export interface SqlPortExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** True after `stop` or `kill`. */
  readonly expected: boolean
}

export interface SqlPort {
  readonly port: number
  readonly pid: number
  /** Ends it after what runs, within about 4 s; resolves when it is gone. */
  stop(): Promise<void>
  /** Ends it at once. */
  kill(): void
}

const READY_MS_MAX = 60_000
const STOP_MS_MAX = 4_000
/** All of the child's environment: nothing of this process's reaches it. */
const ENVIRONMENT = { TZ: 'UTC' }

/** Resolves when it listens. Rejects with `port_in_use` or `child_failed`; no process is left then. */
export async function startSqlPort({ port: asked, analystsSocket, onExit }: SqlPortOptions): Promise<SqlPort> {
  const child = fork(childEntry(), { env: ENVIRONMENT, execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  let expected = false
  // The end of the channel, too: what it said last may be read after its exit is known.
  const exited = Promise.all([once(child, 'exit'), once(child, 'disconnect')]).then(
    ([[code, signal]]) => ({ code, signal, expected }) as SqlPortExit,
  )
  child.send({ port: asked, analystsSocket } satisfies OpenMessage, () => {})
  const port = await readiness(child, exited, asked)
  void exited.then(exit => onExit?.(exit))
  return { port, pid: child.pid ?? 0, stop, kill }

  function stop(): Promise<void> {
    expected = true
    return stopChild(child, exited, STOP_MS_MAX)
  }

  function kill(): void {
    expected = true
    child.kill('SIGKILL')
  }
}

async function readiness(child: ChildProcess, exited: Promise<SqlPortExit>, asked: number): Promise<number> {
  const timer = setTimeout(() => child.kill('SIGKILL'), READY_MS_MAX)
  const first = await Promise.race([once(child, 'message').then(([message]) => message as ChildMessage), exited])
  clearTimeout(timer)
  if ('ready' in first && first.ready) return first.port
  const { code, signal } = await exited
  if (!('ready' in first))
    throw new SurgetankError('child_failed', `The process of the SQL port did not start: ${signal ?? code}.`)
  if (first.why === 'failed') throw new SurgetankError('child_failed', `The SQL port did not start: ${first.detail}`)
  throw new SurgetankError(
    'port_in_use',
    `127.0.0.1:${asked}, for SQL: end what listens there, or set SURGETANK_SQL_PORT.`,
  )
}

/** Node runs the compiled child, also for tests that run these sources: `npm run build` comes first. */
function childEntry(): string {
  const entry = import.meta.url.endsWith('.ts') ? '../../dist/database/sql-port/process.js' : './process.js'
  return fileURLToPath(new URL(entry, import.meta.url))
}
