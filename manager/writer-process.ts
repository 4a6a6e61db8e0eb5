/**
 * The writer as a process of its own, at a lower priority than the broker: a spike has the CPU, and the log takes what
 * the writer does not get to. It ends with its parent, also when that is killed: the channel to it closes. When
 * it cannot go on it tells its parent why, and ends.
 */
import { constants, setPriority } from 'node:os'
import { type ErrorCode, logFields, SurgetankError } from '../errors.ts'
import { registry } from '../metrics.ts'
import { tellParent } from '../parent.ts'
import { keepFilesPrivate } from '../private-files.ts'
import type { ChildMessage, WriterConfig } from './child-messages.ts'
import { exitWritten, flushed, openLog } from './log.ts'
import { openWriterPart } from './writer-part.ts'

const METRICS_MS = 1_000

keepFilesPrivate()
process.once('message', (config: WriterConfig) => void run(config))
process.once('disconnect', endNow)
process.send?.({ kind: 'hello' })

async function run(config: WriterConfig): Promise<void> {
  setPriority(constants.priority.PRIORITY_LOW)
  const log = openLog(config.logLevel, 'writer')
  try {
    const { ended, close } = await openWriterPart(config, log)
    const reporting = setInterval(() => void reportMetrics(), METRICS_MS)
    onEnd(async () => {
      clearInterval(reporting)
      await close()
      await exitWritten(log, 0)
    })
    process.send?.({ kind: 'ready' })
    await ended
  } catch (error) {
    log.fatal(logFields(error), 'the writer cannot go on')
    await tellParent<ChildMessage>({ kind: 'failed', ...aboutError(error) })
    await flushed(log)
    endNow()
  }
}

/** `process.exit` would wait for LMDB's thread, and that, in the middle of a transaction, for this one: for ever. */
function endNow(): void {
  process.kill(process.pid, 'SIGKILL')
}

/** A service manager and the parent may both ask for it: what is asked for again is under way. */
function onEnd(end: () => Promise<void>): void {
  let ending = false
  process.on('SIGTERM', () => {
    if (ending) return
    ending = true
    void end()
  })
  // The terminal's Ctrl-C reaches the children too; the parent decides the order of the end.
  process.on('SIGINT', () => {})
}

async function reportMetrics(): Promise<void> {
  if (process.connected) await tellParent<ChildMessage>({ kind: 'metrics', metrics: await registry.getMetricsAsJSON() })
}

function aboutError(error: unknown): { code: ErrorCode; detail: string } {
  if (error instanceof SurgetankError) return { code: error.code, detail: error.detail }
  return { code: 'child_failed', detail: error instanceof Error ? error.message : String(error) }
}
