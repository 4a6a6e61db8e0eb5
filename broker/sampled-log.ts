/**
 * A log of what strangers can cause: a few lines of each kind and reason per period, then only their number. One hostile peer, or
 * ten thousand at once, cannot fill the disk or hide the other lines. Kinds and reasons are words of this program, so the map
 * is bounded.
 */
import type { Logger } from 'pino'

const LINES_PER_PERIOD = 5
const PERIOD_MS = 10_000

interface Fields {
  readonly reason?: string
  readonly [name: string]: unknown
}

export interface SampledLog {
  warn(kind: string, fields: Fields): void
  debug(kind: string, fields: Fields): void
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

  function write(level: 'warn' | 'debug', kind: string, fields: Fields): void {
    if (!log.isLevelEnabled(level)) return
    const key = JSON.stringify({ kind, reason: fields.reason })
    const count = (counts.get(key) ?? 0) + 1
    counts.set(key, count)
    if (count <= LINES_PER_PERIOD) log[level](fields, kind)
  }

  function tick(): void {
    const now = clock()
    if (now - since < PERIOD_MS) return
    since = now
    for (const [key, count] of counts) {
      const { kind, ...reason } = JSON.parse(key) as { kind: string; reason?: string }
      if (count > LINES_PER_PERIOD) log.warn({ ...reason, leftOut: count - LINES_PER_PERIOD }, kind)
    }
    counts.clear()
  }
}
