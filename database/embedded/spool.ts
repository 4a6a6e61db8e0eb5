/**
 * Bodies of requests: the text of a statement, in memory and bounded; the data of an INSERT, into a file.
 *
 * Data never becomes a part of a statement's text: the engine ends inline data at a blank line and runs what follows as
 * SQL (test/database/embedded-insert.test.ts shows it). From a file it is only data, and is decompressed by the engine.
 */
import { createWriteStream, mkdirSync, openSync, readdirSync, rmSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { finished, type Readable, type Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib'
import { BodyError, EngineError } from './engine-error.ts'
import type { BodyEncoding } from './request.ts'
import { type InsertStatement, parseInsert, statementText } from './sql-text.ts'

/** The most that the text of a statement may have; ClickHouse's own `max_query_size`. */
export const TEXT_BYTES_MAX = 256 * 1024
const DATA_BYTES_MAX = 1024 * 1024 * 1024

/** A statement, and where its data comes from when it is an INSERT with data. */
export type Statement =
  | { readonly kind: 'query'; readonly sql: string }
  | {
      readonly kind: 'insert'
      readonly insert: InsertStatement
      readonly data: AsyncIterable<Buffer>
      readonly encoding: BodyEncoding | null
    }

/** Puts the statement together from the address and the body. Reads no more of the body than the text. */
export async function readStatement(
  sql: string,
  body: IncomingMessage,
  encoding: BodyEncoding | null,
): Promise<Statement> {
  const inAddress = parseInsert(sql)
  if (inAddress !== null) {
    const inline = Buffer.from(sql.slice(inAddress.dataAt))
    if (inline.length === 0) return { kind: 'insert', insert: inAddress, data: body, encoding }
    return { kind: 'insert', insert: inAddress, data: joined([inline], decoded(body, encoding)), encoding: null }
  }
  const text = await readText(decoded(body, encoding))
  const inBody = sql === '' ? parseInsert(text.bytes.toString('latin1')) : null
  if (inBody !== null) {
    const whole = text.bytes.toString('latin1')
    const insert = { ...inBody, head: utf8(inBody.head), settings: utf8(inBody.settings) }
    return {
      kind: 'insert',
      insert,
      data: joined([text.bytes.subarray(Buffer.byteLength(whole.slice(0, inBody.dataAt), 'latin1'))], text.rest),
      encoding: null,
    }
  }
  if (text.cut) {
    // The rest is read past the decoder then, which nobody reads from any more.
    body.unpipe()
    throw tooLong()
  }
  return { kind: 'query', sql: textOf(sql, text.bytes) }
}

/** The text of a statement from the address and the body. Throws 36 for what is no UTF-8, and 62 for nothing. */
export function textOf(inAddress: string, body: Uint8Array): string {
  const text = statementText(inAddress, body)
  if (text === null) throw new EngineError(36, 'The text of the statement is not UTF-8')
  if (text === '') throw new EngineError(62, 'Empty query')
  return text
}

export function tooLong(): EngineError {
  return new EngineError(307, `The text of a statement is longer than ${TEXT_BYTES_MAX} bytes`)
}

/** The head was looked at byte by byte, because the data behind it need not be text. */
function utf8(latin1: string): string {
  return Buffer.from(latin1, 'latin1').toString('utf8')
}

/** The first bytes of a body, up to the most that a statement may have, and what follows. */
async function readText(body: Readable): Promise<{ bytes: Buffer; cut: boolean; rest: AsyncIterable<Buffer> }> {
  const chunks: Buffer[] = []
  let length = 0
  const iterator = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  const rest = { [Symbol.asyncIterator]: () => iterator }
  try {
    while (length <= TEXT_BYTES_MAX) {
      const next = await iterator.next()
      if (next.done) return { bytes: Buffer.concat(chunks), cut: false, rest }
      chunks.push(next.value)
      length += next.value.length
    }
  } catch (error) {
    throw unreadable(error)
  }
  return { bytes: Buffer.concat(chunks), cut: true, rest }
}

export function decoded(body: IncomingMessage, encoding: BodyEncoding | null): Readable {
  switch (encoding) {
    case null:
      return body
    case 'gzip':
      return through(body, createGunzip())
    case 'br':
      return through(body, createBrotliDecompress())
    case 'deflate':
      return through(body, createInflate())
    case 'zstd':
      throw new EngineError(48, 'zstd is taken for the data of an INSERT that stands in the address only')
  }
}

/**
 * `pipe` alone leaves a decoder waiting for ever for the rest of a body that broke off. `pipeline` would, for a body that
 * cannot be decoded, close the connection before its client is told.
 */
function through(body: IncomingMessage, decoder: Transform): Readable {
  finished(body, { writable: false }, error => {
    if (error) decoder.destroy(error)
  })
  return body.pipe(decoder)
}

async function* joined(first: readonly Buffer[], rest: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield* first
  try {
    yield* rest
  } catch (error) {
    throw unreadable(error)
  }
}

function unreadable(error: unknown): BodyError {
  return new BodyError(error instanceof Error ? error.message : String(error))
}

export interface Spool {
  /** Writes data to a file of its own. `remove` it in every case. */
  write(data: AsyncIterable<Buffer>): Promise<SpoolFile>
}

export interface SpoolFile {
  readonly path: string
  readonly bytes: number
  remove(): void
}

/** Opens the folder, and removes what an earlier process left in it. */
export function openSpool(folder: string): Spool {
  mkdirSync(folder, { recursive: true })
  for (const left of readdirSync(folder)) rmSync(join(folder, left), { recursive: true, force: true })
  let count = 0
  return { write }

  async function write(data: AsyncIterable<Buffer>): Promise<SpoolFile> {
    const path = join(folder, `insert-${process.pid}-${++count}`)
    const remove = () => rmSync(path, { force: true })
    let bytes = 0
    try {
      // Made before there is anything to fail: a file that is made later would stay.
      const fd = openSync(path, 'wx', 0o600)
      await pipeline(counted, createWriteStream(path, { fd }))
      return { path, bytes, remove }
    } catch (error) {
      remove()
      if (error instanceof EngineError) throw error
      throw new EngineError(
        1001,
        `The data of the insert could not be kept: ${error instanceof Error ? error.message : String(error)}`,
      )
    }

    async function* counted(): AsyncGenerator<Buffer> {
      for await (const chunk of data) {
        bytes += chunk.length
        if (bytes > DATA_BYTES_MAX)
          throw new EngineError(307, `The data of an insert is longer than ${DATA_BYTES_MAX} bytes`)
        yield chunk
      }
    }
  }
}
