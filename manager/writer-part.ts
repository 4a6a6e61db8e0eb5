/** The writer and what it needs: opened and closed in one way, in the child of `surgetank` and in a process of its own. */
import type { Logger } from 'pino'
import { openDatabase } from '../database/clickhouse-database.ts'
import { hasFate } from '../errors.ts'
import type { PumpOutlet } from '../pump/pump.ts'
import type { Settings } from '../settings.ts'
import { openWriter } from '../writers/writer.ts'
import { openOutlet } from './adapters.ts'
import type { WriterConfig } from './child-messages.ts'
import { openPatiently } from './patience.ts'
import { openTeller, type SchemaState } from './schema-part.ts'
import { waitForOlderWriters } from './side-by-side.ts'

const BATCH_BYTES_MAX = 64 << 20
const RETRY_MS_MIN = 250

export interface WriterPart {
  /** How the schema is that it brings up to date, or waits for no more. */
  readonly schema: SchemaState
  /** Rejects when an operator must act. */
  readonly ended: Promise<void>
  /**
   * Waits for the step under way, within about two seconds. A migration is not waited for: it goes on where it was whenever it
   * is ended, which the end of the process does.
   */
  close(): Promise<void>
}

/** Resolves at once, also while the log or ClickHouse is away: they are waited for. Rejects when an operator must act. */
export async function openWriterPart(config: WriterConfig, log: Logger): Promise<WriterPart> {
  const stopping = new AbortController()
  const patience = { log, stopping: stopping.signal }
  let outlet = await openOutlet(config.log, log).catch((error: unknown) => {
    if (hasFate(error, 'retry')) return null
    throw error
  })
  const database = openDatabase(config.database)
  const teller = openTeller(log)
  let done = false
  let stopWriting = async () => {}
  const ended = write().catch((error: unknown) => {
    if (!stopping.signal.aborted) throw error
  })
  return {
    get schema() {
      return { done, step: teller.step, failure: null }
    },
    ended,
    close,
  }

  async function write(): Promise<void> {
    if (config.migrates) await Promise.race([migrate(), fired(stopping.signal)])
    done = true
    teller.end()
    outlet ??= await openPatiently('the log', patience, () => openOutlet(config.log, log))
    if (stopping.signal.aborted) return
    const writer = openWriter({ ...paceOf(config), outlet, database, log })
    stopWriting = writer.stop
    await writer.ended
  }

  async function migrate(): Promise<void> {
    await waitForOlderWriters(config.log, database, patience)
    await openPatiently('ClickHouse', patience, () => database.migrate(teller.told))
  }

  async function close(): Promise<void> {
    stopping.abort()
    await stopWriting()
    await ended.catch(() => {})
    await (outlet as PumpOutlet | null)?.close()
    await database.close()
  }
}

/** Rejects with the reason of the signal when it fires. */
function fired(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
}

function paceOf({ batchRows, batchMs }: WriterConfig) {
  const limits = { rowsMax: batchRows, bytesMax: BATCH_BYTES_MAX }
  return { limits, batchAgeMsMax: batchMs, retryMsMin: RETRY_MS_MIN }
}

/** `access` is where ClickHouse is; the schema of the embedded one is the manager's to bring up to date. */
export function writerConfig(
  settings: Settings,
  { log, database, migrates }: Pick<WriterConfig, 'log' | 'database' | 'migrates'>,
): WriterConfig {
  return {
    log,
    database,
    migrates,
    batchRows: settings.SURGETANK_BATCH_ROWS,
    batchMs: settings.SURGETANK_BATCH_MS,
    logLevel: settings.SURGETANK_LOG_LEVEL,
  }
}
