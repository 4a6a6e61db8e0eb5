/**
 * The SQL port: ClickHouse's HTTP interface for analysts, as curl, `@clickhouse/client` and tools for tables speak it, on
 * 127.0.0.1 only. Whoever reaches it is an analyst and may read, without a password. What needs no engine is decided here;
 * statements are judged where they are run (embedded/analyst-server.ts), and no other socket of the engine is known here.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { hasOneHost, isTargetOf, toUrl } from '../../http-host.ts'
import { within } from '../../within.ts'
import { type Answer, answerWithoutEngine, openAnswer, sendError, watchClient } from '../embedded/answer.ts'
import { EngineError, toEngineError } from '../embedded/engine-error.ts'
import { type ClientRequest, parseRequest, refuseForeign } from '../embedded/request.ts'
import type { EngineClient } from './engine-client.ts'
import { readStatementText } from './text.ts'

export interface SqlServer {
  readonly port: number
  /** Takes no new connection, and after `msMax` ends what is under way; resolves when nothing is. */
  close(msMax: number): Promise<void>
}

export interface SqlServerOptions {
  readonly engine: EngineClient
  /** 0 for any free one. */
  readonly port: number
  /** Of one request, its body included; ms. */
  readonly requestMsMax?: number
}

const CONNECTIONS_MAX = 512
/** Of one connection, answers that are waited for. Hardly a client asks again before it has its answer. */
const PIPELINED_MAX = 16
const REQUEST_MS_MAX = 10 * 60_000
const LAST_WORDS_MS = 500

/** Rejects with the error of `listen` (EADDRINUSE) when the port is taken. */
export async function openSqlServer(options: SqlServerOptions): Promise<SqlServer> {
  const { engine, port, requestMsMax = REQUEST_MS_MAX } = options
  const running = new Map<AbortController, Promise<void>>()
  const server = createServer({
    keepAliveTimeout: 10_000,
    maxHeaderSize: 1024 * 1024,
    requestTimeout: requestMsMax,
    connectionsCheckingInterval: Math.min(30_000, requestMsMax),
  })
  server.maxConnections = CONNECTIONS_MAX
  // One connection may have some requests under way, by pipelining, and each listens for its end.
  const under = new WeakMap<Socket, number>()
  server.on('connection', socket => void socket.setMaxListeners(0))
  server.on('request', (request, response) => {
    const { socket } = request
    const more = (under.get(socket) ?? 0) + 1
    if (more > PIPELINED_MAX) return void socket.destroy()
    under.set(socket, more)
    const { gone, forget } = watchClient(response)
    const done = handle(request, response, gone.signal).finally(() => {
      running.delete(gone)
      under.set(socket, (under.get(socket) ?? 1) - 1)
      forget()
    })
    running.set(gone, done)
  })
  await listen(server, port)
  return { port: (server.address() as AddressInfo).port, close }

  async function handle(incoming: IncomingMessage, response: ServerResponse, gone: AbortSignal): Promise<void> {
    let queryId: string | null = null
    let answer: Answer | null = null
    try {
      refuseOddHost(incoming)
      refuseForeign(incoming.headers)
      const url = toUrl(incoming.url ?? '/')
      if (url === null) throw new EngineError(36, 'The target of the request is no address')
      if (answerWithoutEngine(incoming, response, url)) return
      const request = parseRequest(incoming.method ?? 'GET', url, incoming.headers)
      queryId = request.queryId ?? randomUUID()
      refuseLogin(request)
      const sql = await readStatementText(request.sql, incoming, request.bodyEncoding)
      const { database, settings, params, defaultFormat, whole, answerEncoding: encoding } = request
      const id = queryId
      await engine.ask({ sql, database, settings, params, defaultFormat, whole }, gone, format => {
        answer = openAnswer(response, { queryId: id, format, encoding })
        return answer
      })
    } catch (error) {
      const shown = gone.aborted ? new EngineError(394, 'The client went away') : toEngineError(error)
      if (answer === null) sendError(response, shown, queryId ?? randomUUID())
      else (answer as Answer).fail(shown)
    }
  }

  async function close(msMax: number): Promise<void> {
    server.close()
    server.closeIdleConnections()
    await within(msMax, ended())
    for (const gone of running.keys()) gone.abort()
    await within(LAST_WORDS_MS, ended())
    server.closeAllConnections()
    await ended()
  }

  async function ended(): Promise<void> {
    while (running.size > 0) await Promise.allSettled(running.values())
  }
}

function refuseOddHost({ rawHeaders, url = '/', headers }: IncomingMessage): void {
  if (!hasOneHost(rawHeaders)) throw new EngineError(36, 'A request must have one Host header: a name or an address')
  if (!isTargetOf(url, headers.host ?? ''))
    throw new EngineError(36, 'The target and the Host header must name one host')
}

/** There is no user here. A password is refused rather than taken for none: who gives one believes to be somebody. */
function refuseLogin({ user, password }: ClientRequest): void {
  if (password !== '' || user === 'surgetank')
    throw new EngineError(516, 'Authentication failed: password is incorrect, or there is no user with such name')
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
