/**
 * Keeps one child process running: started again after it ends, with a growing pause that falls back once it has run for
 * a while. What an operator must mend (fate `stop`) is tried again slowly, and shown as `failure` until the child runs
 * steadily. Once it is told to stop nothing is started again, and a start under way leaves nothing behind.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { hasFate, logFields, type SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'

/** A child that is ready. */
export interface Child {
  readonly ended: Promise<ChildEnd>
  /** Asks it to end, and ends it when it does not within its own bound; resolves when it is gone. */
  stop(): Promise<void>
  /** SIGKILL at once. */
  kill(): void
}

export interface ChildEnd {
  /** Its signal or its exit code. */
  readonly how: string
  /** What it said that it cannot go on for; null when it said nothing. */
  readonly error: SurgetankError | null
}

export interface Supervised {
  /** True while the child runs. */
  readonly up: boolean
  /** Why it cannot run until an operator acts; null while it can. */
  readonly failure: SurgetankError | null
  /** The child may be told to end by others from now on: it is not started again. */
  expectEnd(): void
  /** Ends it, within its own bound; resolves when nothing of it is left, also when it was just being started. */
  stop(): Promise<void>
  /** SIGKILL at once. */
  kill(): void
}

export interface SuperviseOptions {
  readonly name: string
  readonly log: Logger
  /** Starts the child; rejects when it cannot become ready, or when the signal fires first, and leaves nothing behind then. */
  start(signal: AbortSignal): Promise<Child>
  /** Time, for a test that does not wait for it. */
  readonly clock?: SuperviseClock
}

export interface SuperviseClock {
  /** ms that only grow. */
  now(): number
  /** Resolves after so many ms, or when the signal fires. */
  pause(ms: number, signal: AbortSignal): Promise<void>
}

export const PAUSE_MS_MIN = 100
export const PAUSE_MS_MAX = 5_000
export const FAILED_PAUSE_MS = 30_000
export const STEADY_MS = 10_000

const CLOCK: SuperviseClock = {
  now: () => performance.now(),
  pause: (ms, signal) => sleep(ms, undefined, { signal }).catch(() => {}),
}

/** Starts the child; resolves when it is ready. Rejects when this first start fails. */
export async function supervise({ name, log, start, clock = CLOCK }: SuperviseOptions): Promise<Supervised> {
  const stopping = new AbortController()
  const { signal } = stopping
  let killed = false
  let child: Child | null = null
  let upSince = 0
  let failure: SurgetankError | null = null
  setUp(await start(signal))
  const watched = watch()

  return {
    get up() {
      return child !== null
    },
    get failure() {
      return isSteady() ? null : failure
    },
    expectEnd: () => stopping.abort(),
    stop,
    kill,
  }

  async function watch(): Promise<void> {
    for (let pauseMs = PAUSE_MS_MIN; ; ) {
      const { how, error } = await ending()
      if (isSteady()) pauseMs = PAUSE_MS_MIN
      child = null
      metrics.childUp.set({ child: name }, 0)
      if (signal.aborted) return
      failure = hasFate(error, 'stop') ? error : null
      const waitMs = failure === null ? pauseMs : FAILED_PAUSE_MS
      log.warn(
        { child: name, how, ...(error === null ? {} : logFields(error)), waitMs },
        'a child process ended; starting it again',
      )
      await clock.pause(waitMs, signal)
      if (signal.aborted) return
      pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
    }
  }

  /** How the child ended; one that is not there is started first. */
  async function ending(): Promise<{ how: string; error: unknown }> {
    let running = child
    try {
      running ??= await startAgain()
    } catch (error) {
      return { how: 'not started', error }
    }
    if (killed) running.kill()
    else if (signal.aborted) await running.stop()
    return running.ended
  }

  async function startAgain(): Promise<Child> {
    metrics.childRestarts.inc({ child: name })
    return setUp(await start(signal))
  }

  function setUp(started: Child): Child {
    child = started
    upSince = clock.now()
    metrics.childUp.set({ child: name }, 1)
    return started
  }

  function isSteady(): boolean {
    return child !== null && clock.now() - upSince >= STEADY_MS
  }

  async function stop(): Promise<void> {
    stopping.abort()
    await child?.stop()
    await watched
  }

  function kill(): void {
    killed = true
    stopping.abort()
    child?.kill()
  }
}
