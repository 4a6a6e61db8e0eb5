/**
 * A reader: sees to it that the space is whole, for as long as it runs.
 *
 * Whenever the space is not warm and nobody else has the right, it rebuilds it from ClickHouse and the log; begun anew when
 * the right is lost on the way. And for each unit that ended without a word it merges what that one made durable last. Any
 * number of readers may run: the space gives each task to one at a time. Nothing here has a bound in time: the space is
 * asked for a task every half second, also while it is away; a task that failed, because ClickHouse or the log is away, is
 * begun again after a pause that doubles with each failure, up to ten seconds.
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
const AGAIN_MS_MAX = 10_000
/** The first failures belong to any restart. */
const WARN_AFTER_MS = 5_000
const WARN_EVERY_MS = 10_000

export function openReader({ log, ...sources }: ReaderOptions): Reader {
  const { space } = sources
  const stopped = new AbortController()
  /** Tasks that failed, one after another, with the one under way. */
  let failed = 0
  /** When the next failure is told; null while there is none. */
  let warnAt: number | null = null
  const ended = run()

  return { close }

  async function run(): Promise<void> {
    while (!stopped.signal.aborted) {
      try {
        const found = (await rebuild()) || (await repair())
        warnAt = null
        if (found) continue
      } catch (error) {
        if (stopped.signal.aborted) return
        warn(error)
      }
      const waitMs = Math.min(AGAIN_MS * 2 ** Math.max(0, failed - 1), AGAIN_MS_MAX)
      await pause(waitMs, undefined, { signal: stopped.signal }).catch(() => {})
    }
  }

  function warn(error: unknown): void {
    const now = performance.now()
    warnAt ??= now + WARN_AFTER_MS
    if (now < warnAt) return
    warnAt = now + WARN_EVERY_MS
    log.warn({ err: error }, 'the state cannot be rebuilt yet')
  }

  /** True when there was something to rebuild. */
  async function rebuild(): Promise<boolean> {
    const since = performance.now()
    const right = await space.claimRebuild()
    if (right === null) {
      if (space.warm) failed = 0
      return false
    }
    failed++
    try {
      const rebuilt = await rebuildState(sources, AbortSignal.any([stopped.signal, right.lost]))
      await right.finish()
      failed = 0
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
    failed++
    const { unit, mergedThrough } = lost
    const messages = await replaySince(sources, mergedThrough, stopped.signal)
    await lost.finish()
    failed = 0
    log.info({ unit, messages }, 'what a lost unit made durable last is merged')
    return true
  }

  async function close(): Promise<void> {
    stopped.abort()
    await ended
  }
}
