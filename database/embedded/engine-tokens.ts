/**
 * A statement cut into tokens by the engine's own lexer: what is judged is cut as what is run. Blanks and comments of every
 * form that the engine knows are left out; what its lexer cannot name is refused, because it could not be judged.
 */
import type { EngineConnection } from './engine.ts'
import { EngineError } from './engine-error.ts'

/** A token as the engine's own lexer cuts it. */
export interface EngineToken {
  readonly text: string
  readonly type: string
}

/** With its place in the text, in bytes. */
export interface PlacedToken extends EngineToken {
  readonly begin: number
  readonly end: number
}

/** The engine's `max_query_size`. A statement runs with a mark of 39 bytes before it (`cancel.ts`). */
const QUERY_BYTES_MAX = 256 * 1024
const MARK_BYTES = 64

/** Of one statement, and of what the engine's answer about them may have: both are looked through in the loop that serves all. */
const TOKENS_MAX = 50_000
const ANSWER_BYTES_MAX = TOKENS_MAX * 80

/** All that the lexer gives for text that it understands; `Error…`, `\G` and what a later version may add are not here. */
const TYPES = new Set(
  (
    'BareWord Number StringLiteral QuotedIdentifier HereDoc OpeningRoundBracket ClosingRoundBracket OpeningSquareBracket ' +
    'ClosingSquareBracket OpeningCurlyBrace ClosingCurlyBrace Comma Semicolon Dot Asterisk Plus Minus Slash Percent Arrow ' +
    'QuestionMark Colon DoubleColon Caret Equals NotEquals Less Greater LessOrEquals GreaterOrEquals Spaceship PipeMark ' +
    'Concatenation At DoubleAt'
  ).split(' '),
)
const LEFT_OUT = new Set(['Whitespace', 'Comment'])

/**
 * The statement travels as a literal: it is cut into tokens, not run. Throws 307 when it is too long to be judged, and 62
 * when it holds a token that the engine does not know.
 */
export async function tokenize(connection: EngineConnection, sql: string): Promise<PlacedToken[]> {
  if (sql.includes('\0')) throw new EngineError(62, 'Syntax error: a statement with a NUL character cannot be judged')
  const query = `SELECT tokenizeQuery(${quote(sql)}) FORMAT JSONCompactEachRow`
  if (Buffer.byteLength(query) > QUERY_BYTES_MAX - MARK_BYTES) {
    throw new EngineError(307, `The text of a statement is longer than can be judged, about ${QUERY_BYTES_MAX} bytes`)
  }
  const { bytes } = await connection.run(query)
  if (bytes.length > ANSWER_BYTES_MAX) throw tooManyTokens()
  const [tokens] = JSON.parse(bytes.toString()) as [{ begin: number; end: number; type: string }[]]
  const textOf = partsOf(sql)
  const kept = tokens
    .filter(({ type }) => !LEFT_OUT.has(type))
    .map(({ begin, end, type }) => ({ text: textOf(begin, end), type, begin, end }))
  if (kept.length > TOKENS_MAX) throw tooManyTokens()
  const odd = kept.find(({ type }) => !TYPES.has(type))
  if (odd !== undefined) throw new EngineError(62, `Syntax error: what begins with ${shown(odd.text)} cannot be judged`)
  return kept
}

function tooManyTokens(): EngineError {
  return new EngineError(
    307,
    `The statement has more than ${TOKENS_MAX} words, names, values and signs: send it in parts`,
  )
}

/** Pieces of a text by their places in bytes, which for most texts are those of its characters. */
function partsOf(sql: string): (begin: number, end: number) => string {
  const bytes = Buffer.from(sql)
  if (bytes.length === sql.length) return (begin, end) => sql.slice(begin, end)
  return (begin, end) => bytes.subarray(begin, end).toString()
}

/** For an error: short, and without characters that a terminal would act on. */
function shown(text: string): string {
  return JSON.stringify(text.slice(0, 32)).replace(/[^\x20-\x7e]/g, '?')
}

export function isWord(token: EngineToken | undefined, ...words: readonly string[]): boolean {
  return token?.type === 'BareWord' && words.includes(token.text.toUpperCase())
}

export function isName(token: EngineToken | undefined): token is EngineToken {
  return token?.type === 'BareWord' || token?.type === 'QuotedIdentifier'
}

/** The name that a token spells; null when an escape in its quotes could spell any other. */
export function nameOf({ text, type }: EngineToken): string | null {
  if (type === 'BareWord') return text
  // Quotes may be of more than one byte.
  const inner = [...text].slice(1, -1).join('')
  return /[\\`"\u201c\u201d]/.test(inner) ? null : inner
}

/** A text as a literal of SQL. */
export function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\0', '\\0')}'`
}
