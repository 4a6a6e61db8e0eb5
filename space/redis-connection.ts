/**
 * The connection to Redis: one client for all that is asked, made anew until it stands, and errors in our words.
 *
 * Invariants: while `up` is false every call is rejected at once with `space_unavailable`, and nothing waits; every call
 * has a time by which it is settled. A call that was given up may still be carried out: all that we ask may be repeated.
 */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import {
  checkServer,
  openRedisClient,
  parseRedisUrl,
  probeRedis,
  type RedisClient,
  runScript,
  type ScriptName,
} from './redis-client.ts'
import { isOfReplica, translateRedisError } from './redis-errors.ts'

export interface RedisConnection {
  readonly up: boolean
  run(script: ScriptName, keys: readonly string[], args: readonly (string | number)[], msMax?: number): Promise<unknown>
  command(name: string, args: readonly (string | number)[], msMax?: number): Promise<unknown>
  /** Called when the connection stands, and whenever a part of it broke: what was known may be known no more. */
  onChange(changed: (up: boolean) => void): void
  /** A client of its own for subscriptions; the caller ends it. */
  openSubscriber(): RedisClient | null
  close(): Promise<void>
}

export interface ConnectionOptions {
  readonly url: string
  readonly ca: string | null
  readonly log: Logger
}

/** A start waits so long for a Redis that is away, and goes on without it. */
const START_MS_MAX = 3_000
const CALL_MS_MAX = 3_000
const CHECK_AGAIN_MS = 1_000
const WARN_EVERY_MS = 30_000

/** Rejects with `space_misconfigured`. A Redis that is away is waited for in the background. */
export async function openRedisConnection({ url, ca, log }: ConnectionOptions): Promise<RedisConnection> {
  const server = parseRedisUrl(url, ca)
  const listeners: ((up: boolean) => void)[] = []
  let client: RedisClient | null = null
  let isCluster = false
  let up = false
  let closed = false
  let failure: SurgetankError | null = null
  let warnedAt = Number.NEGATIVE_INFINITY
  let retry: NodeJS.Timeout | null = null
  let tried = () => {}
  const firstTry = new Promise<void>(resolve => {
    tried = resolve
  })

  void connect()
  await within(firstTry, START_MS_MAX).catch(() => {})
  const refused = failure as SurgetankError | null
  if (refused?.fate === 'stop') {
    await close()
    throw refused
  }
  if (!up) log.warn({ redis: server.name }, 'Redis does not answer; the state waits for it')

  return {
    get up() {
      return up
    },
    run,
    command,
    onChange: changed => listeners.push(changed),
    openSubscriber: () => (up ? openRedisClient(server, isCluster) : null),
    close,
  }

  /** Which kind it is must be asked first; from then on the client finds its own way back. */
  async function connect(): Promise<void> {
    try {
      isCluster = (await probeRedis(server)).isCluster
      if (closed) return
      client = openRedisClient(server, isCluster)
      client.on('error', error => fail(translateRedisError(error, 'connected')))
      client.on('ready', () => void check())
      client.on('close', broke)
      if ('nodes' in client) client.on('+node', node => node.on('close', broke))
    } catch (error) {
      fail(translateRedisError(error, `connecting to ${server.name}`))
      if (failure?.fate === 'stop') tried()
      again(() => void connect())
    }
  }

  /** Each time anew: what stands there now may be another server, or set up in another way. */
  async function check(): Promise<void> {
    if (client === null || closed) return
    try {
      const nodes = 'nodes' in client ? client.nodes('master') : [client]
      for (const node of nodes) await checkServer(node)
      if (failure !== null) log.info({ redis: server.name }, 'Redis answers again')
      failure = null
      up = true
      for (const listener of listeners) listener(true)
      tried()
    } catch (error) {
      fail(translateRedisError(error, `checking ${server.name}`))
      if (failure?.fate === 'stop') tried()
      again(checkAgain)
    }
  }

  /** A single one on a new connection: its address may lead to another server by now. */
  function checkAgain(): void {
    if (client !== null && 'nodes' in client) void check()
    else if (!up) leave()
  }

  /** A master that became a replica keeps its connections. A Cluster's client leaves a node by itself. */
  function leave(): void {
    if (client === null || 'nodes' in client || client.status !== 'ready') return
    up = false
    client.disconnect(true)
  }

  /** In a Cluster one node of several: the rest goes on, and yet nobody knows what comes back. */
  function broke(): void {
    if (client?.status !== 'ready') up = false
    if (!closed) for (const listener of listeners) listener(up)
  }

  function again(step: () => void): void {
    if (closed) return
    if (retry !== null) clearTimeout(retry)
    retry = setTimeout(step, CHECK_AGAIN_MS)
  }

  function fail(error: SurgetankError): void {
    failure = error
    if (closed || performance.now() - warnedAt < WARN_EVERY_MS) return
    warnedAt = performance.now()
    log.warn({ redis: server.name, code: error.code, detail: error.detail }, 'Redis cannot be used at the moment')
  }

  async function run(
    script: ScriptName,
    keys: readonly string[],
    args: readonly (string | number)[],
    msMax = CALL_MS_MAX,
  ): Promise<unknown> {
    return call(script, msMax, ready => runScript(ready, script, keys, args))
  }

  async function command(name: string, args: readonly (string | number)[], msMax = CALL_MS_MAX): Promise<unknown> {
    return call(name, msMax, ready => ready.call(name, ...args.map(String)))
  }

  async function call(doing: string, msMax: number, ask: (ready: RedisClient) => Promise<unknown>): Promise<unknown> {
    if (!up || client === null) throw failure?.fate === 'stop' ? failure : away()
    try {
      return await within(ask(client), msMax)
    } catch (error) {
      if (up && isOfReplica(error)) leave()
      throw translateRedisError(error, doing)
    }
  }

  function away(): SurgetankError {
    const cause = failure?.cause
    const why = cause instanceof Error ? cause.message : (failure?.detail ?? 'the connection broke')
    return new SurgetankError('space_unavailable', `${server.name} is away: ${why.replace(/\.$/, '')}.`)
  }

  async function close(): Promise<void> {
    closed = true
    up = false
    if (retry !== null) clearTimeout(retry)
    client?.disconnect()
  }
}

/**
 * The first to settle; what comes later is nobody's any more. A process that was busy for so long itself first reads what has
 * come meanwhile.
 */
export function within<T>(promise: Promise<T>, msMax: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`no answer within ${msMax} ms`))
    const timer = setTimeout(() => setImmediate(late), msMax)
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
