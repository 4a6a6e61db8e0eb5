/** The roles: what each must share with other processes, and the parts that it opens, in order. */
import { openDatabase } from '../database/clickhouse-database.ts'
import type { Database } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import { registry } from '../metrics.ts'
import { openReader } from '../readers/reader.ts'
import { within } from '../within.ts'
import {
  type OpenSpace,
  openInlet,
  openSessionStore,
  openSpace,
  openView,
  type PortName,
  placeSessions,
} from './adapters.ts'
import { openApiPart } from './api-part.ts'
import { openBrokerPart } from './broker-part.ts'
import { openGauges } from './gauges.ts'
import { checkApi, checkBroker, checkLoneWriter, checkReader } from './health.ts'
import type { RoleProcess } from './role.ts'
import { refuseBeforeReaders } from './side-by-side.ts'
import { watchDatabase, watchSpace } from './watch.ts'
import { openWriterPart, writerConfig } from './writer-part.ts'

export type RoleName = 'broker' | 'writer' | 'reader' | 'api'

export interface Role {
  readonly does: string
  readonly shares: readonly PortName[]
  /** Resolves when the part runs, with its MQTT port where it has one. */
  readonly start: (own: RoleProcess) => Promise<number | null>
}

export const ROLES: Readonly<Record<RoleName, Role>> = {
  broker: {
    does: 'Takes telemetry over MQTT into the log and the state. As many as there are devices for.',
    shares: ['log', 'space'],
    start: startBroker,
  },
  writer: {
    does: 'Brings the log into ClickHouse. As many as the log has partitions.',
    shares: ['log', 'database'],
    start: startWriter,
  },
  reader: {
    does: 'Rebuilds the state when it is lost. One is enough; a second one takes over from it.',
    shares: ['log', 'space', 'database'],
    start: startReader,
  },
  api: {
    does: 'Serves state, history and live changes over HTTP. As many as there are dashboards for.',
    shares: ['log', 'space', 'database'],
    start: startApi,
  },
}

/** A rebuild under way may wait for a ClickHouse that hangs. */
const READER_CLOSE_MS_MAX = 2_000

async function startBroker(own: RoleProcess): Promise<number> {
  const { settings, places, log, failed } = own
  const inlet = await own.open('the log', () => openInlet(places.log, log))
  const opened = await openSharedSpace(own, true)
  const { space, sessions, older } = opened
  await own.beside(patience => refuseBeforeReaders({ log: places.log, inlet, older }, patience))
  const sessionStore = await openSessionStore(placeSessions(settings, null), opened, log)
  own.closers.add(() => sessionStore?.close())
  const broker = await own.wait('the log', () =>
    openBrokerPart({ settings, inlet, space, sessions, sessionStore, log, failed }),
  )
  own.closers.add(broker.drain)
  own.closers.add(openGauges({ ingest: broker.ingest, sessionStore, log }))
  own.readyWhen(() => checkBroker(broker.ingest.stalled))
  return broker.port
}

async function startWriter(own: RoleProcess): Promise<null> {
  const { settings, places, log } = own
  const database = await openSharedDatabase(own)
  const watch = await own.open('ClickHouse', () => watchDatabase(database))
  const config = writerConfig(settings, { log: places.log, database: accessOf(own), migrates: true })
  const writer = await own.open('the log', () => openWriterPart(config, log))
  writer.ended.catch(own.failed)
  own.readyWhen(() => checkLoneWriter(watch.up, writer.schema))
  // Only to be looked at, and it may be a broker that makes the log.
  const view = await own.open('the log', () => openView(places.log, log))
  own.closers.add(openGauges({ view, log }))
  return null
}

async function startReader(own: RoleProcess): Promise<null> {
  const { places, log } = own
  const database = await openSharedDatabase(own)
  const view = await own.open('the log', () => openView(places.log, log))
  const { space } = await openSharedSpace(own, false)
  const reader = openReader({ space, database, view, log })
  own.closers.add(() => within(READER_CLOSE_MS_MAX, reader.close()))
  own.closers.add(openGauges({ space, log }))
  own.readyWhen(() => checkReader(space))
  return null
}

async function startApi(own: RoleProcess): Promise<null> {
  const { settings, places, log } = own
  const database = await openSharedDatabase(own)
  const view = await own.open('the log', () => openView(places.log, log))
  const { space } = await openSharedSpace(own, false)
  const ofDatabase = await own.open('ClickHouse', () => watchDatabase(database))
  const ofSpace = await own.open('the space', () => watchSpace(space))
  own.closers.add(openGauges({ view, space, log }))
  const port = await own.releasePort()
  const health = async () => checkApi(ofSpace.up, space, ofDatabase.up)
  const metricsText = () => registry.metrics()
  await own.open('the API', () => openApiPart(settings, { port, space, database, view, health, metricsText, log }))
  return null
}

async function openSharedSpace(own: RoleProcess, unit: boolean): Promise<OpenSpace> {
  const { places, log } = own
  const opened = await own.wait('Redis', () => openSpace(places.space, unit, log))
  own.closers.add(opened.space.close)
  return opened
}

function openSharedDatabase(own: RoleProcess): Promise<Database> {
  return own.open('ClickHouse', () => openDatabase(accessOf(own)))
}

function accessOf({ places }: RoleProcess) {
  if (places.database.kind === 'server') return places.database.access
  throw new SurgetankError('setting_missing', 'Set CLICKHOUSE_URL: nobody else can reach an embedded ClickHouse.')
}
