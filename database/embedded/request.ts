/**
 * A request of ClickHouse's HTTP interface, taken apart: who asks, for what, with which settings and parameters.
 * Pure: untrusted text goes in, a typed request or an EngineError comes out; nothing is read or run.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Setting } from './analyst-settings.ts'
import { EngineError } from './engine-error.ts'

/** What a statement is run with. */
export interface StatementRequest {
  /** Null when none is named: then it is `telemetry` for analysts. */
  readonly database: string | null
  readonly settings: readonly Setting[]
  readonly params: readonly Setting[]
  /** What `FORMAT` in the statement overrides. */
  readonly defaultFormat: string
  readonly session: SessionRequest | null
  /** GET and HEAD, or the setting `readonly`: nothing may be changed, whoever asks. */
  readonly readonly: boolean
  /** The answer is sent when the query has ended, so that an error has its status. */
  readonly whole: boolean
}

export interface ClientRequest extends StatementRequest {
  readonly user: string
  readonly password: string
  /** Of the address; the body may hold the rest, or all of it. */
  readonly sql: string
  readonly queryId: string | null
  readonly answerEncoding: 'gzip' | 'br' | null
  readonly bodyEncoding: BodyEncoding | null
}

export interface SessionRequest {
  readonly id: string
  readonly timeoutMs: number
  /** The session must exist already. */
  readonly check: boolean
}

/** As INFILE names them. */
export type BodyEncoding = 'gzip' | 'br' | 'deflate' | 'zstd'

const SESSION_SECONDS_DEFAULT = 60
const SESSION_SECONDS_MAX = 3600

/** Of one request, parameters included. */
const SETTINGS_MAX = 1_000

/** Parameters of the interface itself, not settings of the engine. */
const OF_INTERFACE = new Set(
  'query query_id database default_format session_id session_timeout session_check user password readonly wait_end_of_query enable_http_compression compress decompress close_session'.split(
    ' ',
  ),
)

/** Settings of a server's HTTP handler that mean nothing here; clients send them as a matter of course. */
const IGNORED = new Set(
  (
    'buffer_size http_response_buffer_size send_progress_in_http_headers http_headers_progress_interval_ms http_zlib_compression_level ' +
    'http_write_exception_in_output_format cancel_http_readonly_queries_on_client_close http_max_field_value_size add_http_cors_header ' +
    'http_connection_timeout http_receive_timeout http_send_timeout http_native_compression_disable_checksumming_on_decompress ' +
    'http_wait_end_of_query quota_key role stacktrace client_protocol_version network_compression_method'
  ).split(' '),
)

/** Only this machine may be addressed: a name that a web page has pointed at 127.0.0.1 must not reach the database. */
const LOCAL_HOST = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?$/i

