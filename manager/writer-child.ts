/** The writer's process, started and kept running. Its metrics come back once a second. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import type { ChildMessage, WriterConfig } from './child-messages.ts'
import { type Child, supervise } from './supervise.ts'

const PROCESS = fileURLToPath(new URL('./writer-process.js', import.meta.url))
const READY_MS_MAX = 20_000
const STOP_MS_MAX = 3_000

/** Resolves when the writer runs. `onMetrics` gets what its registry holds, as prom-client's JSON. */
export function superviseWriter(config: WriterConfig, log: Logger, onMetrics: (metrics: unknown[]) => void) {
  return supervise({ name: 'writer', log, start: () => startWriter(config, onMetrics) })
}

async function startWriter(config: WriterConfig, onMetrics: (metrics: unknown[]) => void): Promise<Child> {
  const child = fork(PROCESS, [], { execArgv: [], stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const ended = once(child, 'exit').then(([code, signal]) => String(signal ?? code))
  const isReady = await new Promise<boolean>(resolve => {
    const timer = setTimeout(() => resolve(false), READY_MS_MAX)
    void ended.then(() => resolve(false)).finally(() => clearTimeout(timer))
    child.on('error', () => resolve(false))
    child.on('message', (message: ChildMessage) => {
      if (message.kind === 'hello') child.send(config)
      else if (message.kind === 'metrics') onMetrics(message.metrics)
      else resolve(true)
    })
  })
  if (isReady) return { ended, stop: () => stop(child, ended), kill: () => void child.kill('SIGKILL') }
  child.kill('SIGKILL')
  throw new SurgetankError('child_failed', 'The writer did not become ready.')
}

async function stop(child: ChildProcess, ended: Promise<string>): Promise<void> {
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX)
  await ended
  clearTimeout(timer)
}
