/**
 * Errors of the embedded server in ClickHouse's form, `Code: 62. DB::Exception: … (SYNTAX_ERROR)`, with the HTTP status
 * that a ClickHouse server gives them (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp), so that clients tell them apart
 * in the same way.
 */

/** Names of the codes that this server itself answers with. */
const NAMES: Readonly<Record<number, string>> = {
  36: 'BAD_ARGUMENTS',
  48: 'NOT_IMPLEMENTED',
  62: 'SYNTAX_ERROR',
  76: 'CANNOT_OPEN_FILE',
  115: 'UNKNOWN_SETTING',
  159: 'TIMEOUT_EXCEEDED',
  164: 'READONLY',
  202: 'TOO_MANY_SIMULTANEOUS_QUERIES',
  203: 'NO_FREE_CONNECTION',
  210: 'NETWORK_ERROR',
  307: 'TOO_MANY_BYTES',
  372: 'SESSION_NOT_FOUND',
  373: 'SESSION_IS_LOCKED',
  394: 'QUERY_WAS_CANCELLED',
  516: 'AUTHENTICATION_FAILED',
  1001: 'STD_EXCEPTION',
}

const STATUS: ReadonlyMap<number, number> = new Map([
  ...statusOf(400, [6, 26, 27, 36, 38, 41, 43, 53, 62, 69, 70, 72, 117, 169, 354, 395, 448, 561]),
  [194, 401],
  ...statusOf(403, [164, 192, 193, 291, 497, 516]),
  ...statusOf(404, [46, 47, 50, 56, 60, 73, 81, 115, 372]),
  [159, 408],
  ...statusOf(413, [307]),
  [48, 501],
  ...statusOf(503, [202, 203, 209, 210, 373]),
])

export class EngineError extends Error {
  readonly code: number
  readonly status: number

  constructor(code: number, message: string) {
    super(
      /^Code: \d+/.test(message)
        ? message
        : `Code: ${code}. DB::Exception: ${message}. (${NAMES[code] ?? 'STD_EXCEPTION'})`,
    )
    this.name = 'EngineError'
    this.code = code
    this.status = STATUS.get(code) ?? 500
  }
}

/** The body of a request cannot be read: what of it is still to come is not waited for. */
export class BodyError extends EngineError {
  constructor(detail: string) {
    super(36, `The body cannot be read: ${detail}`)
  }
}

/** What the engine threw, by the code at the head of its message. */
export function toEngineError(error: unknown): EngineError {
  if (error instanceof EngineError) return error
  const message = unwrapped((error instanceof Error ? error.message : String(error)).trim())
  return new EngineError(Number(/Code: (\d+)/.exec(message)?.[1] ?? 1001), message)
}

/** Of an error of a result's format, which the engine hands on wrapped in its own head and tail, the innermost. */
function unwrapped(message: string): string {
  return message
    .replace(/^(?:Code: \d+\. DB::\w+: )+(?=Code: \d+\. DB::)/, '')
    .replace(/(\. \(\w+\))(?: \(version [\d.]+\)\. \(\w+\))+$/, '$1')
}

function statusOf(status: number, codes: readonly number[]): [number, number][] {
  return codes.map(code => [code, status])
}
