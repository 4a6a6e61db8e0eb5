/**
 * The text of an analyst's statement, put together from the address and the body, decompressed and bounded: the engine's
 * process judges and runs this very text. Nothing is kept in a file: analysts have no data to give.
 */
import type { IncomingMessage } from 'node:http'
import { BodyError, EngineError } from '../embedded/engine-error.ts'
import type { BodyEncoding } from '../embedded/request.ts'
import { decoded, TEXT_BYTES_MAX, textOf, tooLong } from '../embedded/spool.ts'
import { parseInsert } from '../embedded/sql-text.ts'

/** What does not compress is a little longer compressed. */
const COMPRESSED_BYTES_MAX = TEXT_BYTES_MAX + 64 * 1024

/**
 * Throws 164 for an INSERT with data, without reading it; 307 for what is longer than a statement may be, and BodyError for a
 * body that is not what its encoding says, both as soon as that shows.
 */
export async function readStatementText(
  inAddress: string,
  body: IncomingMessage,
  encoding: BodyEncoding | null,
): Promise<string> {
  if (parseInsert(inAddress) !== null) throw readonlyError()
  const { bytes, cut } = hasBody(body) ? await readBody(body, encoding) : NOTHING
  if (inAddress === '' && parseInsert(bytes.toString('latin1')) !== null) throw readonlyError()
  if (cut || inAddress.length + bytes.length > TEXT_BYTES_MAX) throw tooLong()
  return textOf(inAddress, bytes)
}

function readonlyError(): EngineError {
  return new EngineError(164, 'Cannot execute query in readonly mode')
}

interface BodyText {
  readonly bytes: Buffer
  /** It is longer than a statement may be; the rest is not read. */
  readonly cut: boolean
}

const NOTHING: BodyText = { bytes: Buffer.alloc(0), cut: false }

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

function readBody(body: IncomingMessage, encoding: BodyEncoding | null): Promise<BodyText> {
  const source = decoded(body, encoding)
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    let taken = 0
    source.on('data', take).on('end', end).on('error', fail)
    if (source !== body) body.on('data', count).on('error', fail)

    function take(chunk: Buffer): void {
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes > TEXT_BYTES_MAX) settle(() => resolve({ bytes: Buffer.concat(chunks), cut: true }))
    }

    /** An encoding can be long and hold nothing, so what is taken in has a bound of its own. */
    function count(chunk: Buffer): void {
      taken += chunk.length
      if (taken > COMPRESSED_BYTES_MAX) settle(() => resolve({ bytes: Buffer.concat(chunks), cut: true }))
    }

    function end(): void {
      const [only] = chunks
      settle(() =>
        resolve({ bytes: chunks.length === 1 && only !== undefined ? only : Buffer.concat(chunks), cut: false }),
      )
    }

    function fail(error: Error): void {
      settle(() => reject(new BodyError(error.message)))
    }

    function settle(tell: () => void): void {
      source.off('data', take).off('end', end)
      if (source !== body) {
        body.off('data', count).unpipe()
        source.destroy()
      }
      tell()
    }
  })
}
