/**
 * The files of `schema/` as statements for one very place: the database's name, and with a cluster the replicated engines.
 * Pure: text goes in, text comes out.
 *
 * The files are written for a plain server and the databases `telemetry` and `telemetry_internal`, so that they can be read and run as they are.
 */

/** Where the schema goes. */
export interface Layout {
  readonly database: string
  /** Where the tables go that are not for analysts, by `internalOf` (database.ts); `database` itself where they have no database of their own. */
  readonly internal: string
  /** Null: tables that are not replicated. */
  readonly cluster: string | null
}

/** The window of deduplication tokens of each table that an insert reaches, as the schema has it [G2]. */
export const TOKENS_KEPT = 10_000

/** On replicated tables tokens also age; an hour, the servers' own choice, is shorter than an outage may be. */
const TOKENS_KEPT_SECONDS = 604_800

/**
 * A table's place in Keeper. By name and not by `{uuid}`: a replica that joins later, and creates the tables by the same
 * statements, must come to the same place. Servers fill in `{database}` and `{table}`; `{shard}` and `{replica}` are theirs.
 */
const REPLICATED_AT = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"

const OF_PARTS = /^ALTER TABLE \S+ (?:ATTACH|MOVE|REPLACE) PARTITION\b/
const CREATES_DATABASE = /^CREATE DATABASE\b/
const TARGET =
  /^((?:CREATE (?:TABLE|MATERIALIZED VIEW|VIEW) IF NOT EXISTS|CREATE OR REPLACE VIEW|ALTER TABLE|DROP (?:TABLE|VIEW) IF (?:EXISTS|EMPTY)|DETACH TABLE IF EXISTS) telemetry(?:_internal)?\.\w+)/

/** The statements of a file for this layout, without those that create the database itself. */
export function renderStatements(statements: readonly string[], layout: Layout): string[] {
  return statements.filter(sql => !CREATES_DATABASE.test(sql)).map(sql => renderStatement(sql, layout))
}

export function renderStatement(sql: string, { database, internal, cluster }: Layout): string {
  const placed = cluster === null ? sql : replicated(sql, cluster)
  return placed
    .replaceAll(/\btelemetry_internal\./g, `${quoteName(internal)}.`)
    .replaceAll(/\btelemetry\./g, `${quoteName(database)}.`)
    .replaceAll("'telemetry'", `'${database}'`)
}

function replicated(sql: string, cluster: string): string {
  // What happens to the parts of one replica happens on all.
  const everywhere = OF_PARTS.test(sql) ? sql : sql.replace(TARGET, `$1 ON CLUSTER '${cluster}'`)
  return everywhere
    .replaceAll(/\bENGINE = (\w*MergeTree)\b/g, `ENGINE = Replicated$1(${REPLICATED_AT})`)
    .replaceAll(
      /\bnon_replicated_deduplication_window = (\d+)/g,
      `replicated_deduplication_window = $1, replicated_deduplication_window_seconds = ${TOKENS_KEPT_SECONDS}`,
    )
}

/** The statement that creates a database: not of the files, because who may use it may not be one who may create it. */
export function createDatabase(database: string, cluster: string | null): string {
  const everywhere = cluster === null ? '' : ` ON CLUSTER '${cluster}'`
  return `CREATE DATABASE IF NOT EXISTS ${quoteName(database)}${everywhere} ENGINE = Atomic`
}

/** Names are checked when the database is opened; quoted they may also be a word of the language. */
export function quoteName(name: string): string {
  return `\`${name}\``
}

export function unquoted(name: string): string {
  return name.slice(1, -1)
}

/** The statements of a file. A statement ends with ';' at the end of a line; what follows `--` on a line is a comment. */
export function splitStatements(text: string): string[] {
  const statements: string[] = []
  let lines: string[] = []
  for (const line of text.split('\n')) {
    const code = (line.split('--')[0] ?? '').trimEnd()
    if (code === '') continue
    lines.push(code)
    if (!code.endsWith(';')) continue
    statements.push(lines.join('\n').slice(0, -1))
    lines = []
  }
  return statements
}
