/**
 * Clients of ioredis: which server, single or Cluster, with which settings. Nothing else imports ioredis.
 *
 * Each setting is there for a reason that was measured. Nothing waits in the client for a Redis that is away
 * (`enableOfflineQueue`, `maxRetriesPerRequest`): callers know better what to keep. No autopipelining: after a slot has
 * moved it fails for ever in a Cluster (ioredis issue 2075). `autoResendUnfulfilledCommands` stays as it is: without it a
 * promise may never settle (issue 2193), which is also why callers put a time to every call.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { SurgetankError } from '../errors.ts'
import { translateRedisError } from './redis-errors.ts'

export type RedisClient = Redis | Cluster

export interface RedisAddress {
  readonly host: string
  readonly port: number
}

export interface RedisServer {
  readonly addresses: readonly RedisAddress[]
  readonly options: ServerOptions
  /** The addresses for a person, without user and password. */
  readonly name: string
}

type ServerOptions = Pick<
  RedisOptions,
  | 'autoResubscribe'
  | 'connectTimeout'
  | 'db'
  | 'disableClientInfo'
  | 'enableOfflineQueue'
  | 'maxRetriesPerRequest'
  | 'password'
  | 'protocol'
  | 'socketTimeout'
  | 'tls'
  | 'username'
>

const CONNECT_MS_MAX = 2_000
/** Without a byte for so long, with calls under way, a connection is given up. */
const SILENT_MS_MAX = 5_000
const RECONNECT_MS_MAX = 1_000
const VERSION_MIN = 7

/** Reads REDIS_URL. Throws `space_misconfigured` in words that hold neither user nor password. */
export function parseRedisUrl(url: string, ca: string | null): RedisServer {
  const urls = url.split(',').map(parseOne)
  const [first] = urls
  if (first === undefined) throw unreadable()
  const database = first.pathname.replace(/^\/+/, '')
  if (!/^\d{0,4}$/.test(database)) throw unreadable()
  const isSecure = first.protocol === 'rediss:'
  const options: ServerOptions = {
    protocol: 2,
    connectTimeout: CONNECT_MS_MAX,
    socketTimeout: SILENT_MS_MAX,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResubscribe: false,
    disableClientInfo: true,
    ...(first.username === '' ? {} : { username: decodeURIComponent(first.username) }),
    ...(first.password === '' ? {} : { password: decodeURIComponent(first.password) }),
    ...(database === '' ? {} : { db: Number(database) }),
    ...(isSecure ? { tls: ca === null ? {} : { ca } } : {}),
  }
  const addresses = urls.map(({ hostname, port }) => ({
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? 6379 : Number(port),
  }))
  const names = addresses.map(({ host, port }) => `${isSecure ? 'rediss://' : ''}${host}:${port}`)
  return { addresses, options, name: names.join(', ') }
}

function parseOne(text: string): URL {
  try {
    const url = new URL(text.trim())
    if (['redis:', 'rediss:'].includes(url.protocol) && url.hostname !== '') return url
  } catch {
    // What the parser says may hold the password.
  }
  throw unreadable()
}

function unreadable(): SurgetankError {
  return new SurgetankError('space_misconfigured', 'REDIS_URL is no URL such as redis://user:password@host:6379.')
}

/** What a server says of itself. */
export interface RedisProbe {
  readonly isCluster: boolean
}

/** Asks the first server that answers; rejects with `space_unavailable`, or `space_misconfigured` when it cannot serve. */
export async function probeRedis({ addresses, options, name }: RedisServer): Promise<RedisProbe> {
  let failure: SurgetankError | null = null
  for (const address of addresses) {
    const client = new Redis({
      ...options,
      ...address,
      lazyConnect: true,
      retryStrategy: null,
      enableReadyCheck: false,
    })
    // A refused user or certificate is told by this event alone; what fails then is only the connection.
    let told: unknown = null
    client.on('error', error => {
      told ??= error
    })
    try {
      await client.connect()
      const isCluster = isOfCluster(await checkServer(client))
      if (isCluster || addresses.length === 1) return { isCluster }
      throw new SurgetankError('space_misconfigured', `REDIS_URL names several servers, and ${name} are no Cluster.`)
    } catch (error) {
      const cause = error instanceof SurgetankError ? error : (told ?? error)
      failure = translateRedisError(cause, `connecting to ${address.host}:${address.port}`)
      if (failure.fate === 'stop') throw failure
    } finally {
      client.disconnect()
    }
  }
  throw failure ?? unreadable()
}

