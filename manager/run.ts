/**
 * A process from its start to its end: SIGTERM and SIGINT drain it and it exits with 0, within ten seconds, also while it
 * still waits for something at its start; a second signal ends it at once. What an operator must mend ends it with 1 and a
 * sentence.
 */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import { shownLines, shownText } from '../shown-text.ts'
import { exitWritten } from './log.ts'

export interface Running {
  /** What a person reads once everything runs. */
  readonly banner: string
  stop(): Promise<void>
  /** Leaves nothing of it running, and nothing of the log under way; the process exits right after. */
  abort(): Promise<void>
}

export interface RunOptions {
  readonly log: Logger
  /** `failed` may be called at any time; `stopping` fires when the process is told to end. */
  readonly start: (stopping: AbortSignal, failed: (error: unknown) => void) => Promise<Running>
}

const EXIT_STOP = 1
const EXIT_LIMIT_MS = 9_500
/** Of `abort`: a disk or a Kafka that hangs must not hold up the end. After a drain that took too long there is less left. */
const [ABORT_MS_MAX, LATE_ABORT_MS_MAX] = [2_000, 500]

/** Resolves when it runs; it ends by itself from then on. */
export async function run({ log, start }: RunOptions): Promise<void> {
  const stopping = new AbortController()
  let running: Running | null = null
  let ending = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop(signal))
  process.on('unhandledRejection', error => fail(error, 'an error that nobody handled'))
  try {
    running = await start(stopping.signal, error => fail(error, 'this process cannot go on'))
  } catch (error) {
    if (!stopping.signal.aborted) return fail(error, 'the start failed')
  }
  if (stopping.signal.aborted) return drain()
  process.stdout.write(`${shownLines(running?.banner ?? '')}\n`)

  function stop(signal: string): void {
    if (stopping.signal.aborted) {
      end(EXIT_STOP)
      return
    }
    stopping.abort()
    log.info({ signal }, 'draining; a second signal ends it at once')
    setTimeout(() => {
      log.error('the drain took too long; what was acknowledged is durable')
      end(0, LATE_ABORT_MS_MAX)
    }, EXIT_LIMIT_MS)
    // A start under way notices the signal itself.
    if (running !== null) void drain()
  }

  async function drain(): Promise<void> {
    await running?.stop()
    if (!ending) await exitWritten(log, 0)
  }

  /**
   * Ends it without a drain. Not by `process.exit` alone: that waits for LMDB's thread, which in the middle of a transaction
   * waits for this one.
   */
  function end(code: number, msMax = ABORT_MS_MAX): void {
    if (ending) return
    ending = true
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), msMax)
    void Promise.resolve(running?.abort()).finally(() => exitWritten(log, code))
  }

  /** An error of ours is a sentence for whoever reads the terminal; a foreign one is for the log. */
  function fail(error: unknown, sentence: string): void {
    if (ending) return
    if (error instanceof SurgetankError) process.stderr.write(`${shownText(error.message)} [${error.code}]\n`)
    else log.fatal({ err: error }, sentence)
    end(EXIT_STOP)
  }
}
