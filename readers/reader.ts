/**
 * A reader: sees to it that the space is whole, for as long as it runs.
 *
 * Whenever the space is not warm and nobody else has the right, it rebuilds it from ClickHouse and the log; begun anew when
 * the right is lost on the way. And while units are lost it merges for them what they made durable last, and follows the
 * log: they may be cut off from the space alone, and go on. Any number of readers may run: the space gives each task to one
 * at a time. Nothing here has a bound in time: the space is asked for a task every half second, also while it is away; a
 * rebuild that failed, because ClickHouse or the log is away, is begun again after a pause that doubles with each failure, up
 * to ten seconds; a repair, failed or not, is gone on with after five.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { type Replay, rebuildState, replaySince, type Sources } from './rehydrate.ts'

export interface ReaderOptions extends Sources {
  readonly log: Logger
}

export interface Reader {
  /** Ends what is under way; what was merged until then is harmless. */
  close(): Promise<void>
}

const AGAIN_MS = 500
const AGAIN_MS_MAX = 10_000
/** Looks at the log for lost units are so far apart, so that a device that sends often costs one update for many readings. */
const FOLLOW_MS = 5_000
/** The first failures belong to any restart. */
const WARN_AFTER_MS = 5_000
const WARN_EVERY_MS = 10_000

export function openReader({ log, ...sources }: ReaderOptions): Reader {
  const { space } = sources
  const stopped = new AbortController()
  /** Rebuilds that failed, one after another, with the one under way. */
  let failed = 0
  /** The units that are lost, and the replay of the log that all of them share; null while none is. */
  let units: readonly string[] = []
  let replay: Replay | null = null
  const ended = Promise.all([
    repeat(rebuild, () => Math.min(AGAIN_MS * 2 ** Math.max(0, failed - 1), AGAIN_MS_MAX)),
    repeat(repair, () => (units.length > 0 ? FOLLOW_MS : AGAIN_MS)),
  ])

  return { close }

  /** Each by itself: a repair that takes long, or never keeps up with the log, holds up no rebuild. */
  async function repeat(task: () => Promise<void>, pauseMs: () => number): Promise<void> {
    /** When the next failure is told; null while there is none. */
    let warnAt: number | null = null
    while (!stopped.signal.aborted) {
      try {
        await task()
        warnAt = null
      } catch (error) {
        if (stopped.signal.aborted) return
        const now = performance.now()
        warnAt ??= now + WARN_AFTER_MS
        if (now >= warnAt) {
          warnAt = now + WARN_EVERY_MS
          log.warn({ err: error }, 'the state cannot be rebuilt yet')
        }
      }
      await pause(pauseMs(), undefined, { signal: stopped.signal }).catch(() => {})
    }
  }

  async function rebuild(): Promise<void> {
    const since = performance.now()
    const right = await space.claimRebuild()
    if (right === null) {
      if (space.warm) failed = 0
      return
    }
    failed++
    try {
      const rebuilt = await rebuildState(sources, AbortSignal.any([stopped.signal, right.lost]))
      await right.finish()
      failed = 0
      log.info({ ...rebuilt, ms: Math.round(performance.now() - since) }, 'the state is rebuilt')
    } finally {
      await right.release()
    }
  }

  async function repair(): Promise<void> {
    const lost = await space.claimLostUnits()
    const known = units
    units = lost?.units ?? []
    if (lost === null) {
      replay = null
      return
    }
    const at = Date.now()
    const found = units.filter(unit => !known.includes(unit))
    if (found.length > 0) log.info({ units: found }, 'units are lost: what they make durable is merged from the log')
    replay = await replaySince(sources, lost.mergedThrough, replay, stopped.signal)
    await lost.merged(at)
  }

  async function close(): Promise<void> {
    stopped.abort()
    await ended
  }
}
