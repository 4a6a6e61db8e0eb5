/** The writer's process, started and kept running. Its metrics come back once a second. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import { stopChild } from '../stop-child.ts'
import type { ChildMessage, WriterConfig } from './child-messages.ts'
import { type Child, type ChildEnd, supervise } from './supervise.ts'

const READY_MS_MAX = 20_000
/** Longer than the outlet waits for the step under way. */
const STOP_MS_MAX = 3_000
/** All of the child's environment: the settings of this process, and the secrets among them, do not reach it. */
const ENVIRONMENT = { TZ: 'UTC' }

/** Resolves when the writer runs. `onMetrics` gets what its registry holds, as prom-client's JSON. */
export function superviseWriter(config: WriterConfig, log: Logger, onMetrics: (metrics: unknown[]) => void) {
  return supervise({ name: 'writer', log, start: signal => startWriter(config, onMetrics, signal) })
}

async function startWriter(
  config: WriterConfig,
  onMetrics: (metrics: unknown[]) => void,
  signal: AbortSignal,
): Promise<Child> {
  const child = fork(entry(), [], { env: ENVIRONMENT, execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  let error: SurgetankError | null = null
  // The end of the channel too: what it said last may be read after its exit is known.
  const ended = Promise.all([once(child, 'exit'), once(child, 'disconnect')]).then(
    ([[code, by]]): ChildEnd => ({ how: String(by ?? code), error }),
  )
  const isReady = await new Promise<boolean>(resolve => {
    const timer = setTimeout(() => resolve(false), READY_MS_MAX)
    void ended.then(() => resolve(false)).finally(() => clearTimeout(timer))
    signal.addEventListener('abort', () => resolve(false), { once: true })
    child.on('error', () => resolve(false))
    child.on('message', (message: ChildMessage) => {
      if (message.kind === 'hello') child.send(config)
      else if (message.kind === 'metrics') onMetrics(message.metrics)
      else if (message.kind === 'failed') error = new SurgetankError(message.code, message.detail)
      else resolve(true)
    })
  })
  if (isReady)
    return { ended, stop: () => stopChild(child, ended, STOP_MS_MAX), kill: () => void child.kill('SIGKILL') }
  child.kill('SIGKILL')
  if (child.pid !== undefined) await ended
  throw error ?? new SurgetankError('child_failed', 'The writer did not become ready.')
}

/** Node runs the compiled child, also for tests that run these sources: `npm run build` comes first. */
function entry(): string {
  const path = import.meta.url.endsWith('.ts') ? '../dist/manager/writer-process.js' : './writer-process.js'
  return fileURLToPath(new URL(path, import.meta.url))
}
