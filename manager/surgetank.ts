/**
 * The deployment manager: every part in its order, on one machine.
 *
 * Start: data directory, ClickHouse (child), log, space, ingest and broker, API, rebuild of the state beside them, writer
 * (child). Stop: no new connections, no more reading; what was read becomes durable and is acknowledged; then the writer,
 * the API, ClickHouse and the log. Whatever was not acknowledged is still with the devices.
 */
import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import { openApi } from '../api/api.ts'
import { openBroker } from '../broker/broker.ts'
import { openDatabase } from '../database/clickhouse-database.ts'
import { openIngest } from '../ingest/group-commit.ts'
import { metrics } from '../metrics.ts'
import { openLmdbInlet } from '../pump/lmdb-inlet.ts'
import { openLmdbView } from '../pump/lmdb-view.ts'
import { rehydrate } from '../readers/rehydrate.ts'
import type { Settings } from '../settings.ts'
import { openMemorySpace } from '../space/memory-space.ts'
import { openDataDir, type Ports } from './data-dir.ts'
import { superviseDatabase } from './database-child.ts'
import { openGauges } from './gauges.ts'
import { superviseWriter } from './writer-child.ts'

export interface Surgetank {
  readonly ports: Ports
  /** Drains and ends everything; resolves within about 9 s. */
  stop(): Promise<void>
  /** Ends the children at once; the caller exits. */
  abort(): void
}
