/**
 * The deployment manager: every part in its order, in one go on one machine. A port whose setting names a server is used
 * there; whatever else is needed is embedded.
 *
 * Start: data directory, ClickHouse (child), the SQL port before it (child), log, space, ingest and broker, API, rebuild of the state and the schema beside
 * them, writer (child) when ClickHouse has its schema. Stop: no new connections, no more reading; what was read becomes durable and is acknowledged; beside it the
 * writer and the SQL port, then the API and ClickHouse; the log at last. Whatever was not acknowledged is still with the devices.
 *
 * The most that a stop takes: the drain 3 s and the connections 3 s; beside them the writer 3 s, or the SQL port 4 s, and ClickHouse 6 s.
 */
import { basename } from 'node:path'
import type { Logger } from 'pino'
import { openDatabase } from '../database/clickhouse-database.ts'
import type { MigrationStep } from '../database/database.ts'
import type { Walls } from '../database/embedded/walls/walls.ts'
import { logFields, type SurgetankError } from '../errors.ts'
import { openReader } from '../readers/reader.ts'
import type { Settings } from '../settings.ts'
import { within } from '../within.ts'
import {
  choosePlaces,
  openInlet,
  openSessionStore,
  openSpace,
  openView,
  type Places,
  placeSessions,
  SESSIONS_FOLDER,
} from './adapters.ts'
import { openAllMetrics } from './all-metrics.ts'
import { openApiPart } from './api-part.ts'
import { type BrokerPart, openBrokerPart } from './broker-part.ts'
import { type Closers, openClosers } from './closers.ts'
import { type DataDir, openDataDir, type Ports } from './data-dir.ts'
import { closeDataFiles } from './data-files.ts'
import { type DatabaseChild, superviseDatabase } from './database-child.ts'
import { openGauges } from './gauges.ts'
import { checkHealth } from './health.ts'
import { openPatiently } from './patience.ts'
import { openSchemaPart, type SchemaPart } from './schema-part.ts'
import { refuseBeforeReaders, refuseBesideOlderWriters } from './side-by-side.ts'
import { type SqlChild, superviseSql } from './sql-child.ts'
import type { Supervised } from './supervise.ts'
import { watchDatabase } from './watch.ts'
import { superviseWriter } from './writer-child.ts'
import { writerConfig } from './writer-part.ts'

/** What is known of the schema by then is waited for; a server that is away is not. */
const SCHEMA_MS_MAX = 3_000

export interface Surgetank {
  readonly ports: Ports
  /** Of the embedded engine; null where ClickHouse is a server. */
  readonly walls: Walls | null
  /** Drains and ends everything, within about 10 s: the SQL port 4 s, then ClickHouse 6 s, and the drain beside them. */
  stop(): Promise<void>
  /** Ends the children at once, and the log after the write under way; the caller exits. */
  abort(): Promise<void>
}

export interface StartOptions {
  readonly settings: Settings
  readonly log: Logger
  /** Ends a start that waits for something that is not there yet. */
  readonly stopping: AbortSignal
  /** Called when a part can never go on, perhaps before the start is through: everything must end. */
  readonly failed: (error: SurgetankError) => void
}

/**
 * Resolves when every part is ready. Rejects with a `stop` error that says what to do, and leaves nothing running then.
 */
export async function startSurgetank(options: StartOptions): Promise<Surgetank> {
  const closers = openClosers(options.log)
  try {
    return await startParts(options, closers)
  } catch (error) {
    await closers.closeAll()
    throw error
  }
}

async function startParts(options: StartOptions, closers: Closers): Promise<Surgetank> {
  const { log, stopping, failed } = options
  const stores = await openStores(options, closers)
  const broker = await openDevices(options, stores, closers)
  const schema = openSchemaPart({ migrate: told => bringSchema(stores, told) }, log)
  closers.add(schema.close)
  const writing = openWriting(options, stores, schema)
  const serving = await openServing(options, { stores, broker, schema, writing }, closers)
  const following = startFollowing(options, { stores, broker, schema })
  closers.add(() => {
    writing.expectEnd()
    following.close()
  })
  await within(SCHEMA_MS_MAX, schema.known)
  const begun = writing.begin()
  if (schema.state.done) await begun
  else begun.catch((error: unknown) => stopping.aborted || writing.isEnding || failed(error as SurgetankError))
  const ports = { mqtt: broker.port, http: serving.api.port, sql: stores.sql?.port ?? null }
  const walls = stores.engine?.walls ?? null
  stores.data?.announce({ ...ports, walls })
  return { ports, walls, ...endsOf({ stores, broker, schema, writing, following, ...serving }) }
}

