/**
 * Answers in ClickHouse's form: headers, the stream of a result, and errors before and in the middle of one.
 *
 * A result that breaks off must not look whole: the error follows in the frame that servers from 25.11 on send, and the
 * connection is closed without the end of the chunked body, so that the official client reports the error and curl exits
 * with 18.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { Writable } from 'node:stream'
import { constants, createBrotliCompress, createGzip } from 'node:zlib'
import type { EngineError } from './engine-error.ts'

export interface Answer {
  /** False once the client is told anything. */
  readonly fresh: boolean
  /** Sends a part of a result; waits while the client reads slowly. The first call sends the headers. */
  write(bytes: Uint8Array): Promise<void>
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

export function openAnswer(response: ServerResponse, options: AnswerOptions): Answer {
  const tag = randomBytes(8).toString('hex')
  let out: Writable | null = null

  return {
    get fresh() {
      return out === null
    },
    write,
    end,
    fail,
  }

  async function write(bytes: Uint8Array): Promise<void> {
    const to = out ?? start(null)
    if (to.write(bytes) || response.destroyed) return
    await Promise.race([once(to, 'drain'), once(response, 'close')])
  }

  async function end(summary: Summary): Promise<void> {
    const to = out ?? start(summary)
    to.end()
    if (to !== response) to.once('end', () => response.end())
    if (!response.writableFinished && !response.destroyed)
      await Promise.race([once(response, 'finish'), once(response, 'close')])
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

/** An error in place of a result. The rest of the request's body is read and dropped. */
export function sendError(response: ServerResponse, error: EngineError, queryId: string): void {
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  response.writeHead(error.status, {
    ...commonHeaders(queryId),
    'Content-Type': 'text/plain; charset=UTF-8',
    'X-ClickHouse-Exception-Code': String(error.code),
  })
  response.end(`${error.message}\n`)
  response.req.resume()
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
