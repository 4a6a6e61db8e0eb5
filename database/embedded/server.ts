/**
 * `own.sock`: ClickHouse's HTTP interface over the embedded engine, as `@clickhouse/client` speaks it, for surgetank's own
 * parts. Whoever can open the socket is surgetank and may do everything, without a password. Analysts come another way
 * (analyst-server.ts). Not spoken: the native protocol, ClickHouse's block compression, multipart forms.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { toUrl } from '../../http-host.ts'
import { within } from '../../within.ts'
import { type Answer, answerWithoutEngine, openAnswer, sendError, watchClient } from './answer.ts'
import { EngineError, toEngineError } from './engine-error.ts'
import type { Executor } from './execute.ts'
import { parseRequest } from './request.ts'
import { listenOnSocket } from './sockets.ts'
import { readStatement } from './spool.ts'

export interface SocketServer {
  /** Takes no new connection; resolves when what is under way has ended, or after `msMax`. */
  drain(msMax: number): Promise<void>
  /** Ends what is under way, and the connections of clients that do not read its end; resolves when nothing is. */
  abort(): Promise<void>
}

const CONNECTIONS_MAX = 512
const LAST_WORDS_MS = 500
/** Of one request, its body included. */
const REQUEST_MS_MAX = 10 * 60_000

export async function openOwnServer(executor: Executor, path: string): Promise<SocketServer> {
  const running = new Map<AbortController, Promise<void>>()
  const server = createServer({ keepAliveTimeout: 10_000, maxHeaderSize: 1024 * 1024, requestTimeout: REQUEST_MS_MAX })
  server.maxConnections = CONNECTIONS_MAX
  // One connection may have many requests under way, by pipelining, and each listens for its end.
  server.on('connection', socket => void socket.setMaxListeners(0))
  server.on('request', (request, response) => {
    const { gone, forget } = watchClient(response)
    const done = handle(request, response, gone.signal).finally(() => {
      running.delete(gone)
      forget()
    })
    running.set(gone, done)
  })
  await listenOnSocket(server, path)
  return { drain, abort }

  async function handle(incoming: IncomingMessage, response: ServerResponse, gone: AbortSignal): Promise<void> {
    let queryId: string = randomUUID()
    let answer: Answer | null = null
    try {
      const url = toUrl(incoming.url ?? '/')
      if (url === null) throw new EngineError(36, 'The target of the request is no address')
      if (answerWithoutEngine(incoming, response, url)) return
      const request = parseRequest(incoming.method ?? 'GET', url, incoming.headers)
      queryId = request.queryId ?? queryId
      const statement = await readStatement(request.sql, incoming, request.bodyEncoding)
      await executor.execute({ request, role: 'own', statement, gone }, format => {
        answer = openAnswer(response, { queryId, format, encoding: request.answerEncoding })
        return answer
      })
    } catch (error) {
      const shown = gone.aborted ? new EngineError(394, 'The client went away') : toEngineError(error)
      if (answer === null) sendError(response, shown, queryId)
      else (answer as Answer).fail(shown)
    }
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