/** The data directory, ClickHouse, the log and the state: what the parts work on. */
async function openStores({ settings, log, stopping }: StartOptions, closers: Closers) {
  const places = choosePlaces(settings)
  const patience = { log, stopping }
  const data = takeDataDir(settings, places, log)
  closers.add(() => data?.release())
  if (data !== null) await closeDataFiles(settings.SURGETANK_DATA_DIR, log, stopping)
  const engine = await startEngine(places, data, log)
  closers.add(() => engine?.stop())
  const sql = await startSql(settings, engine, log)
  closers.add(() => sql?.stop())
  const access = places.database.kind === 'server' ? places.database.access : engineOf(engine).access
  const database = openDatabase(access)
  closers.add(database.close)

  const inlet = await openPatiently('the log', patience, () => openInlet(places.log, log))
  closers.add(inlet.close)
  const view = await openPatiently('the log', patience, () => openView(places.log, log))
  closers.add(view.close)
  const opened = await openPatiently('Redis', patience, () => openSpace(places.space, true, log))
  closers.add(opened.space.close)
  const place = placeSessions(settings, data === null ? null : settings.SURGETANK_DATA_DIR)
  const sessionStore = await openSessionStore(place, opened, log)
  closers.add(() => sessionStore?.close())
  return { places, data, engine, sql, access, database, inlet, view, sessionStore, ...opened }
}

type Stores = Awaited<ReturnType<typeof openStores>>

async function openDevices(options: StartOptions, stores: Stores, closers: Closers): Promise<BrokerPart> {
  const { settings, log, stopping, failed } = options
  const { places, inlet, space, sessions, sessionStore, older } = stores
  const patience = { log, stopping }
  await refuseBeforeReaders({ log: places.log, inlet, older }, patience)
  const broker = await openPatiently('the log', patience, () =>
    openBrokerPart({ settings, inlet, space, sessions, sessionStore, log, failed }),
  )
  closers.add(broker.drain)
  return broker
}

/** Where the log is shared, writers of an older version may still insert into the tables that are to be replaced. */
async function bringSchema({ places, database }: Stores, told?: (step: MigrationStep) => void): Promise<void> {
  await refuseBesideOlderWriters(places.log, database)
  await database.migrate(told)
}

/** The writer, which begins when ClickHouse has its schema. */
function openWriting({ settings, log }: StartOptions, { places, access }: Stores, schema: SchemaPart) {
  const allMetrics = openAllMetrics()
  let writer: Supervised | null = null
  let isEnding = false
  return {
    metricsText: allMetrics.text,
    get writer() {
      return writer
    },
    get isEnding() {
      return isEnding
    },
    begin,
    expectEnd,
  }

  /** Rows that are written anew are waited for beside everything else. */
  async function begin(): Promise<void> {
    await schema.done
    if (isEnding) return
    const config = writerConfig(settings, { log: places.log, database: access, migrates: false })
    const started = await superviseWriter(config, log, allMetrics.takeWriters)
    writer = started
    if (isEnding) await started.stop()
  }

  /** From here on it may end before it is told to, and is not started. */
  function expectEnd(): void {
    isEnding = true
    writer?.expectEnd()
  }
}

interface Parts {
  readonly stores: Stores
  readonly broker: BrokerPart
  readonly schema: SchemaPart
  readonly writing: ReturnType<typeof openWriting>
}

/** The API, and whether ClickHouse is up, which it tells. */
async function openServing({ settings, log }: StartOptions, parts: Parts, closers: Closers) {
  const { stores, broker, schema, writing } = parts
  const { space, database, view } = stores
  const watch = watchDatabase(database)
  closers.add(watch.close)
  const api = await openApiPart(settings, {
    port: settings.SURGETANK_HTTP_PORT,
    space,
    database,
    view,
    health: async () =>
      checkHealth({
        space,
        databaseUp: () => watch.up,
        schema: () => schema.state,
        writer: () => writing.writer,
        stalled: () => broker.ingest.stalled,
      }),
    metricsText: writing.metricsText,
    oldestHeldAt: () => broker.ingest.oldestHeldAt,
    log,
  })
  closers.add(api.close)
  return { watch, api }
}

