/**
 * Which adapter of each port is used: the one place that picks. By settings a port has a place; a place can be told to
 * another process, and opens the adapter there. The clients of Kafka and Redis are loaded only where they are used.
 */
import { type Logger, pino } from 'pino'
import { ACCESS_DEFAULTS, type DatabaseAccess } from '../database/database.ts'
import { socketsIn } from '../database/embedded/sockets.ts'
import { SurgetankError } from '../errors.ts'
import type { Member } from '../pump/kafka-members.ts'
import type { KafkaOptions } from '../pump/kafka-pump.ts'
import { openLmdbInlet } from '../pump/lmdb-inlet.ts'
import { openLmdbOutlet } from '../pump/lmdb-outlet.ts'
import { openLmdbView } from '../pump/lmdb-view.ts'
import type { PumpInlet, PumpOutlet, PumpView } from '../pump/pump.ts'
import { openLmdbSessions } from '../sessions/lmdb-sessions.ts'
import type { SessionStore } from '../sessions/sessions.ts'
import type { Settings } from '../settings.ts'
import { openMemorySpace } from '../space/memory-space.ts'
import type { Older } from '../space/redis-marks.ts'
import type { Sessions, Space } from '../space/space.ts'
import { SCHEMA_VERSION } from './build-info.ts'

interface LogBounds {
  readonly keepHours: number
  readonly bytesMax: number
  readonly quarantineBytesMax: number
}

/** Plain values only: the writer's process is told them as a message. */
export type LogPlace =
  | ({ readonly kind: 'directory'; readonly dir: string } & LogBounds)
  | ({ readonly kind: 'kafka' } & Omit<KafkaOptions, 'log'>)

export type SpacePlace =
  | { readonly kind: 'memory'; readonly devicesMax: number }
  | {
      readonly kind: 'redis'
      readonly devicesMax: number
      readonly url: string
      readonly prefix: string
      readonly ca: string | null
    }

/** `embedded`: the engine that the manager starts as its child. */
export type DatabasePlace =
  | { readonly kind: 'embedded'; readonly dir: string }
  | { readonly kind: 'server'; readonly access: DatabaseAccess }

export interface Places {
  readonly log: LogPlace
  readonly space: SpacePlace
  readonly database: DatabasePlace
}

export type PortName = keyof Places

/** The setting that gives a port a place which several processes can share. */
export const SHARED_BY: Readonly<Record<PortName, keyof Settings>> = {
  log: 'KAFKA_BROKERS',
  space: 'REDIS_URL',
  database: 'CLICKHOUSE_URL',
}

const MIB = 1 << 20
const HOUR_MS = 3_600_000
/** Whoever asks once says by itself what came of it. */
const SILENT = pino({ level: 'silent' })

export function choosePlaces(settings: Settings): Places {
  return { log: placeLog(settings), space: placeSpace(settings), database: placeDatabase(settings) }
}

/** True when the port lives in this process, or in a child of it, and nobody else can reach it. */
export function isEmbedded(places: Places, port: PortName): boolean {
  return ['directory', 'memory', 'embedded'].includes(places[port].kind)
}

function placeLog(settings: Settings): LogPlace {
  const bounds = {
    keepHours: settings.SURGETANK_LOG_HOURS,
    bytesMax: settings.SURGETANK_LOG_MB * MIB,
    quarantineBytesMax: settings.SURGETANK_QUARANTINE_MB * MIB,
  }
  const brokers = settings.KAFKA_BROKERS
  if (brokers.length === 0) return { kind: 'directory', dir: `${settings.SURGETANK_DATA_DIR}/log`, ...bounds }
  return {
    kind: 'kafka',
    brokers,
    topic: settings.SURGETANK_KAFKA_TOPIC,
    partitions: settings.SURGETANK_KAFKA_PARTITIONS,
    replication: settings.SURGETANK_KAFKA_REPLICATION,
    tls: settings.SURGETANK_KAFKA_TLS === 'yes' ? { ca: orNull(settings.SURGETANK_KAFKA_CA) } : null,
    sasl: saslOf(settings),
    ...bounds,
  }
}

function saslOf(settings: Settings): KafkaOptions['sasl'] {
  const mechanism = settings.SURGETANK_KAFKA_SASL
  if (mechanism === 'none') return null
  return { mechanism, user: settings.SURGETANK_KAFKA_USER, password: settings.SURGETANK_KAFKA_PASSWORD }
}

function placeSpace(settings: Settings): SpacePlace {
  const devicesMax = settings.SURGETANK_DEVICES_MAX
  if (settings.REDIS_URL === '') return { kind: 'memory', devicesMax }
  const urls = settings.REDIS_URL.split(',').map(text => new URL(text))
  const password = encodeURIComponent(settings.SURGETANK_REDIS_PASSWORD)
  if (password !== '') for (const url of urls) url.password = password
  return {
    kind: 'redis',
    devicesMax,
    url: urls.map(({ href }) => href).join(),
    prefix: settings.SURGETANK_REDIS_PREFIX,
    ca: orNull(settings.SURGETANK_REDIS_CA),
  }
}

