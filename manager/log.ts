/** What a process tells whoever runs it: one JSON document a line, on stderr. */
import { type Logger, pino } from 'pino'
import { within } from '../within.ts'

const BYTES_MAX = 1 << 20
const FLUSH_MS_MAX = 500

/**
 * Lines are written beside what the process does: a terminal or a pipe that nobody reads from holds up nothing. What it does
 * not take is kept up to BYTES_MAX; further lines are dropped.
 */
export function openLog(level: string, part: string): Logger {
  // With the default minLength of 0, `flush` would call back at once.
  return pino({ level, base: { part } }, pino.destination({ dest: 2, minLength: 1, maxLength: BYTES_MAX }))
}

/** Resolves when its lines are written: to be awaited before an end by SIGKILL, which a line under way does not survive. */
export async function flushed(log: Logger): Promise<void> {
  await within(FLUSH_MS_MAX, new Promise<void>(resolve => log.flush(() => resolve())))
}