/** Throws 516 (403) for a request that came by another host's name, or from a web page of another site. */
export function refuseForeign(headers: IncomingHttpHeaders): void {
  const origin = headers.origin?.replace(/^https?:\/\//i, '')
  const foreign = !LOCAL_HOST.test(headers.host ?? '') || (origin !== undefined && !LOCAL_HOST.test(origin))
  if (foreign || headers['sec-fetch-site'] === 'cross-site') {
    throw new EngineError(516, 'Only requests to 127.0.0.1 or localhost, and from no other web page, are answered')
  }
}

/** The request, without its body. Throws EngineError for what this interface does not speak. */
export function parseRequest(method: string, url: URL, headers: IncomingHttpHeaders): ClientRequest {
  const query = url.searchParams
  for (const name of ['compress', 'decompress']) {
    if (isOn(query.get(name))) {
      throw new EngineError(
        48,
        `${name}=1, ClickHouse's own block compression, is not spoken here; use HTTP compression`,
      )
    }
  }
  if (/^multipart\//i.test(headers['content-type'] ?? ''))
    throw new EngineError(
      48,
      'Forms and external data (multipart/form-data) are not spoken here; send the statement alone, as the body',
    )
  const { settings, params } = parseSettings(query)
  return {
    ...parseCredentials(query, headers),
    sql: query.get('query') ?? '',
    queryId: query.get('query_id'),
    database: query.get('database') ?? header(headers, 'x-clickhouse-database'),
    settings,
    params,
    defaultFormat: parseFormat(query.get('default_format') ?? header(headers, 'x-clickhouse-format') ?? 'TabSeparated'),
    session: parseSession(query),
    readonly: method === 'GET' || method === 'HEAD' || isOn(query.get('readonly')),
    whole: isOn(query.get('wait_end_of_query')),
    answerEncoding: isOn(query.get('enable_http_compression')) ? parseAnswerEncoding(headers) : null,
    bodyEncoding: parseBodyEncoding(headers),
  }
}

function parseSettings(query: URLSearchParams): { settings: Setting[]; params: Setting[] } {
  const settings: Setting[] = []
  const params: Setting[] = []
  for (const [name, value] of query) {
    if (OF_INTERFACE.has(name) || IGNORED.has(name)) continue
    if (!/^[A-Za-z_]\w{0,127}$/.test(name)) throw new EngineError(115, 'A setting has a name that cannot be one')
    if (name.startsWith('param_')) params.push({ name, value })
    else settings.push({ name, value })
    if (settings.length + params.length > SETTINGS_MAX)
      throw new EngineError(36, `The address has more than ${SETTINGS_MAX} settings and parameters`)
  }
  return { settings, params }
}

/**
 * X-ClickHouse-User and -Key, Basic, or `user` and `password`: in the order of a ClickHouse server. Throws 516 for another
 * Authorization.
 */
function parseCredentials(query: URLSearchParams, headers: IncomingHttpHeaders): { user: string; password: string } {
  const user = header(headers, 'x-clickhouse-user')
  const key = header(headers, 'x-clickhouse-key')
  if (user !== null || key !== null) return { user: user ?? 'default', password: key ?? '' }
  const basic = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(headers.authorization ?? '')?.[1]
  if (basic !== undefined) {
    const text = Buffer.from(basic, 'base64').toString()
    const colon = text.indexOf(':')
    return colon < 0 ? { user: text, password: '' } : { user: text.slice(0, colon), password: text.slice(colon + 1) }
  }
  if (headers.authorization !== undefined)
    throw new EngineError(516, 'Authentication failed: the Authorization header is not of the kind Basic')
  return { user: query.get('user') ?? 'default', password: query.get('password') ?? '' }
}

function parseSession(query: URLSearchParams): SessionRequest | null {
  const id = query.get('session_id')
  if (id === null || id === '') return null
  const seconds = Number(query.get('session_timeout') ?? SESSION_SECONDS_DEFAULT)
  if (id.length > 128 || !(seconds > 0 && seconds <= SESSION_SECONDS_MAX)) {
    throw new EngineError(
      36,
      `A session has an id of up to 128 characters and a timeout of up to ${SESSION_SECONDS_MAX} seconds`,
    )
  }
  return { id, timeoutMs: seconds * 1000, check: isOn(query.get('session_check')) }
}

function parseFormat(name: string): string {
  if (!/^\w{1,64}$/.test(name)) throw new EngineError(73, 'The default format has a name that cannot be one')
  return name
}

function parseAnswerEncoding(headers: IncomingHttpHeaders): 'gzip' | 'br' | null {
  const accepted = String(headers['accept-encoding'] ?? '')
  return /\bgzip\b/.test(accepted) ? 'gzip' : /\bbr\b/.test(accepted) ? 'br' : null
}

function parseBodyEncoding(headers: IncomingHttpHeaders): BodyEncoding | null {
  const encoding = headers['content-encoding']
  switch (encoding) {
    case undefined:
    case '':
    case 'identity':
      return null
    case 'gzip':
    case 'x-gzip':
      return 'gzip'
    case 'br':
    case 'deflate':
    case 'zstd':
      return encoding
    default:
      throw new EngineError(48, 'The body has a Content-Encoding other than gzip, br, deflate or zstd')
  }
}

function isOn(value: string | null): boolean {
  return value !== null && value !== '' && value !== '0' && value !== 'false'
}

function header(headers: IncomingHttpHeaders, name: string): string | null {
  const value = headers[name]
  return typeof value === 'string' ? value : null
}
