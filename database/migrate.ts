/**
 * Brings the schema of ClickHouse to this version: the files of `schema/`, in order of their numbers.
 *
 * Each statement may run again (IF NOT EXISTS), so a migration that was killed half-way, or that two processes run at
 * once, ends in the same schema; `telemetry.migrations` is written last, and the same version twice there means once.
 * The windows of tokens are set at every start: a kill while they were being emptied would leave them at none [G2].
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { SurgetankError } from '../errors.ts'

export interface Migration {
  readonly version: number
  readonly name: string
  readonly statements: readonly string[]
}

/** What a migration needs of a database. */
export interface MigrationTarget {
  command(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void>
  /** The first column of the first row. */
  scalar(sql: string): Promise<number>
}

/** The window of deduplication tokens of each table that an insert reaches, as the schema has it [G2]. */
export const TOKENS_KEPT = 10_000

const TABLES_WITH_TOKENS = ['readings', 'state', 'readings_1m', 'readings_1h'] as const
export type TableWithTokens = (typeof TABLES_WITH_TOKENS)[number]

export function tokenWindow(table: TableWithTokens, kept: number): string {
  return `ALTER TABLE telemetry.${table} MODIFY SETTING non_replicated_deduplication_window = ${kept}`
}

const MIGRATIONS_TABLE = [
  'CREATE DATABASE IF NOT EXISTS telemetry ENGINE = Atomic',
  `CREATE TABLE IF NOT EXISTS telemetry.migrations
   (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
   ENGINE = MergeTree ORDER BY version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`,
]

/**
 * Applies what is missing. Throws `database_newer` (stop) when the database knows a version that these files do not, and
 * changes nothing then.
 */
export async function migrate(
  target: MigrationTarget,
  migrations: readonly Migration[] = readMigrations(),
): Promise<void> {
  const newest = migrations.at(-1)?.version ?? 0
  for (const statement of MIGRATIONS_TABLE) await target.command(statement)
  const applied = await target.scalar('SELECT max(version) FROM telemetry.migrations')
  if (applied > newest) {
    throw new SurgetankError(
      'database_newer',
      `It has schema version ${applied}, this surgetank knows up to ${newest}: run the newer one.`,
    )
  }
  for (const { version, name, statements } of migrations) {
    if (version <= applied) continue
    for (const statement of statements) await target.command(statement)
    await target.command('INSERT INTO telemetry.migrations (version, name) SELECT {version:UInt32}, {name:String}', {
      version,
      name,
    })
  }
  for (const table of TABLES_WITH_TOKENS) await target.command(tokenWindow(table, TOKENS_KEPT))
}

/** The migrations of `schema/`, in order. */
export function readMigrations(): Migration[] {
  const folder = schemaFolder()
  return readdirSync(folder)
    .filter(file => file.endsWith('.sql'))
    .sort()
    .map(file => ({
      version: Number.parseInt(file, 10),
      name: file.slice(0, -'.sql'.length),
      statements: splitStatements(readFileSync(new URL(file, folder), 'utf8')),
    }))
}

/** The same folder of the package for the sources and for dist/database/migrate.js: the compiler copies no .sql files. */
function schemaFolder(): URL {
  const beside = new URL('./schema/', import.meta.url)
  return existsSync(beside) ? beside : new URL('../../database/schema/', import.meta.url)
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