/** The rebuild of the state, and what is measured of it all. */
function startFollowing({ log }: StartOptions, { stores, broker, schema }: Omit<Parts, 'writing'>) {
  const { space, database, view, sessionStore } = stores
  let isEnding = false
  // What the views of the first two versions take for the newest need not be it, and they are replaced before rows are.
  const reading = schema.known.then(() => (isEnding ? null : openReader({ space, database, view, log })))
  const closeGauges = openGauges({ view, space, ingest: broker.ingest, sessionStore, log })
  return { close }

  function close(): void {
    isEnding = true
    closeGauges()
    void reading.then(reader => reader?.close())
  }
}

type Ends = Parts & { readonly following: ReturnType<typeof startFollowing> } & Awaited<ReturnType<typeof openServing>>

function endsOf({ stores, broker, schema, writing, following, watch, api }: Ends): Pick<Surgetank, 'stop' | 'abort'> {
  const { data, engine, sql, database, inlet, view, space, sessionStore } = stores
  return { stop, abort }

  /** A service manager signals every process at once: from here on the children may end before they are told to. */
  async function stop(): Promise<void> {
    schema.close()
    writing.expectEnd()
    engine?.expectEnd()
    sql?.expectEnd()
    following.close()
    watch.close()
    await Promise.all([broker.drain(), stopWriting()])
    await Promise.all([view.close(), closeKept()])
    await inlet.close()
    data?.release()
  }

  /** What clients hold may be beside the state. */
  async function closeKept(): Promise<void> {
    await sessionStore?.close()
    await space.close()
  }

  /** Beside the drain: what becomes durable meanwhile waits in the log for the next start. */
  async function stopWriting(): Promise<void> {
    await Promise.all([writing.writer?.stop(), sql?.stop()])
    await Promise.all([api.close().then(database.close), engine?.stop()])
  }

  async function abort(): Promise<void> {
    schema.close()
    writing.expectEnd()
    writing.writer?.kill()
    engine?.kill()
    sql?.kill()
    await Promise.all([inlet.close(), sessionStore?.close()])
    data?.release()
  }
}

/** Null where nothing lies on a disk. Where that would only be what clients hold, a start does not depend on it. */
function takeDataDir(settings: Settings, { log: logPlace, database, space }: Places, log: Logger): DataDir | null {
  const dirs = [logPlace.kind === 'directory' ? logPlace.dir : null, database.kind === 'embedded' ? database.dir : null]
  const folders = dirs.filter(dir => dir !== null).map(dir => basename(dir))
  if (folders.length > 0) {
    const ofClients = space.kind === 'memory' ? [SESSIONS_FOLDER] : []
    return openDataDir(settings.SURGETANK_DATA_DIR, [...folders, ...ofClients])
  }
  if (space.kind !== 'memory') return null
  try {
    return openDataDir(settings.SURGETANK_DATA_DIR, [SESSIONS_FOLDER])
  } catch (error) {
    log.warn(
      logFields(error),
      'what clients hold is not kept while they are away: set REDIS_URL, or SURGETANK_DATA_DIR',
    )
    return null
  }
}

async function startEngine({ database }: Places, data: DataDir | null, log: Logger): Promise<DatabaseChild | null> {
  if (database.kind === 'server') return null
  return superviseDatabase({ dataDir: database.dir, placed: socketFolder => data?.announce({ socketFolder }), log })
}

/** Null where ClickHouse is a server: then nothing listens on SURGETANK_SQL_PORT. */
async function startSql(settings: Settings, engine: DatabaseChild | null, log: Logger): Promise<SqlChild | null> {
  if (engine === null) return null
  return superviseSql({ port: settings.SURGETANK_SQL_PORT, analystsSocket: engine.analystsSocket, log })
}

function engineOf(engine: DatabaseChild | null): DatabaseChild {
  if (engine === null) throw new Error('Without a server there is an engine.')
  return engine
}