/** Throws as `checkInfo`, and `space_misconfigured` when there is no database of this number. Returns the server's INFO. */
export async function checkServer(client: Redis): Promise<string> {
  const { host = '', port = 0, db = 0 } = client.options
  const info = await client.info()
  checkInfo(info, { host, port })
  // ioredis has selected it, too, and would stay in database 0 without a word.
  if (db !== 0) await client.select(db).catch(error => refuseDatabase(db, error))
  return info
}

function refuseDatabase(db: number, error: Error): never {
  if (!error.message.startsWith('ERR ')) throw error
  throw new SurgetankError('space_misconfigured', `Redis has no database ${db}; REDIS_URL names it after the port.`)
}

/**
 * Throws `space_misconfigured` when this server would lose devices, or lacks what is needed, and `space_unavailable` when it
 * is a replica outside of a Cluster.
 */
export function checkInfo(info: string, { host, port }: RedisAddress): void {
  const version = /redis_version:(\S+)/.exec(info)?.[1] ?? 'unknown'
  if (!(Number.parseInt(version, 10) >= VERSION_MIN)) {
    throw new SurgetankError(
      'space_misconfigured',
      `${host}:${port} is Redis ${version}; ${VERSION_MIN} or newer is needed.`,
    )
  }
  const policy = /maxmemory_policy:(\S+)/.exec(info)?.[1] ?? 'unknown'
  if (policy !== 'noeviction') {
    throw new SurgetankError(
      'space_misconfigured',
      `${host}:${port} has maxmemory-policy ${policy} and would drop devices without a word: set maxmemory-policy noeviction.`,
    )
  }
  if (/role:slave/.test(info) && !isOfCluster(info)) {
    throw new SurgetankError('space_unavailable', `${host}:${port} is a replica and takes no writes.`)
  }
}

function isOfCluster(info: string): boolean {
  return info.includes('cluster_enabled:1')
}

export function openRedisClient({ addresses, options }: RedisServer, isCluster: boolean): RedisClient {
  const retry = (times: number) => Math.min(50 * 2 ** times, RECONNECT_MS_MAX) + Math.random() * 100
  if (!isCluster) return new Redis({ ...options, ...addresses[0], retryStrategy: retry, scripts: readScripts() })
  return new Cluster([...addresses], {
    redisOptions: options,
    clusterRetryStrategy: retry,
    enableOfflineQueue: false,
    // The addresses that nodes tell of one another are names or numbers that are to be used as they are, TLS included.
    dnsLookup: (address, done) => done(null, address),
    retryDelayOnFailover: 200,
    maxRedirections: 16,
    slotsRefreshTimeout: CONNECT_MS_MAX,
    slotsRefreshInterval: 10_000,
    shardedSubscribers: true,
    scripts: readScripts(),
  })
}

export type ScriptName =
  | 'apply'
  | 'beat'
  | 'claim-lost'
  | 'discard-kept'
  | 'keep-kept'
  | 'keep-sessions'
  | 'lease'
  | 'lock'
  | 'offline'
  | 'open-kept'
  | 'read'
  | 'rebuild'
  | 'release-session'
  | 'take-session'

type Scripted = Record<string, (...args: (string | number)[]) => Promise<unknown>>

/** Runs a script by its hash; ioredis sends its text where the server does not have it. */
export function runScript(
  client: RedisClient,
  script: ScriptName,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<unknown> {
  const run = (client as unknown as Scripted)[`surgetank:${script}`]
  if (run === undefined) throw new Error(`There is no script ${script}.`)
  return run.call(client, keys.length, ...keys, ...args)
}

/** The same folder of the package for the sources and for dist/space/: the compiler copies no .lua files. */
function readScripts(): Record<string, { lua: string }> {
  const beside = new URL('./apply.lua', import.meta.url)
  const folder = existsSync(beside) ? new URL('./', beside) : new URL('../../space/', import.meta.url)
  const files = readdirSync(folder).filter(file => file.endsWith('.lua'))
  return Object.fromEntries(
    files.map(file => [
      `surgetank:${file.slice(0, -'.lua'.length)}`,
      { lua: readFileSync(new URL(file, folder), 'utf8') },
    ]),
  )
}
