/**
 * Keeps one child process running: started again after it ends, with a growing pause that falls back once it has run for
 * a while. A child that was told to stop is not started again.
 */
import type { ChildProcess } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { metrics } from '../metrics.ts'

export interface Supervised {
  /** Asks the child to end (SIGTERM), and ends it (SIGKILL) when it has not within `graceMs`. */
  stop(graceMs: number): Promise<void>
  /** SIGKILL at once. */
  kill(): void
}

export interface SuperviseOptions {
  readonly name: string
  readonly log: Logger
  /** Starts the child; rejects when it cannot become ready. */
  start(): Promise<ChildProcess>
}

const PAUSE_MS_MIN = 100
const PAUSE_MS_MAX = 5_000
const STEADY_MS = 10_000

/** Runs the child for the first time; resolves when it is ready. Rejects when the first start fails. */
export async function supervise(options: SuperviseOptions): Promise<Supervised> {
  const { name, log } = options
  let stopping = false
  let child = await options.start()
  const ended = watch()

  return { stop, kill }

  async function watch(): Promise<void> {
    for (let pauseMs = PAUSE_MS_MIN; ; ) {
      const since = performance.now()
      const how = await exitOf(child)
      if (stopping) return
      if (performance.now() - since > STEADY_MS) pauseMs = PAUSE_MS_MIN
      log.warn({ child: name, how, pauseMs }, 'a child process ended; starting it again')
      for (;;) {
        await pause(pauseMs)
        if (stopping) return
        pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
        metrics.childRestarts.inc({ child: name })
        try {
          child = await options.start()
          if (stopping) child.kill('SIGTERM')
          break
        } catch (error) {
          log.warn({ child: name, err: error }, 'a child process cannot be started; trying again')
        }
      }
    }
  }

  async function stop(graceMs: number): Promise<void> {
    stopping = true
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
    await exitOf(child)
    clearTimeout(timer)
    await Promise.race([ended, pause(PAUSE_MS_MAX, undefined, { ref: false })])
  }

  function kill(): void {
    stopping = true
    child.kill('SIGKILL')
  }
}

function exitOf(child: ChildProcess): Promise<string> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(String(child.signalCode ?? child.exitCode))
  return new Promise(resolve => child.once('exit', (code, signal) => resolve(String(signal ?? code))))
}
