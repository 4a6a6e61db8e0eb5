/**
 * Answers in ClickHouse's form: headers, the stream of a result, and errors before and in the middle of one.
 *
 * A result that breaks off must not look whole: the error follows in the frame that servers from 25.11 on send, and the
 * connection is closed without the end of the chunked body, so that the official client reports the error and curl exits
 * with 18.
 */
import { randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Writable } from 'node:stream'
import { constants, createBrotliCompress, createGzip } from 'node:zlib'
import { BodyError, type EngineError } from './engine-error.ts'

/** Of a request that is refused: what is read of its body so that the connection can be kept, and before it is closed. */
const REST_BYTES_KEPT = 256 * 1024
const REST_BYTES_MAX = 16 * 1024 * 1024
const REST_MS_MAX = 2_000

export interface Answer {
  /** False once the client is told anything. */
  readonly fresh: boolean
  /** Sends a part of a result; what to wait for while the client reads slowly. The first call sends the headers. */
  write(bytes: Uint8Array): Promise<void> | null
  end(summary: Summary): Promise<void>
  fail(error: EngineError): void
}

export interface AnswerOptions {
  readonly queryId: string
  readonly format: string
  readonly encoding: 'gzip' | 'br' | null
}

/** Counts of a statement, as X-ClickHouse-Summary has them. */
export interface Summary {
  readonly readRows: number
  readonly readBytes: number
  readonly writtenRows: number
  readonly writtenBytes: number
  readonly elapsedMs: number
}

/**
 * Fires when the client goes away before its answer is whole; `forget` when nothing is under way any more. By the connection:
 * an answer that waits for the one before it (pipelining) has no connection yet, and is not told of its end.
 */
export function watchClient(response: ServerResponse): { readonly gone: AbortController; forget(): void } {
  const { socket } = response.req
  const gone = new AbortController()
  const leave = () => {
    if (!response.writableFinished) gone.abort()
  }
  socket.once('close', leave)
  if (socket.destroyed) leave()
  return { gone, forget: () => void socket.off('close', leave) }
}

export function openAnswer(response: ServerResponse, options: AnswerOptions): Answer {
  const tag = randomBytes(8).toString('hex')
  const { socket } = response.req
  let out: Writable | null = null

  return {
    get fresh() {
      return out === null
    },
    write,
    end,
    fail,
  }

  function write(bytes: Uint8Array): Promise<void> | null {
    const to = out ?? start(null)
    if (to.write(bytes) || socket.destroyed) return null
    return drained(to, socket)
  }

  async function end(summary: Summary): Promise<void> {
    const to = out ?? start(summary)
    to.end()
    if (to !== response) to.once('end', () => response.end())
    if (!response.writableFinished && !socket.destroyed) await sent()
  }

  /** Resolves when all of the answer is on its way, or nobody waits for it. */
  function sent(): Promise<void> {
    return new Promise(resolve => {
      const done = () => {
        response.off('finish', done)
        socket.off('close', done)
        resolve()
      }
      response.on('finish', done)
      socket.on('close', done)
    })
  }

  function start(summary: Summary | null): Writable {
    response.writeHead(200, {
      ...commonHeaders(options.queryId),
      'Content-Type': contentType(options.format),
      'X-ClickHouse-Format': options.format,
      'X-ClickHouse-Exception-Tag': tag,
      ...(summary === null ? {} : { 'X-ClickHouse-Summary': summaryJson(summary) }),
      ...(options.encoding === null ? {} : { 'Content-Encoding': options.encoding }),
    })
    out = options.encoding === null ? response : compressInto(response, options.encoding)
    return out
  }

  function fail(error: EngineError): void {
    if (out === null) {
      sendError(response, error, options.queryId)
      return
    }
    const message = `${error.message}\n`
    const frame = `\r\n__exception__\r\n${tag}\r\n${message}${Buffer.byteLength(message)} ${tag}\r\n__exception__\r\n`
    const breakOff = () => response.socket?.end()
    if (out === response) response.write(frame, breakOff)
    else out.once('end', breakOff).end(frame)
  }
}

/** Resolves when a stream takes more, or has ended, or when what is behind it is closed: one that has ended never says that it takes more. */
export function drained(stream: Writable, closing: Writable = stream): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      stream.off('drain', done).off('finish', done).off('close', done)
      closing.off('close', done)
      resolve()
    }
    stream.on('drain', done).on('finish', done).on('close', done)
    closing.on('close', done)
  })
}

