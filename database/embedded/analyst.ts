/**
 * What an analyst may run. Anyone who reaches the port is an analyst, so this is the wall before the disk and the network.
 *
 * Layers, each for what the others let through (each was tried; test/database/analyst.test.ts and test/database/reach hold
 * what was found to get around one):
 * 1. the engine's parser: one statement, and only one that reads (no INTO OUTFILE, SYSTEM, KILL, SET);
 * 2. the engine's lexer: no kind of statement (`analyst-shape.ts`) and no name (`analyst-names.ts`) that reaches files, the
 *    network, other engines or other people, and SETTINGS as the outermost clause only (`analyst-settings.ts`): in a
 *    subquery it escapes `readonly`, which also does not stop the function `file('/etc/passwd')`;
 * 3. `SET readonly = 1` on the connection, after the limits and the allowed settings.
 */

import { refusedName, withoutHostName } from './analyst-names.ts'
import { clauseSettings, type Setting } from './analyst-settings.ts'
import { isQuery, judgeShape, resultFormatOf } from './analyst-shape.ts'
import { isZoneOfFile, refusedText } from './analyst-texts.ts'
import type { EngineConnection } from './engine.ts'
import { EngineError, toEngineError } from './engine-error.ts'
import { type EngineToken, isName, nameOf, quote, tokenize } from './engine-tokens.ts'
import { firstWord } from './sql-text.ts'

/** Kinds of a statement as the engine's classifier numbers them. */
const READS = 0
const UNKNOWN = 4

/** What a parameter of the type Identifier may be: a name that needs no quotes, and so no path. */
const PLAIN_NAME = /^[A-Za-z_]\w{0,127}$/

/** Judged texts that are kept, so that a dashboard's queries are judged once: in number and in characters of all. */
const KEPT_MAX = 512
const KEPT_CHARS_MAX = 1024 * 1024

/** Names of the engine's table functions, in small letters. Asked once, at start. */
export async function readTableFunctions(connection: EngineConnection): Promise<Set<string>> {
  const { bytes } = await connection.run('SELECT lower(name) FROM system.table_functions')
  return new Set(bytes.toString().trim().split('\n'))
}

/** A statement and the values of its parameters, each by its name with `param_` before it. */
export interface AskedStatement {
  readonly sql: string
  readonly params: readonly Setting[]
}

/** What admission found in a statement that may run. */
export interface Admitted {
  /** The text that was judged, and that is to be run. */
  readonly sql: string
  /** Of its own SETTINGS clause: to be set before the connection becomes read-only, which then lets the clause pass. */
  readonly clause: readonly Setting[]
  /** That it names for its result; null when it names none. */
  readonly format: string | null
  /** A query, whose result may be sent while it is computed. */
  readonly streams: boolean
}

export interface Admission {
  /** Throws 164, 62 or 307 unless the statement is one that an analyst may run. Sends nothing of it to execution. */
  admit(connection: EngineConnection, statement: AskedStatement): Promise<Admitted>
}

export function openAdmission(tableFunctions: ReadonlySet<string>): Admission {
  const kept = new Map<string, Admitted>()
  let keptChars = 0
  return { admit }

  async function admit(connection: EngineConnection, { sql: asked, params }: AskedStatement): Promise<Admitted> {
    // Whatever the text is: a judged one is kept without the values of its parameters.
    const path = params.find(({ value }) => isZoneOfFile(value))
    if (path !== undefined) throw notOpen(`${path.name} of a text that begins with 'file:'`)
    const known = kept.get(asked)
    if (known !== undefined) return known
    const cut = await tokenize(connection, asked)
    const sql = withoutHostName(asked, cut)
    await refuseUnlessRead(connection, sql)
    const tokens = judgeShape(sql === asked ? cut : await tokenize(connection, sql))
    const named = withNames(tokens, params)
    const refused = refusedName(named, tableFunctions) ?? refusedText(named)
    if (refused !== null) throw notOpen(refused)
    const [format, streams] = [resultFormatOf(tokens), isQuery(tokens[0])]
    const admitted = { sql, clause: clauseSettings(tokens), format, streams }
    // With names among its parameters a text is another statement each time.
    if (named === tokens) keep(asked, admitted)
    return admitted
  }

  function keep(asked: string, admitted: Admitted): void {
    // Judged twice at one time: counted once.
    if (kept.has(asked)) return
    kept.set(asked, admitted)
    keptChars += asked.length
    for (const [oldest] of kept) {
      if (kept.size <= KEPT_MAX && keptChars <= KEPT_CHARS_MAX) return
      kept.delete(oldest)
      keptChars -= oldest.length
    }
  }
}

