/**
 * A reader: sees to it that the space is whole, for as long as it runs.
 *
 * Whenever the space is not warm and nobody else has the right, it rebuilds it from ClickHouse and the log; begun anew when
 * the right is lost on the way. And for each unit that ended without a word it merges what that one made durable last. Any
 * number of readers may run: the space gives each task to one at a time. Nothing here has a bound in time: while
 * ClickHouse, the log or the space is away, it is tried again, half a second apart.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { rebuildState, replaySince, type Sources } from './rehydrate.ts'

export interface ReaderOptions extends Sources {
  readonly log: Logger
}

export interface Reader {
  /** Ends what is under way; what was merged until then is harmless. */
  close(): Promise<void>
}

const AGAIN_MS = 500
/** Of failures one after another: the first few belong to any restart. */
const WARN_EVERY = 20

export function openReader({ log, ...sources }: ReaderOptions): Reader {
  const { space } = sources
  const stopped = new AbortController()
  let failures = 0
  const ended = run()

  return { close }

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      try {
        const found = (await rebuild()) || (await repair())
        failures = 0
        if (found) continue
      } catch (error) {
        if (stopped.signal.aborted) return
        if (failures++ % WARN_EVERY === WARN_EVERY / 2) log.warn({ err: error }, 'the state cannot be rebuilt yet')
      }
      await pause(AGAIN_MS, undefined, { signal: stopped.signal }).catch(() => {})
    }
  }

  /** True when there was something to rebuild. */
  async function rebuild(): Promise<boolean> {
    const since = performance.now()
    const right = await space.claimRebuild()
    if (right === null) return false
    try {
      const rebuilt = await rebuildState(sources, AbortSignal.any([stopped.signal, right.lost]))
      await right.finish()
      log.info({ ...rebuilt, ms: Math.round(performance.now() - since) }, 'the state is rebuilt')
      return true
    } finally {
      await right.release()
    }
  }

  /** True when there was a unit to repair. */
  async function repair(): Promise<boolean> {
    const lost = await space.claimLostUnit()
    if (lost === null) return false
    const { unit, mergedThrough } = lost
    const messages = await replaySince(sources, mergedThrough, stopped.signal)
    await lost.finish()
    log.info({ unit, messages }, 'what a lost unit made durable last is merged')
    return true
  }

  async function close(): Promise<void> {
    stopped.abort()
    await ended
  }
}
