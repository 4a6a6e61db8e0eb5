/**
 * A log of what strangers can cause: a few lines of each kind per period, then only their number. One hostile peer, or ten
 * thousand at once, cannot fill the disk or hide the other lines. Kinds are words of this program, so the map is bounded.
 */
import type { Logger } from 'pino'

const LINES_PER_PERIOD = 5
const PERIOD_MS = 10_000

export interface SampledLog {
  warn(kind: string, fields: object): void
  debug(kind: string, fields: object): void
  /** Every second: says how many lines were left out in the period that ended. */
  tick(): void
}

export function openSampledLog(log: Logger, clock: () => number): SampledLog {
  const counts = new Map<string, number>()
  let since = clock()

  return {
    warn: (kind, fields) => write('warn', kind, fields),
    debug: (kind, fields) => write('debug', kind, fields),
    tick,
  }

  function write(level: 'warn' | 'debug', kind: string, fields: object): void {
    if (!log.isLevelEnabled(level)) return
    const count = (counts.get(kind) ?? 0) + 1
    counts.set(kind, count)
    if (count <= LINES_PER_PERIOD) log[level](fields, kind)
  }

  function tick(): void {
    const now = clock()
    if (now - since < PERIOD_MS) return
    since = now
    for (const [kind, count] of counts) {
      if (count > LINES_PER_PERIOD) log.warn({ leftOut: count - LINES_PER_PERIOD }, kind)
    }
    counts.clear()
  }
}
