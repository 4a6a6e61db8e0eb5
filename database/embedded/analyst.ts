/**
 * What an analyst may run. Anyone who reaches the port is an analyst, so this is the wall before the disk and the network.
 *
 * Three layers, each for what the others let through (each was tried; test/database/analyst.test.ts holds the matrix):
 * 1. the engine's parser: one statement, and only one that reads (no INTO OUTFILE, SYSTEM, KILL, SET);
 * 2. the engine's lexer: no name that reaches files, the network or other engines. `readonly` does not stop the function
 *    `file('/etc/passwd')`, nor what DESCRIBE of a table function reads to infer its columns;
 * 3. `SET readonly = 1` on the connection, after the limits and the allowed settings.
 */

import type { EngineConnection } from './engine.ts'
import { EngineError } from './engine-error.ts'
import { firstWord } from './sql-text.ts'

/** Kinds of a statement as the engine's classifier numbers them. */
export const READS = 0
const UNKNOWN = 4

/** Limits of one analyst query; a client may set smaller ones. */
export interface AnalystLimits {
  readonly secondsMax: number
  readonly memoryBytesMax: number
  readonly threadsMax: number
  /** Of a result in a format that can only be sent whole. */
  readonly resultBytesMax: number
}

/** Table functions that read nothing but the database itself. Every other one that the engine has is refused. */
const TABLE_FUNCTIONS_ALLOWED = new Set(
  'numbers numbers_mt zeros zeros_mt generaterandom generateseries generate_series values view merge null format'.split(
    ' ',
  ),
)

/**
 * Functions, also without brackets (`arrayMap(file, …)`, `APPLY file`), and the overlay database that opens files by name.
 * `hasColumnInTable` takes that database as a text, and its errors tell whether a file exists.
 */
const NAMES_REFUSED =
  /^(?:file|default|hascolumnintable|catboostevaluate|ai(?:classify|embed|extract|generate|translate))$/i

/** What a parameter of the type Identifier may be: a name that needs no quotes, and so no path. */
const PLAIN_NAME = /^[A-Za-z_]\w*$/

/** Settings of the form of results and of joins, and smaller limits; never one that names a file, a schema or a template. */
const SETTINGS_ALLOWED =
  /^(?:(?:output_format|date_time_output_format|format_csv|format_tsv|bool_(?:true|false)_representation|decimal_)\w*|max_(?:threads|block_size|rows_to_read|bytes_to_read|result_rows|result_bytes|execution_time|memory_usage|rows_to_group_by|rows_in_join)|\w+_overflow_mode|extremes|limit|offset|final|join_use_nulls|join_default_strictness|any_join_distinct_right_table_keys|session_timezone|use_client_time_zone|log_comment|group_by_use_nulls|prefer_column_name_to_alias|enable_optimize_predicate_expression|optimize_\w+|timeout_before_checking_execution_speed|use_query_cache|cross_to_inner_join_rewrite|asterisk_include_\w+|empty_result_for_aggregation_by_\w+|transform_null_in|allow_experimental_analyzer|enable_analyzer)$/
const SETTINGS_REFUSED = /schema|path|file|template|resultset|avro/

export interface Setting {
  readonly name: string
  readonly value: string
}

/**
 * The settings of an analyst's connection: those asked for that are allowed, cut to the limits. Throws 164 for any other,
 * as a server does for a read-only user.
 */
export function analystSettings(asked: readonly Setting[], limits: AnalystLimits): Setting[] {
  for (const { name } of asked) {
    if (!SETTINGS_ALLOWED.test(name) || SETTINGS_REFUSED.test(name)) {
      throw new EngineError(164, `Cannot modify '${name}' setting in readonly mode`)
    }
  }
  const caps = new Map([
    ['max_execution_time', limits.secondsMax],
    ['max_memory_usage', limits.memoryBytesMax],
    ['max_threads', limits.threadsMax],
    ['max_temporary_data_on_disk_size_for_query', limits.memoryBytesMax],
  ])
  const free = asked.filter(({ name }) => !caps.has(name))
  const capped = [...caps].map(([name, cap]) => ({
    name,
    value: String(smaller(asked.findLast(one => one.name === name)?.value, cap)),
  }))
  return [...free, ...capped]
}

