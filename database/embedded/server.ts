/**
 * ClickHouse's HTTP interface over the embedded engine: what `@clickhouse/client`, curl and tools for tables speak.
 *
 * It listens on 127.0.0.1 only. The user `surgetank` with the password of this start may write; everyone else, without a
 * password, may read (`analyst.ts`). Not spoken: the native protocol, ClickHouse's block compression, multipart forms.
 */
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { within } from '../../within.ts'
import type { Answer } from './answer.ts'
import { openAnswer, sendError } from './answer.ts'
import { EngineError, toEngineError } from './engine-error.ts'
import type { Executor, Role } from './execute.ts'
import { type ClientRequest, parseRequest, refuseForeign } from './request.ts'
import { readStatement } from './spool.ts'

export const WRITER = 'surgetank'

export interface SqlServer {
  readonly port: number
  /** Takes no new connection; resolves when what is under way has ended, or after `msMax`. */
  drain(msMax: number): Promise<void>
  /** Ends what is under way, and the connections of clients that do not read its end; resolves when nothing is. */
  abort(): Promise<void>
}

export interface SqlServerOptions {
  readonly executor: Executor
  readonly password: string
  /** 0 for any free one. */
  readonly port: number
}

const CONNECTIONS_MAX = 512
const LAST_WORDS_MS = 500
/** Of one request, its body included. */
const REQUEST_MS_MAX = 10 * 60_000

/** Rejects with the error of `listen` (EADDRINUSE) when the port is taken. */
export async function openSqlServer({ executor, password, port }: SqlServerOptions): Promise<SqlServer> {
  const running = new Map<AbortController, Promise<void>>()
  const server = createServer({ keepAliveTimeout: 10_000, maxHeaderSize: 1024 * 1024, requestTimeout: REQUEST_MS_MAX })
  server.maxConnections = CONNECTIONS_MAX
  server.on('request', (request, response) => {
    const gone = new AbortController()
    response.once('close', () => {
      if (!response.writableFinished) gone.abort()
    })
    const done = handle(request, response, gone.signal).finally(() => running.delete(gone))
    running.set(gone, done)
  })
  await listen(server, port)
  return { port: (server.address() as AddressInfo).port, drain, abort }

  async function handle(incoming: IncomingMessage, response: ServerResponse, gone: AbortSignal): Promise<void> {
    let queryId: string = randomUUID()
    let answer: Answer | null = null
    try {
      refuseForeign(incoming.headers)
      const url = new URL(incoming.url ?? '/', 'http://localhost')
      if (answerWithoutEngine(incoming, response, url)) return
      const request = parseRequest(incoming.method ?? 'GET', url, incoming.headers)
      queryId = request.queryId ?? queryId
      const role = roleOf(request)
      const statement = await readStatement(request.sql, incoming, request.bodyEncoding)
      await executor.execute({ request, role, queryId, statement, gone }, format => {
        answer = openAnswer(response, { queryId, format, encoding: request.answerEncoding })
        return answer
      })
    } catch (error) {
      const shown = gone.aborted ? new EngineError(394, 'The client went away') : toEngineError(error)
      if (answer === null) sendError(response, shown, queryId)
      else (answer as Answer).fail(shown)
    }
  }

  /** A wrong password is refused rather than taken for none: its user believes to be somebody. */
  function roleOf({ user, password: given }: ClientRequest): Role {
    if (user === WRITER && timingSafeEqual(digest(given), digest(password))) return 'writer'
    if (user === WRITER || given !== '')
      throw new EngineError(516, 'Authentication failed: password is incorrect, or there is no user with such name')
    return 'analyst'
  }

  async function drain(msMax: number): Promise<void> {
    server.close()
    server.closeIdleConnections()
    await within(msMax, ended())
  }

  async function abort(): Promise<void> {
    for (const gone of running.keys()) gone.abort()
    await within(LAST_WORDS_MS, ended())
    server.closeAllConnections()
    await ended()
  }

  async function ended(): Promise<void> {
    while (running.size > 0) await Promise.allSettled(running.values())
  }
}

/** Answers what is no query; false when it is one. */
function answerWithoutEngine({ method }: IncomingMessage, response: ServerResponse, url: URL): boolean {
  const reads = method === 'GET' || method === 'HEAD'
  if (
    url.pathname === '/ping' ||
    url.pathname === '/replicas_status' ||
    (url.pathname === '/' && reads && !url.searchParams.has('query'))
  ) {
    response.writeHead(200, { 'Content-Type': 'text/plain; charset=UTF-8' }).end('Ok.\n')
    return true
  }
  if (url.pathname === '/' && (reads || method === 'POST')) return false
  response.writeHead(url.pathname === '/' ? 405 : 404, { 'Content-Type': 'text/plain; charset=UTF-8' })
  response.end('There is no such handle: queries go to / by GET or POST.\n')
  return true
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