/** A user and a password in the URL are taken out of it: a URL may be shown. */
function placeDatabase(settings: Settings): DatabasePlace {
  if (settings.CLICKHOUSE_URL === '') return { kind: 'embedded', dir: `${settings.SURGETANK_DATA_DIR}/clickhouse` }
  const { origin, username, password } = new URL(settings.CLICKHOUSE_URL)
  const access = {
    url: origin,
    socketPath: null,
    user: decodeURIComponent(username) || settings.SURGETANK_CLICKHOUSE_USER,
    password: decodeURIComponent(password) || settings.SURGETANK_CLICKHOUSE_PASSWORD,
    database: settings.SURGETANK_CLICKHOUSE_DATABASE,
    cluster: orNull(settings.SURGETANK_CLICKHOUSE_CLUSTER),
    ca: orNull(settings.SURGETANK_CLICKHOUSE_CA),
  }
  return { kind: 'server', access }
}

/** The embedded engine, by the socket for surgetank's own parts in this folder: who can open it needs no password. */
export function embeddedAccess(socketFolder: string): DatabaseAccess {
  const { own } = socketsIn(socketFolder)
  return { ...ACCESS_DEFAULTS, url: 'http://localhost', socketPath: own, user: 'default', password: '' }
}

export async function openInlet(place: LogPlace, log: Logger): Promise<PumpInlet> {
  if (place.kind === 'directory') return openLmdbInlet(place)
  return (await kafka()).openKafkaInlet({ ...place, log })
}

export async function openOutlet(place: LogPlace, log: Logger): Promise<PumpOutlet> {
  const failed = (error: unknown) => log.warn({ err: error }, 'a claim ended; claiming again')
  if (place.kind === 'directory') return openLmdbOutlet({ ...place, failed })
  return (await kafka()).openKafkaOutlet({ ...place, schema: SCHEMA_VERSION, log, failed })
}

/** The writers that share the log now; none of a log that one process has for itself, or that is not made yet. */
export async function fetchWriters(place: LogPlace): Promise<Member[]> {
  if (place.kind === 'directory') return []
  try {
    return await (await kafka()).fetchWriters({ ...place, log: SILENT })
  } catch (error) {
    if (error instanceof SurgetankError && error.code === 'log_missing') return []
    throw error
  }
}

export async function openView(place: LogPlace, log: Logger): Promise<PumpView> {
  if (place.kind === 'directory') return openLmdbView(place)
  return (await kafka()).openKafkaView({ ...place, log })
}

/** What an operator should mend of the log, though it works: a sentence each. */
export async function examineLog(place: LogPlace, log: Logger): Promise<string[]> {
  return place.kind === 'directory' ? [] : (await kafka()).examineKafkaLog({ ...place, log })
}

function kafka(): Promise<typeof import('../pump/kafka-pump.ts')> {
  return import('../pump/kafka-pump.ts')
}

export interface OpenSpace {
  readonly space: Space
  /** The rest is null for a space that only this process has. */
  readonly openSessionStore: ((bounds: SessionBounds) => SessionStore) | null
  readonly sessions: Sessions | null
  readonly older: (() => Promise<Older>) | null
}

/** `unit`: this process has a broker, whose presence ends with it. Of a space of its own there is nobody to take sessions from. */
export async function openSpace(place: SpacePlace, unit: boolean, log: Logger): Promise<OpenSpace> {
  if (place.kind === 'memory') {
    return { space: openMemorySpace(place), openSessionStore: null, sessions: null, older: null }
  }
  const { openRedisSpace } = await import('../space/redis-space.ts')
  const space = await openRedisSpace({ ...place, unit, log })
  return { space, openSessionStore: space.openSessionStore, sessions: space.sessions, older: space.older }
}

interface SessionBounds {
  readonly sessionsMax: number
  readonly expiryMs: number
}

/** Where what clients hold is kept, unless the space is shared: then it is there, too. */
export interface SessionsPlace extends SessionBounds {
  /** Null where this process has no place on a disk. */
  readonly dir: string | null
}

/** Its folder in the data directory. */
export const SESSIONS_FOLDER = 'sessions'

export function placeSessions(settings: Settings, dataDir: string | null): SessionsPlace {
  return {
    dir: dataDir === null ? null : `${dataDir}/${SESSIONS_FOLDER}`,
    sessionsMax: settings.SURGETANK_SESSIONS_MAX,
    expiryMs: settings.SURGETANK_SESSION_HOURS * HOUR_MS,
  }
}

/** Null where nothing can be kept, so that each client hears of no session. */
export async function openSessionStore(
  place: SessionsPlace,
  space: OpenSpace,
  log: Logger,
): Promise<SessionStore | null> {
  if (space.openSessionStore !== null) return space.openSessionStore(place)
  return place.dir === null ? null : openLmdbSessions({ ...place, dir: place.dir, log })
}

function orNull(text: string): string | null {
  return text === '' ? null : text
}
