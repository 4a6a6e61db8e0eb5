/**
 * What is spoken on `analysts.sock`, between the SQL port's process and the engine's: frames, one request at a time on a
 * connection, which is kept for the next one. A connection that closes ends its statement.
 *
 * A frame: one byte of kind, four bytes of length (big endian), content. A request is one `Q`; its answer is an `H` and any
 * number of `D`, then `E`; or `X` in place of either, an error before or in the middle of a result.
 */
import type { Summary } from './answer.ts'
import { EngineError } from './engine-error.ts'
import type { StatementRequest } from './request.ts'

export type FrameKind = 'Q' | 'H' | 'D' | 'E' | 'X'

/** The content of `Q`, as JSON. */
export interface AnalystRequest extends Omit<StatementRequest, 'session' | 'readonly'> {
  readonly sql: string
}

/** Of `H`, as JSON. */
export interface AnswerHead {
  readonly format: string
}

/** Of `X`, as JSON; of `E` it is a Summary. */
export interface AnswerError {
  readonly code: number
  readonly message: string
}

const HEAD_BYTES = 5
/** The longest text with the most parameters, all of it escaped. Only `D` may be longer: it is passed on as it comes. */
const FRAME_BYTES_MAX = 16 * 1024 * 1024

export function frameHead(kind: FrameKind, bytes: number): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES)
  head[0] = kind.charCodeAt(0)
  head.writeUInt32BE(bytes, 1)
  return head
}

export function frame(kind: FrameKind, content: AnalystRequest | AnswerHead | AnswerError | Summary): Buffer {
  const text = Buffer.from(JSON.stringify(content))
  return Buffer.concat([frameHead(kind, text.length), text])
}

export function errorFrame({ code, message }: EngineError): Buffer {
  return frame('X', { code, message })
}

/** Throws when it is none. */
export function toError(content: Buffer): EngineError {
  const { code, message } = toObject<AnswerError>(content)
  return new EngineError(code, message)
}

/** Throws for a content that is no request: what comes from another process is never taken on trust. */
export function toRequest(content: Buffer): AnalystRequest {
  const asked = JSON.parse(content.toString()) as Partial<Record<keyof AnalystRequest, unknown>> | null
  const isRequest =
    typeof asked?.sql === 'string' &&
    (asked.database === null || typeof asked.database === 'string') &&
    typeof asked.defaultFormat === 'string' &&
    typeof asked.whole === 'boolean' &&
    areSettings(asked.settings) &&
    areSettings(asked.params)
  if (!isRequest) throw new Error('The content of a Q is no request.')
  return asked as unknown as AnalystRequest
}

function areSettings(list: unknown): boolean {
  return Array.isArray(list) && list.every(one => typeof one?.name === 'string' && typeof one.value === 'string')
}

/** The content of an answer's frame. Throws when it is none. */
export function toObject<Content extends AnswerHead | AnswerError | Summary>(content: Buffer): Content {
  const found = JSON.parse(content.toString()) as unknown
  if (typeof found !== 'object' || found === null) throw new Error('The content of a frame is no object.')
  return found as Content
}

/**
 * Takes a stream of bytes apart. `take` is called for each frame in order, for `D` perhaps several times with a part of it.
 * Throws for a frame that is longer than any may be.
 */
export function openFrameReader(take: (kind: string, content: Buffer) => void): (chunk: Buffer) => void {
  let kind = ''
  let missing = 0
  /** The begun head or content of a frame that is not whole yet. */
  let begun: Buffer[] = []
  let begunBytes = 0

  return chunk => {
    let at = 0
    while (at < chunk.length) {
      if (kind === '') at = readHead(chunk, at)
      else at = readContent(chunk, at)
    }
  }

  function readHead(chunk: Buffer, at: number): number {
    const part = chunk.subarray(at, at + HEAD_BYTES - begunBytes)
    const head = begunBytes === 0 ? part : Buffer.concat([...begun, part])
    begun = head.length < HEAD_BYTES ? [head] : []
    begunBytes = head.length < HEAD_BYTES ? head.length : 0
    if (head.length === HEAD_BYTES) {
      kind = String.fromCharCode(head[0] ?? 0)
      missing = head.readUInt32BE(1)
      if (kind !== 'D' && missing > FRAME_BYTES_MAX) throw new Error(`A frame of ${missing} bytes is none.`)
      if (missing === 0) give(Buffer.alloc(0))
    }
    return at + part.length
  }

  function readContent(chunk: Buffer, at: number): number {
    const part = chunk.subarray(at, at + missing)
    missing -= part.length
    if (kind === 'D') {
      take(kind, part)
      if (missing === 0) kind = ''
    } else if (missing === 0) give(begun.length === 0 ? part : Buffer.concat([...begun, part]))
    else begun.push(part)
    return at + part.length
  }

  function give(content: Buffer): void {
    const whole = kind
    kind = ''
    begun = []
    begunBytes = 0
    if (whole !== 'D') take(whole, content)
  }
}
