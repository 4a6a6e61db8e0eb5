/**
 * Names that are not open to analysts: what reaches files, the network or other engines, what tells of the machine, and what
 * shows surgetank's own tables or the statements of others.
 *
 * Judged on the engine's own tokens, so quotes, letter case, blanks and comments make no difference. A name is judged in its
 * place: `errors` behind `system.` is a table, elsewhere it may name a column.
 */
import { EngineError } from './engine-error.ts'
import { type EngineToken, isName, isWord, nameOf, type PlacedToken } from './engine-tokens.ts'

function words(...lines: readonly string[]): ReadonlySet<string> {
  return new Set(lines.flatMap(line => line.split(' ')))
}

/** Table functions that read nothing but the database itself. Every other one that the engine has is refused. */
const TABLE_FUNCTIONS_ALLOWED = words(
  'numbers numbers_mt zeros zeros_mt generaterandom generateseries generate_series primes values view null format merge',
)
/** Of the parser, and in no list of the engine. */
const TABLE_FUNCTIONS_UNLISTED = words('kql python arrow pandas')

/**
 * Functions that are refused as any name, called or not: `arrayMap(file, …)` and `APPLY file` call them without brackets.
 * `hasColumnInTable`, `joinGet` and `dictGet…` take a database and a table as text; `naiveBayes…` a dictionary.
 */
const FUNCTIONS_REFUSED =
  /^(?:file|hascolumnintable|joinget(?:ornull)?|dict(?:get\w*|has|isin)|catboostevaluate|naivebayesclassifier\w*|ai(?:classify|embed|extract|generate|translate)|addressto(?:line|symbol)\w*|demangle|flamegraph\w*|getmacro|getserver(?:port|setting)|getclienthttpheader|showcertificate|logtrace|generateserialid|region(?:to\w+|in|hierarchy)|filesystem(?:available|capacity|unreserved)|__\w+)$/

/** Functions that take nothing, so that nothing calls them without brackets; their names may be names of columns. */
const FACTS_OF_THE_MACHINE = words(
  'hostname fullhostname fqdn displayname getoskernelversion serveruuid buildid tcpport zookeepersessionuptime tid',
  'transactionid transactionlatestsnapshot transactionoldestsnapshot hasthreadfuzzer',
)

/** Clients ask these on connect (clickhouse-go's first statement is `SELECT displayName(), …`), so they are answered. */
const NAMES_OF_THE_HOST = words('hostname fullhostname fqdn displayname')
const SHOWN_HOST = "'surgetank'"

/**
 * Tables of `system` that clients and people read to find their way: what there is, and how it is stored. Not those that show
 * statements or errors of others, users, hosts, and what the machine has and does.
 */
export const SYSTEM_TABLES_ALLOWED = words(
  'tables columns databases settings functions formats data_type_families table_functions table_engines database_engines',
  'aggregate_function_combinators collations contributors keywords licenses time_zones codecs tokenizers unicode',
  'dictionaries dictionary_layouts data_skipping_indices data_skipping_index_types projections constraints',
  'parts parts_columns projection_parts projection_parts_columns merge_tree_settings settings_changes storage_policies',
  'current_roles enabled_roles privileges one numbers numbers_mt zeros zeros_mt primes',
)

/** Databases in which an analyst's statement may begin. The overlay `default`, which opens files by name, stands for `telemetry`. */
const DATABASES = words('telemetry information_schema INFORMATION_SCHEMA')

/**
 * The database to begin in, of the one that a client names. Null: none was named, or `default`, which is what clients say when
 * they mean none. Throws 164 for `system` and all others: a bare name would open their tables.
 */
export function analystDatabase(asked: string | null): string | null {
  if (asked === null || asked === '' || asked === 'default') return null
  if (DATABASES.has(asked)) return asked
  throw new EngineError(
    164,
    'An analyst begins in the database telemetry; name tables of others with their database, as system.tables',
  )
}

