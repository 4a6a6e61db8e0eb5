/**
 * The deployment manager: every part in its order, on one machine.
 *
 * Start: data directory, ClickHouse (child), log, space, ingest and broker, API, rebuild of the state beside them, writer
 * (child). Stop: no new connections, no more reading; what was read becomes durable and is acknowledged; beside it the
 * writer, then the API and ClickHouse; the log at last. Whatever was not acknowledged is still with the devices.
 *
 * The most that a stop takes: the drain 3 s and the connections 3 s; beside them the writer 3 s and ClickHouse 6 s.
 */
import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import { openApi } from '../api/api.ts'
import { type Held, openBroker } from '../broker/broker.ts'
import { openDatabase } from '../database/clickhouse-database.ts'
import type { SurgetankError } from '../errors.ts'
import { type OpenIngest, openIngest } from '../ingest/group-commit.ts'
import { openLmdbInlet } from '../pump/lmdb-inlet.ts'
import { openLmdbView } from '../pump/lmdb-view.ts'
import { openReader } from '../readers/reader.ts'
import type { Settings } from '../settings.ts'
import { openMemorySpace } from '../space/memory-space.ts'
import { VERSION } from '../version.ts'
import { openAllMetrics } from './all-metrics.ts'
import { openDataDir, type Ports } from './data-dir.ts'
import { superviseDatabase } from './database-child.ts'
import { openDatabaseWatch } from './database-watch.ts'
import { openGauges } from './gauges.ts'
import { checkHealth } from './health.ts'
import type { Supervised } from './supervise.ts'
import { superviseWriter } from './writer-child.ts'

export interface Surgetank {
  readonly ports: Ports
  /** Drains and ends everything, within about 9 s. */
  stop(): Promise<void>
  /** Ends the children at once; the caller exits. */
  abort(): void
}

const DRAIN_MS_MAX = 3_000
const MIB = 1 << 20

/**
 * Resolves when every part is ready. Rejects with a `stop` error that says what to do, and leaves nothing running then.
 * `failed` is called when a part can never go on, perhaps before this resolves: everything must end.
 */
export async function startSurgetank(
  settings: Settings,
  log: Logger,
  failed: (error: SurgetankError) => void,
): Promise<Surgetank> {
  const undo: (() => unknown)[] = []
  try {
    return await startParts({ settings, log, failed }, undo)
  } catch (error) {
    for (const step of undo.reverse()) await step()
    throw error
  }
}

interface StartOptions {
  readonly settings: Settings
  readonly log: Logger
  readonly failed: (error: SurgetankError) => void
}

async function startParts({ settings, log, failed }: StartOptions, undo: (() => unknown)[]): Promise<Surgetank> {
  const data = openDataDir(settings.SURGETANK_DATA_DIR)
  undo.push(data.release)
  const password = randomBytes(24).toString('base64url')
  const clock = Date.now
  const sql = await superviseDatabase({ dataDir: data.database, port: settings.SURGETANK_SQL_PORT, password, log })
  undo.push(sql.stop)
  const database = openDatabase(sql.access)
  undo.push(database.close)

  const inlet = await openLmdbInlet({
    dir: data.log,
    bytesMax: settings.SURGETANK_LOG_MB * MIB,
    keepHours: settings.SURGETANK_LOG_HOURS,
    quarantineBytesMax: settings.SURGETANK_QUARANTINE_MB * MIB,
  })
  undo.push(inlet.close)
  const view = await openLmdbView({ dir: data.log })
  undo.push(view.close)
  const space = openMemorySpace({ devicesMax: settings.SURGETANK_DEVICES_MAX })

  let ingest: OpenIngest<Held | null> | null = null
  const broker = await openBroker({
    openIngest: async events => {
      const limits = { heldBytesMax: settings.SURGETANK_INFLIGHT_MB * MIB }
      ingest = await openIngest<Held | null>({ pump: inlet, space, limits, log, failed }, events)
      return ingest
    },
    space,
    settings,
    clock,
    log,
  })
  undo.push(broker.close)

  const allMetrics = openAllMetrics()
  let writer: Supervised | null = null
  const watch = openDatabaseWatch(database)
  undo.push(watch.close)
  const api = await openApi({
    port: settings.SURGETANK_HTTP_PORT,
    space,
    database,
    view,
    health: async () =>
      checkHealth({
        space,
        databaseUp: () => watch.up,
        writer: () => writer,
        stalled: () => ingest?.stalled === true,
      }),
    metricsText: allMetrics.text,
    oldestHeldAt: () => ingest?.oldestHeldAt ?? null,
    staleAfterMs: settings.SURGETANK_STALE_SECONDS * 1_000,
    clock,
    log,
    version: VERSION,
  })
  undo.push(api.close)

  const reader = openReader({ space, database, view, log })
  const closeGauges = openGauges({ view, space, ingest: () => ingest, log })
  undo.push(closeGauges, reader.close)
  writer = await superviseWriter(
    {
      logDir: data.log,
      databaseUrl: sql.access.url,
      databasePassword: password,
      batchRows: settings.SURGETANK_BATCH_ROWS,
      batchMs: settings.SURGETANK_BATCH_MS,
      logLevel: settings.SURGETANK_LOG_LEVEL,
    },
    log,
    allMetrics.takeWriters,
  )
  const ports = { mqtt: broker.port, http: api.port, sql: sql.port }
  data.announce(ports)
  return { ports, stop, abort }

  /** A service manager signals every process at once: from here on the children may end before they are told to. */
  async function stop(): Promise<void> {
    writer?.expectEnd()
    sql.expectEnd()
    closeGauges()
    watch.close()
    await Promise.all([drainBroker(), stopWriting(), reader.close()])
    await view.close()
    await inlet.close()
    data.release()
  }

  /** Beside the drain: what becomes durable meanwhile waits in the log for the next start. */
  async function stopWriting(): Promise<void> {
    await writer?.stop()
    await Promise.all([api.close().then(database.close), sql.stop()])
  }

  async function drainBroker(): Promise<void> {
    broker.stopReading()
    await ingest?.drain(DRAIN_MS_MAX)
    await broker.close()
    await ingest?.close()
  }

  function abort(): void {
    writer?.kill()
    sql.kill()
    data.release()
  }
}
