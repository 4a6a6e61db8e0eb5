/**
 * What kind of statement an analyst may send, on the engine's own tokens: one that reads, and of SHOW and EXPLAIN what shows
 * nothing of others. Pure. The engine's classifier has said before that it changes nothing.
 */
import { EngineError } from './engine-error.ts'
import { type EngineToken, isName, isWord } from './engine-tokens.ts'

const FIRST = ['SELECT', 'WITH', 'FROM', 'SHOW', 'DESCRIBE', 'DESC', 'EXISTS', 'EXPLAIN']
const QUERY = ['SELECT', 'WITH', 'FROM']

/** What follows SHOW, FULL and EXTENDED left out. Not PROCESSLIST, USERS, GRANTS, CLUSTERS and other facts of the server. */
const SHOWN =
  'TABLES DATABASES DICTIONARIES COLUMNS FIELDS INDEX INDEXES INDICES KEYS CREATE SETTING SETTINGS ENGINES FUNCTIONS'.split(
    ' ',
  )
/** What SHOW CREATE may show, with the word or by a name alone. */
const CREATED = ['TABLE', 'VIEW', 'DATABASE', 'DICTIONARY']

/** The statement without the semicolons at its end. Throws 62 when more follows one, and 164 for a kind that is not open. */
export function judgeShape(all: readonly EngineToken[]): readonly EngineToken[] {
  const end = all.findIndex(({ type }) => type === 'Semicolon')
  const tokens = end < 0 ? all : all.slice(0, end)
  if (end >= 0 && all.slice(end).some(({ type }) => type !== 'Semicolon'))
    throw new EngineError(62, 'Multi-statements are not allowed')
  const shape = refusedShape(tokens)
  if (shape !== null)
    throw new EngineError(164, `Cannot execute query in readonly mode: ${shape} is not open to analysts`)
  return tokens
}

function refusedShape(tokens: readonly EngineToken[]): string | null {
  const [first, second] = tokens
  if (first?.type !== 'OpeningRoundBracket' && !isWord(first, ...FIRST)) return 'a statement that begins like this'
  if (isWord(first, 'SHOW') && !isShowOpen(tokens)) return `SHOW ${second?.text ?? ''}`.trim()
  for (const [at, token] of tokens.entries()) {
    if (isWord(token, 'OUTFILE', 'INFILE') && isWord(tokens[at - 1], 'INTO', 'FROM')) return token.text
    const opens = at === 0 || tokens[at - 1]?.type === 'OpeningRoundBracket'
    if (opens && isWord(token, 'EXPLAIN') && !isExplainOpen(tokens, at + 1))
      return 'EXPLAIN of what is no SELECT, or of a kind other than AST, SYNTAX, QUERY TREE, PLAN, PIPELINE and ESTIMATE,'
  }
  return null
}

/** Formats that take a schema or a template from a file. */
const FORMATS_OF_FILES = /^(?:protobuf|capnproto|template)/i

/** Throws 164 for a format that an analyst cannot have, because nothing of its schema can be chosen here. */
export function refuseFormat(name: string): void {
  if (FORMATS_OF_FILES.test(name))
    throw new EngineError(
      164,
      `FORMAT ${name} takes a schema from a file, which is not open to analysts: take Parquet, Arrow, Avro or JSONEachRow`,
    )
}

/** A statement whose result comes in rows as it is computed. */
export function isQuery(first: EngineToken | undefined): boolean {
  return first?.type === 'OpeningRoundBracket' || isWord(first, ...QUERY)
}

/** The format that a statement names for its result: at its end, or before the SETTINGS that end it. Null for none. */
export function resultFormatOf(tokens: readonly EngineToken[]): string | null {
  const at = tokens.findLastIndex((token, index) => isWord(token, 'FORMAT') && tokens[index - 1]?.type !== 'Dot')
  const name = at < 1 ? undefined : tokens[at + 1]
  const ends = tokens.length === at + 2 || isWord(tokens[at + 2], 'SETTINGS')
  return name?.type === 'BareWord' && ends ? name.text : null
}

function isShowOpen(tokens: readonly EngineToken[]): boolean {
  const at = tokens.findIndex((token, index) => index > 0 && !isWord(token, 'FULL', 'EXTENDED', 'CHANGED', 'TEMPORARY'))
  if (!isWord(tokens[at], ...SHOWN)) return false
  return !isWord(tokens[at], 'CREATE') || isShowCreateOpen(tokens.slice(at + 1))
}

/** Not of users, roles, profiles, policies and the like, which all are two words, or one in the plural. */
function isShowCreateOpen(all: readonly EngineToken[]): boolean {
  const tokens = isWord(all[0], 'TEMPORARY') ? all.slice(1) : all
  if (isWord(tokens[0], ...CREATED)) return true
  const isPlural = isWord(tokens[0], 'USERS', 'ROLES', 'QUOTAS', 'PROFILES', 'POLICIES', 'FUNCTIONS', 'QUOTA', 'USER')
  return (
    isName(tokens[0]) &&
    !isPlural &&
    (tokens[1] === undefined || tokens[1].type === 'Dot' || isWord(tokens[1], 'FORMAT', 'SETTINGS', 'INTO'))
  )
}

/** `[kind] [name = value, …] SELECT …`. The graph of an AST names its nodes by their addresses in memory. */
function isExplainOpen(tokens: readonly EngineToken[], start: number): boolean {
  let at = start
  if (isWord(tokens[at], 'QUERY') && isWord(tokens[at + 1], 'TREE')) at += 2
  else if (isWord(tokens[at], 'AST', 'SYNTAX', 'PLAN', 'PIPELINE', 'ESTIMATE')) at += 1
  while (tokens[at]?.type === 'BareWord' && tokens[at + 1]?.type === 'Equals') {
    if (isWord(tokens[start], 'AST') && isWord(tokens[at], 'GRAPH')) return false
    at += tokens[at + 3]?.type === 'Comma' ? 4 : 3
  }
  return isQuery(tokens[at])
}