/**
 * The statement with a fixed name in the place of each `hostName()`, which would tell the machine's. The very same text when
 * there is none. It is this text that is judged and run.
 */
export function withoutHostName(sql: string, tokens: readonly PlacedToken[]): string {
  const bytes = Buffer.from(sql)
  const parts: string[] = []
  let from = 0
  for (const [at, token] of tokens.entries()) {
    const [open, close] = tokens.slice(at + 1, at + 3)
    if (open?.type !== 'OpeningRoundBracket' || close?.type !== 'ClosingRoundBracket' || !isName(token)) continue
    if (!NAMES_OF_THE_HOST.has(nameOf(token)?.toLowerCase() ?? '')) continue
    parts.push(bytes.subarray(from, token.begin).toString(), SHOWN_HOST)
    from = close.end
  }
  return from === 0 ? sql : parts.join('') + bytes.subarray(from).toString()
}

const COMPARES = words('Comma Equals NotEquals Less Greater LessOrEquals GreaterOrEquals')

/** The first name that an analyst may not use, as it is written; null when there is none. Pure. */
export function refusedName(tokens: readonly EngineToken[], tableFunctions: ReadonlySet<string>): string | null {
  for (const [at, token] of tokens.entries()) {
    if (!isName(token)) continue
    const name = nameOf(token)?.toLowerCase()
    // An escape could spell any name.
    if (name === undefined) return token.text
    if (name === 'system' && tokens[at + 1]?.type === 'Dot') {
      if (!isOpenTable(tokens[at + 2])) return `${token.text}.${tokens[at + 2]?.text ?? ''}`
    } else if (isRefused(name, tokens, at, tableFunctions)) return token.text
  }
  return null
}

function isRefused(
  name: string,
  tokens: readonly EngineToken[],
  at: number,
  tableFunctions: ReadonlySet<string>,
): boolean {
  if (name === 'telemetry_internal') return true
  if (name === 'default') return !(isOwnName(tokens, at) || isColumn(tokens, at)) || tokens[at + 1]?.type === 'Dot'
  const called = tokens[at + 1]?.type === 'OpeningRoundBracket'
  if (FUNCTIONS_REFUSED.test(name)) return called || !isOwnName(tokens, at)
  if (!called) return false
  if (name === 'merge') return !isOfTelemetry(tokens, at)
  return (
    FACTS_OF_THE_MACHINE.has(name) ||
    TABLE_FUNCTIONS_UNLISTED.has(name) ||
    (tableFunctions.has(name) && !TABLE_FUNCTIONS_ALLOWED.has(name))
  )
}

function isOpenTable(token: EngineToken | undefined): boolean {
  if (!isName(token)) return false
  const name = nameOf(token)
  return name !== null && SYSTEM_TABLES_ALLOWED.has(name)
}

/** Where a name can only be one that the statement itself gives: an alias, a column behind a dot, a key of ORDER BY. */
function isOwnName(tokens: readonly EngineToken[], at: number): boolean {
  const before = tokens[at - 1]
  return before?.type === 'Dot' || isWord(before, 'AS', 'BY')
}

/**
 * Where a name without a dot behind it names a column, and never a database, as in `SELECT name, default FROM system.settings`.
 * Not for functions: `APPLY` and higher-order ones call them by name in such places, too.
 */
function isColumn(tokens: readonly EngineToken[], at: number): boolean {
  const before = tokens[at - 1]
  return COMPARES.has(before?.type ?? '') || isWord(before, 'SELECT', 'DISTINCT', 'WHERE', 'AND', 'OR')
}

/** `merge` takes tables of any database by a pattern: only `merge('telemetry', …)` stays within what is open. */
function isOfTelemetry(tokens: readonly EngineToken[], at: number): boolean {
  return tokens[at + 2]?.text === "'telemetry'" && tokens[at + 3]?.type === 'Comma'
}