/** Throws 164 unless the text is one statement, and one that only reads; 62 when it is none. */
export async function refuseUnlessRead(connection: EngineConnection, sql: string): Promise<void> {
  const classified = await connection.classify(sql)
  if (classified?.kind === UNKNOWN) await throwSyntaxError(connection, sql)
  const reads = classified === null ? readsByText(sql) : classified.statements === 1 && classified.kind === READS
  if (classified !== null && classified.statements > 1)
    throw new EngineError(62, 'Multi-statements are not allowed: send each in a request of its own')
  if (!reads)
    throw new EngineError(
      164,
      'Cannot execute query in readonly mode: only SELECT, SHOW, DESCRIBE, EXISTS and EXPLAIN are open here, settings in the ' +
        'address or as SETTINGS at the end, and tables as telemetry.readings',
    )
}

/** The engine's own words on a text that is no statement, without running any of it. */
async function throwSyntaxError(connection: EngineConnection, sql: string): Promise<void> {
  await connection.run(`SELECT formatQuery(${quote(sql)})`).catch((error: unknown) => {
    // The question that was asked of the engine is not the analyst's.
    const { code, message } = toEngineError(error)
    throw new EngineError(code, message.replace(/: In scope SELECT formatQuery\('[\s\S]*'\)(?=\. \(\w+\)$)/, ''))
  })
}

/** For a build of the engine without its classifier: the first word, no second statement, no way out into a file. */
export function readsByText(sql: string): boolean {
  const word = firstWord(sql)
  return (
    /^(?:SELECT|WITH|FROM|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|\()$/.test(word) &&
    !sql.replace(/;\s*$/, '').includes(';') &&
    !/\bOUTFILE\b/i.test(sql)
  )
}

/**
 * The tokens as they are when `{name:Identifier}` is replaced by its value, which the engine does after its lexer has seen the
 * text. Throws 164 for a value that is no plain name. The very same tokens when there is none of that type. Pure.
 */
export function withNames(tokens: readonly EngineToken[], params: readonly Setting[]): readonly EngineToken[] {
  /** Null for a name that has more than one. */
  const values = new Map<string, string | null>()
  for (const { name, value } of params) values.set(name, values.has(name) ? null : value)
  const named: EngineToken[] = []
  let from = 0
  for (const [at, { type }] of tokens.entries()) {
    const [name, colon, kind, end] = tokens.slice(at + 1, at + 5)
    if (type !== 'OpeningCurlyBrace' || colon?.type !== 'Colon' || !/^\W?identifier\W?$/i.test(kind?.text ?? ''))
      continue
    const key = isName(name) ? nameOf(name) : null
    const value = values.get(`param_${key}`)
    const plain = value === undefined || (value !== null && PLAIN_NAME.test(value))
    if (key === null || end?.type !== 'ClosingCurlyBrace' || !plain) throw notOpen(`{${name?.text ?? ''}:Identifier}`)
    for (const token of tokens.slice(from, at)) named.push(token)
    named.push({ text: `\`${value ?? ''}\``, type: 'QuotedIdentifier' })
    from = at + 5
  }
  return from === 0 ? tokens : [...named, ...tokens.slice(from)]
}

function notOpen(name: string): EngineError {
  const instead = /^\w+$/.test(name) ? `; a column of that name is written behind a dot, as t.${name}` : ''
  return new EngineError(
    164,
    `Cannot execute query in readonly mode: the name ${name} is not open to analysts${instead}`,
  )
}
