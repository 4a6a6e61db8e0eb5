/**
 * The writer as a process of its own, at a lower priority than the broker: a spike has the CPU, and the log takes what
 * the writer does not get to. It ends with its parent, also when that is killed: the channel to it closes.
 */
import { constants, setPriority } from 'node:os'
import { pino } from 'pino'
import { openDatabase } from '../database/clickhouse-database.ts'
import { registry } from '../metrics.ts'
import { openLmdbOutlet } from '../pump/lmdb-outlet.ts'
import { openWriter } from '../writers/writer.ts'
import type { WriterConfig } from './child-messages.ts'

const BATCH_BYTES_MAX = 64 << 20
const METRICS_MS = 1_000
const RETRY_MS_MIN = 250

process.once('message', (config: WriterConfig) => void run(config))
process.once('disconnect', () => process.exit(1))
process.send?.({ kind: 'hello' })

async function run(config: WriterConfig): Promise<void> {
  setPriority(constants.priority.PRIORITY_LOW)
  const log = pino({ level: config.logLevel, base: { part: 'writer' } }, pino.destination(2))
  const database = openDatabase({ url: config.databaseUrl, user: 'surgetank', password: config.databasePassword })
  const outlet = await openLmdbOutlet({
    dir: config.logDir,
    failed: error => log.warn({ err: error }, 'a claim ended; claiming again'),
  })
  const limits = { rowsMax: config.batchRows, bytesMax: BATCH_BYTES_MAX }
  const writer = openWriter({ outlet, database, limits, batchAgeMsMax: config.batchMs, retryMsMin: RETRY_MS_MIN, log })
  const reporting = setInterval(() => void reportMetrics(), METRICS_MS)
  process.send?.({ kind: 'ready' })

  process.once('SIGTERM', () => void stop(0))
  // The terminal's Ctrl-C reaches the children too; the parent decides the order of the end.
  process.on('SIGINT', () => {})
  writer.ended.catch((error: unknown) => {
    log.fatal({ err: error }, 'the writer cannot go on')
    void stop(1)
  })

  async function stop(code: number): Promise<void> {
    clearInterval(reporting)
    await writer.stop()
    await outlet.close()
    await database.close()
    process.exit(code)
  }
}

async function reportMetrics(): Promise<void> {
  if (process.connected) process.send?.({ kind: 'metrics', metrics: await registry.getMetricsAsJSON() })
}
