/**
 * Waits at start for what is not there yet: where everything is started at once, Kafka needs longer than a broker. Tried for
 * as long as the error's fate is `retry`, or the log was not made yet, which a broker does; any other is for an operator, and
 * ends the start.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { hasFate, SurgetankError } from '../errors.ts'

export interface Patience {
  readonly log: Logger
  /** Ends the waiting: the process is told to stop. */
  readonly stopping: AbortSignal
}

const PAUSE_MS_MIN = 250
const PAUSE_MS_MAX = 5_000

/** Resolves with what `open` opens. Rejects with an error of `open`, or with the signal's reason. */
export async function openPatiently<T>(
  what: string,
  { log, stopping }: Patience,
  open: () => T | Promise<T>,
): Promise<T> {
  for (let waitMs = PAUSE_MS_MIN, waited = false; ; waitMs = Math.min(waitMs * 2, PAUSE_MS_MAX), waited = true) {
    stopping.throwIfAborted()
    try {
      const opened = await open()
      if (waited) log.info(`${what} is there`)
      return opened
    } catch (error) {
      if (!mayCome(error)) throw error
      log.warn({ why: (error as Error).message, waitMs }, `waiting for ${what}`)
      await pause(waitMs, undefined, { signal: stopping }).catch(() => {})
    }
  }
}

function mayCome(error: unknown): boolean {
  return hasFate(error, 'retry') || (error instanceof SurgetankError && error.code === 'log_missing')
}
