/**
 * Just enough of ClickHouse's lexer to see the shape of a statement: where an INSERT's data begins, and the FORMAT of a
 * result. Pure. Nothing here decides who may do what: that is `analyst.ts`, with the engine's own lexer and parser.
 */

export interface Token {
  readonly kind: 'word' | 'quoted' | 'string' | 'punctuation'
  readonly text: string
  readonly start: number
  readonly end: number
}

/** An INSERT whose data follows its text, or comes as a body. */
export interface InsertStatement {
  /** Up to the table and its columns. */
  readonly head: string
  /** `SETTINGS …`, or empty. */
  readonly settings: string
  readonly format: string
  /** Where the data begins in the text; its length when there is none. */
  readonly dataAt: number
}

const SKIP = /(?:\s+|--[^\n]*|#[ !][^\n]*|\/\*[\s\S]*?\*\/)*/y
const STRING = /'(?:[^'\\]|\\[\s\S]|'')*'/y
const QUOTED = /"(?:[^"\\]|\\[\s\S]|"")*"|`(?:[^`\\]|\\[\s\S]|``)*`/y
const WORD = /[A-Za-z_0-9$]+/y
const PATTERNS = { string: STRING, quoted: QUOTED, word: WORD } as const

/**
 * The token at or after `at`; null at the end of the text. What is opened and never closed ends the text, too: looking for
 * its end again at each further quote would take quadratic time.
 */
export function nextToken(sql: string, at: number): Token | null {
  const start = matchAt(SKIP, sql, at)
  if (start >= sql.length || sql.startsWith('/*', start)) return null
  const kind = kindAt(sql.charAt(start))
  const end = kind === 'punctuation' ? start + 1 : matchAt(PATTERNS[kind], sql, start)
  return end === start ? null : { kind, text: sql.slice(start, end), start, end }
}

function kindAt(char: string): Token['kind'] {
  if (char === "'") return 'string'
  if (char === '"' || char === '`') return 'quoted'
  return /[A-Za-z_0-9$]/.test(char) ? 'word' : 'punctuation'
}

/** The INSERT with data that a text begins with; null for INSERT … SELECT and for everything else. */
export function parseInsert(sql: string): InsertStatement | null {
  let token = nextToken(sql, 0)
  if (!isWord(token, 'INSERT')) return null
  token = nextToken(sql, token.end)
  if (isWord(token, 'INTO')) token = nextToken(sql, token.end)
  if (isWord(token, 'TABLE')) token = nextToken(sql, token.end)
  const target = skipTarget(sql, token)
  if (target === null) return null
  let at = target.next
  let settings = ''
  if (isWord(at, 'SETTINGS')) {
    const from = at.start
    while (at !== null && !isWord(at, 'FORMAT') && !isWord(at, 'VALUES') && !isWord(at, 'SELECT'))
      at = nextToken(sql, at.end)
    settings = sql.slice(from, at?.start ?? sql.length).trim()
  }
  const head = sql.slice(0, target.end)
  if (isWord(at, 'VALUES')) return { head, settings, format: 'Values', dataAt: at.end }
  if (!isWord(at, 'FORMAT')) return null
  const format = nextToken(sql, at.end)
  if (format?.kind !== 'word') return null
  return { head, settings, format: format.text, dataAt: skipLineEnd(sql, format.end) }
}

/** The name and the optional columns of the table; null for a table function or what is no name. */
function skipTarget(sql: string, first: Token | null): { end: number; next: Token | null } | null {
  let name = first
  if (isWord(name, 'FUNCTION')) return null
  for (;;) {
    if (name === null || (name.kind !== 'word' && name.kind !== 'quoted')) return null
    const dot = nextToken(sql, name.end)
    if (dot?.text !== '.') return skipColumns(sql, name.end, dot)
    name = nextToken(sql, dot.end)
  }
}

function skipColumns(sql: string, end: number, first: Token | null): { end: number; next: Token | null } | null {
  if (first?.text !== '(') return { end, next: first }
  let depth = 0
  for (let token: Token | null = first; token !== null; token = nextToken(sql, token.end)) {
    if (token.text === '(') depth++
    else if (token.text === ')' && --depth === 0) return { end: token.end, next: nextToken(sql, token.end) }
  }
  return null
}

/** Blanks, an optional semicolon and one line end stand between the name of a format and the data. */
function skipLineEnd(sql: string, at: number): number {
  return matchAt(/[ \t]*;?[ \t]*(?:\r?\n)?/y, sql, at)
}

/** The FORMAT that a query names for its result, outside of all brackets; null when it names none. */
export function resultFormat(sql: string): string | null {
  let depth = 0
  let format: string | null = null
  for (let token = nextToken(sql, 0); token !== null; token = nextToken(sql, token.end)) {
    if (token.text === '(') depth++
    else if (token.text === ')') depth--
    else if (depth === 0 && isWord(token, 'FORMAT')) {
      const name = nextToken(sql, token.end)
      if (name?.kind === 'word') format = name.text
    }
  }
  return format
}

/**
 * The text of a statement from its bytes, without blanks around it and semicolons at its end. Null when the bytes are not
 * UTF-8: what would then be run is not what was sent. One pass: a pattern for the end takes quadratic time on many blanks.
 */
export function statementText(inAddress: string, body: Uint8Array): string | null {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body)
  } catch {
    return null
  }
  const both = (inAddress === '' || text === '' ? inAddress + text : `${inAddress}\n${text}`).trim()
  let end = both.length
  while (end > 0 && (both[end - 1] === ';' || both.charAt(end - 1).trim() === '')) end--
  return both.slice(0, end)
}

/** The first word of a statement, in capitals; empty when it begins with none. */
export function firstWord(sql: string): string {
  const token = nextToken(sql, 0)
  return token?.kind === 'word' ? token.text.toUpperCase() : (token?.text ?? '')
}

function isWord(token: Token | null, word: string): token is Token & { kind: 'word' } {
  return token !== null && token.kind === 'word' && token.text.toUpperCase() === word
}

function matchAt(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : at
}
