/**
 * Texts in which the engine reads SQL of its own accord, after its lexer has seen a statement: the columns of a table function,
 * whose ALIAS and DEFAULT are expressions, and the aggregate function that `arrayReduce` takes by a text, whose parameters are.
 * Such a text must be written out, so that it can be judged, and hold no expression. Pure.
 */
import { type EngineToken, isName, isWord, nameOf } from './engine-tokens.ts'

/** Their first argument is `name` or `name(numbers)`. */
const BY_AGGREGATE = new Set(['arrayreduce', 'arrayreduceinranges', 'initializeaggregation'])
const AGGREGATE = /^'[A-Za-z_]\w*(?:\([\d\s.,+-]*\))?'$/

/** Their first argument are columns. `values` also takes rows there. */
const BY_COLUMNS = new Set(['values', 'generaterandom', 'null'])
const EXPRESSION = /\b(?:default|alias|materialized|ephemeral)\b/i
/** What may stand there by a bare name: another one may stand for a text. */
const CONSTANTS = ['TRUE', 'FALSE', 'NULL', 'DATE', 'TIMESTAMP', 'INTERVAL', 'NOT']

/**
 * The engine takes `file:` and a path for the name of a time zone, opens it under a lock that every statement needs, and would
 * wait at a pipe for ever. At the head of a text, or of one within a type such as `DateTime('file:…')`.
 */
const ZONE_OF_FILE = /^(?:'|\$\w*\$|\u2018)?file:|['"]file:/

/** A literal, or a value of a parameter, that would name a time zone by a file, whichever of its bytes are escaped. */
export function isZoneOfFile(text: string): boolean {
  const plain = text.replace(/\\x([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return ZONE_OF_FILE.test(plain)
}

/** A name of a function whose text cannot be judged or holds an expression; null when there is none. */
export function refusedText(tokens: readonly EngineToken[]): string | null {
  for (const [at, token] of tokens.entries()) {
    if (isText(token) && isZoneOfFile(token.text))
      return "a text that begins with 'file:', as a time zone of a file would,"
    if (!isName(token)) continue
    const name = nameOf(token)?.toLowerCase() ?? ''
    const called = tokens[at + 1]?.type === 'OpeningRoundBracket'
    if (BY_AGGREGATE.has(name)) {
      // By its bare name it would be called with what nobody has judged.
      if (!called && !isOwnName(tokens, at)) return token.text
      if (called && !isAggregate(tokens, at + 2)) return `${token.text} of anything but 'name' or 'name(numbers)'`
    }
    if (called && BY_COLUMNS.has(name) && !isColumnsOrRow(firstArgument(tokens, at + 2), name === 'values'))
      return `${token.text} with columns that are not written out as names and types`
    // It is a function for texts everywhere else.
    if (called && name === 'format' && isWord(tokens[at - 1], 'DESCRIBE', 'DESC', 'TABLE', 'FROM', 'JOIN'))
      return `${token.text} in the place of a table`
  }
  return null
}

function isOwnName(tokens: readonly EngineToken[], at: number): boolean {
  return tokens[at - 1]?.type === 'Dot' || isWord(tokens[at - 1], 'AS', 'BY')
}

function isAggregate(tokens: readonly EngineToken[], at: number): boolean {
  return AGGREGATE.test(tokens[at]?.text ?? '') && tokens[at + 1]?.type === 'Comma'
}

/** Up to the comma behind it, or to the bracket that ends the call. */
function firstArgument(tokens: readonly EngineToken[], start: number): readonly EngineToken[] {
  let depth = 0
  for (let at = start; at < tokens.length; at++) {
    const type = tokens[at]?.type ?? ''
    if (depth === 0 && (type === 'Comma' || type.startsWith('Closing'))) return tokens.slice(start, at)
    if (type.startsWith('Opening')) depth++
    if (type.startsWith('Closing')) depth--
  }
  return tokens.slice(start)
}

/** The engine takes no computed text for columns of `values`: only a literal, in brackets, or by or with an alias. */
function isColumnsOrRow(argument: readonly EngineToken[], rows: boolean): boolean {
  const inner = argument.findIndex(({ type }) => type !== 'OpeningRoundBracket')
  const [first, second] = argument.slice(Math.max(inner, 0))
  if (first === undefined) return true
  if (!rows) return argument.length === 1 && (first.type === 'Number' || isColumns(first))
  if (first.type === 'OpeningCurlyBrace') return false
  // Cut at its end, an argument holds a comma only in brackets: a tuple, an array, or a call.
  const isTuple = inner > 0 && argument.some(({ type }) => type === 'Comma')
  if (isName(first) && second?.type !== 'OpeningRoundBracket' && !isTuple) return isWord(first, ...CONSTANTS)
  return isTuple || argument.every(token => !isText(token) || isColumns(token))
}

function isText({ type }: EngineToken): boolean {
  return type === 'StringLiteral' || type === 'HereDoc'
}

/** Quotes may be escaped in it, as in `Enum8(\'a\' = 1)`, and nothing else. */
function isColumns({ type, text }: EngineToken): boolean {
  const plain = text.replaceAll("\\'", '')
  return type === 'StringLiteral' && text.startsWith("'") && !plain.includes('\\') && !EXPRESSION.test(text)
}
