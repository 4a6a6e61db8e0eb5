/**
 * The official client, for what `DatabaseAccess` says, and what every statement of ours needs of it. Nothing here puts an
 * address or a password into a message.
 */
import { Agent, type AgentOptions } from 'node:http'
import { addAbortSignal } from 'node:stream'
import { type ClickHouseClient, type ClickHouseSettings, createClient } from '@clickhouse/client'
import { SurgetankError } from '../errors.ts'
import type { DatabaseAccess } from './database.ts'
import { translateError } from './error-classes.ts'
import type { Statement } from './history.ts'

export interface ClientOptions {
  /** Silence of the server after which a request is given up, ms. */
  readonly requestMsMax: number
  readonly connectionsMax: number
  /** The database that names without one are looked up in; null for the user's own, which exists at any time. */
  readonly database: string | null
  /** Nothing can be changed by it. */
  readonly readonly?: boolean
}

/** Whole numbers come unquoted, and a number that JSON has no word for comes as null. */
export const READ_SETTINGS = {
  output_format_json_quote_64bit_integers: 0,
  output_format_json_quote_denormals: 0,
} as const satisfies ClickHouseSettings

const DATABASE_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,63}$/
/** Braces: a server fills in `{cluster}` itself. It stands in statements as a string. */
const CLUSTER_NAME = /^[A-Za-z0-9_.{}-]{1,64}$/

/** Opens no connection yet. Throws `database_misconfigured` for an access that cannot be one. */
export function openClient(access: DatabaseAccess, options: ClientOptions): ClickHouseClient {
  checkAccess(access)
  return createClient({
    url: access.url,
    username: access.user,
    password: access.password,
    ...(options.database === null ? {} : { database: options.database }),
    ...(access.ca === null ? {} : { tls: { ca_cert: Buffer.from(access.ca) } }),
    request_timeout: options.requestMsMax,
    max_open_connections: options.connectionsMax,
    compression: { request: false, response: false },
    ...(access.socketPath === null ? {} : { http_agent: socketAgent(access.socketPath, options.connectionsMax) }),
    ...(options.readonly === true ? { clickhouse_settings: { readonly: '1' } } : {}),
    keep_alive: { enabled: true, idle_socket_ttl: 2_500, eagerly_destroy_stale_sockets: true },
    log: { level: 127 },
  })
}

/** The client's own agent knows hosts and ports only. It ends sockets that idle in any agent of Node. */
function socketAgent(socketPath: string, connectionsMax: number): Agent {
  // The type of the options lacks what the agent hands on to each of its connections.
  const options: AgentOptions & { socketPath: string } = { socketPath, keepAlive: true, maxSockets: connectionsMax }
  return new Agent(options)
}

function checkAccess({ url, database, cluster, ca }: DatabaseAccess): void {
  const { protocol } = parseUrl(url)
  if (!DATABASE_NAME.test(database))
    throw misconfigured('The name of the database must be a letter or _, then up to 63 letters, digits and _.')
  if (cluster !== null && !CLUSTER_NAME.test(cluster))
    throw misconfigured('The name of the cluster must be up to 64 letters, digits, and any of _ . - { }.')
  if (ca === null) return
  if (protocol !== 'https:') throw misconfigured('A certificate is given, but the URL of ClickHouse begins with http:.')
  if (!ca.includes('-----BEGIN CERTIFICATE-----')) throw misconfigured('The certificate for ClickHouse is no PEM text.')
}

/** Never with the text in the message: it may hold a password. */
function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !/^https?:$/.test(url.protocol))
    throw misconfigured('The URL of ClickHouse must be one such as http://clickhouse:8123 or https://clickhouse:8443.')
  if (url.username !== '' || url.password !== '')
    throw misconfigured('The URL of ClickHouse must hold no user and no password: they have settings of their own.')
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    throw misconfigured('The URL of ClickHouse must end after the port: the database has a setting of its own.')
  return url
}

function misconfigured(detail: string): SurgetankError {
  return new SurgetankError('database_misconfigured', detail)
}

/** Runs a statement without a result. */
export async function runCommand(
  client: ClickHouseClient,
  sql: string,
  params: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  try {
    await client.command({ query: sql, query_params: { ...params } })
  } catch (error) {
    throw translateError(error, `running ${sql.trimStart().slice(0, 60).replace(/\s+/g, ' ')}`)
  }
}

/** All rows of a query of ours; `doing` says in an error what it was for. */
export async function readRows<Row>(
  client: ClickHouseClient,
  doing: string,
  statement: Statement,
  signal?: AbortSignal,
): Promise<Row[]> {
  const rows: Row[] = []
  for await (const page of readPages<Row>(client, doing, statement, signal)) rows.push(...page)
  return rows
}

/** Pages as they come from the socket. A consumer that stops early ends the query, and so does `signal`. */
export async function* readPages<Row>(
  client: ClickHouseClient,
  doing: string,
  { sql, params }: Statement,
  signal?: AbortSignal,
): AsyncGenerator<Row[]> {
  try {
    const answer = await client.query({
      query: sql,
      query_params: { ...params },
      format: 'JSONCompactEachRow',
      clickhouse_settings: READ_SETTINGS,
      ...withSignal(signal),
    })
    const stream = answer.stream<Row>()
    // The client itself looks at the signal only until the answer begins.
    if (signal !== undefined) addAbortSignal(signal, stream)
    for await (const rows of stream) {
      const page = rows as { text: string }[]
      if (page.length > 0) yield JSON.parse(`[${page.map(row => row.text).join(',')}]`) as Row[]
    }
  } catch (error) {
    throw translateError(error, doing)
  }
}

export function withSignal(signal: AbortSignal | undefined): { abort_signal?: AbortSignal } {
  return signal === undefined ? {} : { abort_signal: signal }
}