/** In these settings 0 means no limit, so it is the greatest. */
function smaller(asked: string | undefined, cap: number): number {
  const value = Number(asked)
  return value > 0 && value < cap ? value : cap
}

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

/** Throws 164 unless the statement is one that an analyst may run. Sends nothing of it to execution. */
export async function admitAnalyst(
  connection: EngineConnection,
  { sql, params }: AskedStatement,
  tableFunctions: ReadonlySet<string>,
): Promise<void> {
  const classified = await connection.classify(sql)
  if (classified?.kind === UNKNOWN) await throwSyntaxError(connection, sql)
  const reads = classified === null ? readsByText(sql) : classified.statements === 1 && classified.kind === READS
  if (!reads) throw new EngineError(164, 'Cannot execute query in readonly mode')
  const tokens = await tokenize(connection, sql)
  const refused = refusedName(tokens, tableFunctions) ?? refusedParameter(tokens, params)
  if (refused !== null) {
    throw new EngineError(164, `Cannot execute query in readonly mode: the name ${refused} is not open to analysts`)
  }
}

/** The engine's own words on a text that is no statement, without running any of it. */
async function throwSyntaxError(connection: EngineConnection, sql: string): Promise<void> {
  await connection.run(`SELECT formatQuery(${quote(sql)})`)
}

/** For a build of the engine without its classifier: the first word, no second statement, no way out into a file. */
export function readsByText(sql: string): boolean {
  const word = firstWord(sql)
  return (
    /^(?:SELECT|WITH|FROM|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|\()$/.test(word) &&
    !sql.replace(/[;\s]+$/, '').includes(';') &&
    !/\bOUTFILE\b/i.test(sql)
  )
}

/** A token as the engine's own lexer cuts it. */
export interface EngineToken {
  readonly text: string
  readonly type: string
}

/** The statement travels as a literal: it is cut into tokens, not run. */
async function tokenize(connection: EngineConnection, sql: string): Promise<EngineToken[]> {
  const { bytes } = await connection.run(`SELECT tokenizeQuery(${quote(sql)}) FORMAT JSONCompactEachRow`)
  const [tokens] = JSON.parse(bytes.toString()) as [{ begin: number; end: number; type: string }[]]
  const text = Buffer.from(sql)
  return tokens
    .map(({ begin, end, type }) => ({ text: text.subarray(begin, end).toString(), type }))
    .filter(({ type }) => type !== 'Whitespace' && type !== 'Comment')
}

/** The first name that an analyst may not use; null when there is none. Pure. */
export function refusedName(tokens: readonly EngineToken[], tableFunctions: ReadonlySet<string>): string | null {
  for (const [at, { text, type }] of tokens.entries()) {
    if (type !== 'BareWord' && type !== 'QuotedIdentifier') continue
    const name = type === 'BareWord' ? text : unquoted(text)
    // An escape could spell any name.
    if (name === null) return text
    const called = tokens[at + 1]?.type === 'OpeningRoundBracket'
    const lower = name.toLowerCase()
    if (NAMES_REFUSED.test(name) || (called && tableFunctions.has(lower) && !TABLE_FUNCTIONS_ALLOWED.has(lower)))
      return text
  }
  return null
}

/**
 * The first parameter that would put a name into the statement that an analyst may not use: `{name:Identifier}` is replaced
 * after the lexer has seen the text. Null when there is none. Pure.
 */
export function refusedParameter(tokens: readonly EngineToken[], params: readonly Setting[]): string | null {
  for (const [at, { text }] of tokens.entries()) {
    if (text !== '{' || tokens[at + 2]?.text !== ':' || !/identifier/i.test(tokens[at + 3]?.text ?? '')) continue
    const name = tokens[at + 1]?.text ?? ''
    const values = params.filter(one => one.name === `param_${name}`).map(({ value }) => value)
    if (!values.every(value => PLAIN_NAME.test(value) && !NAMES_REFUSED.test(value))) return `{${name}:Identifier}`
  }
  return null
}

/** A quoted name without its quotes, which may be of more than one byte; null when it holds an escape. */
function unquoted(text: string): string | null {
  const inner = [...text].slice(1, -1).join('')
  return /[\\`"]/.test(inner) ? null : inner
}

/** A text as a literal of SQL. */
export function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\0', '\\0')}'`
}
