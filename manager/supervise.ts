/**
 * Keeps one child process running: started again after it ends, with a growing pause that falls back once it has run for
 * a while. A child that was told to stop is not started again.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { metrics } from '../metrics.ts'

/** A child that is ready. */
export interface Child {
  /** How it ended: its signal or its exit code. */
  readonly ended: Promise<string>
  /** Asks it to end, and ends it when it does not within its own bound; resolves when it is gone. */
  stop(): Promise<void>
  /** SIGKILL at once. */
  kill(): void
}

export interface SuperviseOptions {
  readonly name: string
  readonly log: Logger
  /** Starts the child; rejects when it cannot become ready, and leaves nothing behind then. */
  start(): Promise<Child>
}

const PAUSE_MS_MIN = 100
const PAUSE_MS_MAX = 5_000
const STEADY_MS = 10_000

/** Starts the child; resolves when it is ready. Rejects when this first start fails. */
export async function supervise({ name, log, start }: SuperviseOptions): Promise<Omit<Child, 'ended'>> {
  let stopping = false
  let child = await start()
  void watch()

  return {
    stop: () => {
      stopping = true
      return child.stop()
    },
    kill: () => {
      stopping = true
      child.kill()
    },
  }

  async function watch(): Promise<void> {
    for (let pauseMs = PAUSE_MS_MIN; !stopping; ) {
      const since = performance.now()
      const how = await child.ended
      if (stopping) return
      if (performance.now() - since > STEADY_MS) pauseMs = PAUSE_MS_MIN
      log.warn({ child: name, how, pauseMs }, 'a child process ended; starting it again')
      await pause(pauseMs)
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
      await startAgain()
    }
  }

  async function startAgain(): Promise<void> {
    while (!stopping) {
      metrics.childRestarts.inc({ child: name })
      try {
        child = await start()
        if (stopping) await child.stop()
        return
      } catch (error) {
        log.warn({ child: name, err: error }, 'a child process cannot be started; trying again')
        await pause(PAUSE_MS_MAX)
      }
    }
  }
}