/** Answers what is no query; false when it is one. */
export function answerWithoutEngine({ method }: IncomingMessage, response: ServerResponse, url: URL): boolean {
  const reads = method === 'GET' || method === 'HEAD'
  if (
    url.pathname === '/ping' ||
    url.pathname === '/replicas_status' ||
    (url.pathname === '/' && reads && !url.searchParams.has('query'))
  ) {
    sendText(response, { status: 200, text: 'Ok.\n' })
    return true
  }
  if (url.pathname === '/' && (reads || method === 'POST')) return false
  const text = 'There is no such handle: queries go to / by GET or POST.\n'
  sendText(response, { status: url.pathname === '/' ? 405 : 404, text })
  return true
}

/** An error in place of a result. */
export function sendError(response: ServerResponse, error: EngineError, queryId: string): void {
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const headers = { ...commonHeaders(queryId), 'X-ClickHouse-Exception-Code': String(error.code) }
  const closes = error instanceof BodyError
  sendText(response, { status: error.status, headers, text: `${error.message}\n`, closes })
}

interface TextAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly text: string
  readonly closes?: boolean
}

/** Of a request whose body is not wanted, or not any more. */
function sendText(response: ServerResponse, { status, headers = {}, text, closes = false }: TextAnswer): void {
  const bytes = Buffer.from(text)
  const ends = closes || isLong(response.req)
  response.writeHead(status, {
    ...headers,
    'Content-Type': 'text/plain; charset=UTF-8',
    'Content-Length': bytes.length,
    ...(ends ? { Connection: 'close' } : {}),
  })
  if (ends) endAfterRest(response, bytes)
  else response.end(bytes)
  response.req.resume()
}

/** Whether more of a request may still come than is read for nothing. */
function isLong({ complete, headers }: IncomingMessage): boolean {
  if (complete) return false
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > REST_BYTES_KEPT
}

/**
 * The answer is whole for its client at once, by its length. The connection is closed when the rest of the body has come, or
 * too much of it, or after a while: closed earlier, it would be reset, and a client that still sends would lose the answer.
 */
function endAfterRest(response: ServerResponse, text: Buffer): void {
  const { req: request } = response
  if (request.complete) return void response.end(text)
  let bytes = 0
  const end = () => {
    clearTimeout(timer)
    response.end()
  }
  const timer = setTimeout(end, REST_MS_MAX)
  response.write(text)
  request.once('end', end).once('close', end)
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > REST_BYTES_MAX) end()
  })
}

function commonHeaders(queryId: string): Record<string, string> {
  return {
    'X-ClickHouse-Query-Id': queryId.replace(/[^\x20-\x7e]/g, '?'),
    'X-ClickHouse-Server-Display-Name': 'surgetank',
    'X-ClickHouse-Timezone': 'UTC',
    'X-Content-Type-Options': 'nosniff',
  }
}

function compressInto(response: ServerResponse, encoding: 'gzip' | 'br'): Writable {
  const compressor =
    encoding === 'gzip'
      ? createGzip({ level: 1 })
      : createBrotliCompress({ params: { [constants.BROTLI_PARAM_QUALITY]: 3 } })
  // Whether the body then ends or breaks off is decided by `end` and `fail`.
  compressor.pipe(response, { end: false })
  return compressor
}

function summaryJson({ readRows, readBytes, writtenRows, writtenBytes, elapsedMs }: Summary): string {
  return JSON.stringify({
    read_rows: String(readRows),
    read_bytes: String(readBytes),
    written_rows: String(writtenRows),
    written_bytes: String(writtenBytes),
    total_rows_to_read: '0',
    result_rows: String(writtenRows),
    result_bytes: String(writtenBytes),
    elapsed_ns: String(Math.round(elapsedMs * 1e6)),
  })
}

function contentType(format: string): string {
  if (/^JSON\w*EachRow/.test(format)) return 'application/x-ndjson; charset=UTF-8'
  if (/^JSON/.test(format)) return 'application/json; charset=UTF-8'
  if (/^CSV/.test(format)) return 'text/csv; charset=UTF-8'
  if (/^(?:TSV|TabSeparated)/.test(format)) return 'text/tab-separated-values; charset=UTF-8'
  if (/^(?:Native|RowBinary|Parquet|Arrow|ORC|Avro|MsgPack|Protobuf)/.test(format)) return 'application/octet-stream'
  return 'text/plain; charset=UTF-8'
}
