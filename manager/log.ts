/** What a process tells whoever runs it: one JSON document a line, on stderr. */
import { type Logger, pino } from 'pino'
import { shownJson } from '../shown-text.ts'
import { within } from '../within.ts'

const BYTES_MAX = 1 << 20
const FLUSH_MS_MAX = 500

/**
 * Lines are written beside what the process does: a terminal or a pipe that nobody reads from holds up nothing. What it does
 * not take is kept up to BYTES_MAX; further lines are dropped.
 */
export function openLog(level: string, part: string): Logger {
  // With the default minLength of 0, `flush` would call back at once.
  const stderr = pino.destination({ dest: 2, minLength: 1, maxLength: BYTES_MAX })
  // pino calls it after `fatal` and at the exit, and it waits for whoever does not read, for ever: `flushed` is instead of it.
  stderr.flushSync = () => {}
  // Names of devices, topics and errors of servers stand in it, and people read it on a terminal.
  const write = stderr.write.bind(stderr)
  stderr.write = line => write(shownJson(line))
  return pino({ level, base: { part } }, stderr)
}

/** Whether its lines are written, soon. To be awaited before an end: a line under way does not survive that. */
export async function flushed(log: Logger): Promise<boolean> {
  const written = new Promise<true>(resolve => log.flush(() => resolve(true)))
  return (await within(FLUSH_MS_MAX, written)) ?? false
}

/** Ends this process with its last lines written; by SIGKILL when nobody takes them, which `process.exit` would wait for. */
export async function exitWritten(log: Logger, code: number): Promise<void> {
  if (await flushed(log)) process.exit(code)
  process.kill(process.pid, 'SIGKILL')
}
