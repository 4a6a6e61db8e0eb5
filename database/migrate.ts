/**
 * Brings the schema of ClickHouse to this version: the files of `schema/`, in order of their numbers.
 *
 * Each statement may run again, so a migration that was killed half-way, or that several processes run at once, ends in
 * the same schema; `migrations` is written last, and the same version twice there means once. Where everything is in
 * place nothing is changed: a user without the right to change the schema can work then.
 *
 * The newest file is the whole schema, and a fresh start runs it alone. What was made by an older one goes there by way of
 * version 3, and is written anew from there (rewrite.ts).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../errors.ts'
import { internalOf, type MigrationStep } from './database.ts'
import { mendFirstState } from './early-state.ts'
import { codeOf } from './error-classes.ts'
import { examineTables, type Found, isOld, type Named, REWRITING_VERSION } from './examine.ts'
import { rewrite } from './rewrite.ts'
import { checkRoom, measureRoom } from './room.ts'
import { createDatabase, type Layout, quoteName, renderStatements, splitStatements, TOKENS_KEPT } from './schema.ts'
import { clearParts } from './together.ts'

export interface Migration {
  readonly version: number
  readonly name: string
  readonly statements: readonly string[]
}

/** What a migration needs of a server. Statements name the database: it may not exist yet. */
export interface MigrationTarget {
  command(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void>
  all<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]>
}

export interface MigrateOptions {
  readonly migrations?: readonly Migration[]
  /** Told what is under way, several times a minute. */
  readonly told?: (step: MigrationStep) => void
  /** How old tables give their place to new ones; `replace` where a table cannot be renamed, as on a cluster. */
  readonly swap?: 'rename' | 'replace'
  /** Rows of one statement that copies. */
  readonly rowsMax?: number
}

const TABLES_WITH_TOKENS = ['readings', 'state', 'readings_1m', 'readings_1h'] as const

const MIGRATIONS_TABLE = `CREATE TABLE IF NOT EXISTS telemetry_internal.migrations
   (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
   ENGINE = MergeTree ORDER BY version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`

/**
 * Names that stay taken where the tables of these names have a database of their own, by empty tables that are detached for
 * good: an older surgetank finds no schema of its own there, would make one beside this one, and stops at the first of these.
 */
const HELD_NAMES = ['state', 'migrations'] as const

/** TABLE_ALREADY_EXISTS, UNKNOWN_TABLE and TABLE_IS_DROPPED: another process was faster. */
const OVERTAKEN = new Set([57, 60, 218])
const TRIES = 30
/** Between two tries; not the same for all that are at it. */
const PAUSE_MS = { least: 100, most: 500 } as const

/** Applies what is missing. Throws as `examineServer` and `checkRoom`, and changes nothing then. */
export async function migrate(target: MigrationTarget, named: Named, options: MigrateOptions = {}): Promise<void> {
  const migrations = options.migrations ?? readMigrations()
  for (let tries = 1; ; tries++) {
    try {
      // Also what only looks can be overtaken: a table that was listed is gone when it is read.
      const found = await examineTables(target, named, migrations)
      await bring(target, named, found, { ...options, migrations })
      return
    } catch (error) {
      if (!OVERTAKEN.has(codeOf(error) ?? 0) || tries === TRIES) throw error
      await pause(PAUSE_MS.least + Math.random() * (PAUSE_MS.most - PAUSE_MS.least))
    }
  }
}

async function bring(
  target: MigrationTarget,
  named: Named,
  found: Found,
  options: MigrateOptions & { readonly migrations: readonly Migration[] },
): Promise<void> {
  const { migrations, told = () => {} } = options
  switch (found.work) {
    case 'none':
      break
    case 'fresh':
      await makeFresh(target, named, migrations)
      break
    case 'files':
      await runFiles(target, named, found, { migrations, told })
      break
    case 'rewrite': {
      const steps = { from: found.applied, to: found.newest, rows: 0, rowsAll: 0, secondsLeft: null }
      await clearParts(target, named, what => told({ ...steps, what }))
      if (isOld(found, named.database)) checkRoom(await measureRoom(target, named.database))
      const newest = migrations.at(-1) as Migration
      const before = migrations.filter(({ version }) => version < REWRITING_VERSION)
      await runFiles(target, named, found, { migrations: before, told })
      const layout = { ...named, internal: await chooseInternal(target, named, found) }
      await rewrite(target, layout, {
        swap: named.cluster === null ? 'rename' : 'replace',
        ...options,
        from: found.applied,
        told,
        migrationsTable: MIGRATIONS_TABLE,
      })
      await stamp(target, layout, newest)
    }
  }
  await keepNames(target, named)
  if (named.cluster === null) await setTokenWindows(target, named)
}

async function makeFresh(target: MigrationTarget, named: Named, migrations: readonly Migration[]): Promise<void> {
  const newest = migrations.at(-1) as Migration
  await ensureDatabase(target, named, named.database)
  const layout = { ...named, internal: await chooseInternal(target, named, null) }
  for (const statement of renderStatements([MIGRATIONS_TABLE, ...newest.statements], layout))
    await target.command(statement)
  await stamp(target, layout, newest)
}

/** The files of before version 4, all of whose tables are in one database. */
async function runFiles(
  target: MigrationTarget,
  named: Named,
  { applied, newest, forms }: Found,
  { migrations, told }: { migrations: readonly Migration[]; told: (step: MigrationStep) => void },
): Promise<void> {
  const layout = { ...named, internal: named.database }
  const missing = migrations.filter(({ version }) => version > applied)
  const early = forms.get(named.database)?.get('state') === 'the first of version 1'
  if (missing.length === 0 && !early) return
  await ensureDatabase(target, named, named.database)
  for (const statement of renderStatements([MIGRATIONS_TABLE], layout)) await target.command(statement)
  if (early) await mendFirstState(target, layout)
  for (const migration of missing) {
    told({ from: applied, to: newest, what: migration.name, rows: 0, rowsAll: 0, secondsLeft: null })
    for (const statement of renderStatements(migration.statements, layout)) await target.command(statement)
    await stamp(target, layout, migration)
  }
}

async function stamp(target: MigrationTarget, { internal }: Layout, { version, name }: Migration): Promise<void> {
  await target.command(
    `INSERT INTO ${quoteName(internal)}.migrations (version, name) SELECT {version:UInt32}, {name:String}`,
    { version, name },
  )
}

/**
 * A database of its own for what is not for analysts, made where that is allowed; otherwise that of the readings. What was begun
 * in one is ended there, also when the user has got the right meanwhile: what is in the other one would be dropped as old.
 */
async function chooseInternal(target: MigrationTarget, named: Named, found: Found | null): Promise<string> {
  const internal = internalOf(named.database)
  const begun = found === null ? null : begunIn(found, [internal, named.database])
  if (begun !== null) return begun
  if (found?.forms.get(named.database)?.get('state') === 'version 4') return named.database
  if ((found?.tables.get(internal)?.size ?? 0) > 0) return internal
  try {
    await ensureDatabase(target, named, internal)
    return internal
  } catch (error) {
    if (error instanceof SurgetankError && error.code === 'database_misconfigured') return named.database
    throw error
  }
}

/** The first of these that holds a table of a migration. */
function begunIn({ tables }: Found, databases: readonly string[]): string | null {
  const holds = (database: string) =>
    [...(tables.get(database)?.keys() ?? [])].some(name => /^migration_(?:readings|state)_/.test(name))
  return databases.find(holds) ?? null
}

/** Looked for first: a user of an existing database may have no right to create one, not even if it exists. */
async function ensureDatabase({ command, all }: MigrationTarget, { cluster }: Named, database: string): Promise<void> {
  const sql = 'SELECT count() FROM system.databases WHERE name = {database:String}'
  const [[found] = [0]] = await all<[number]>(sql, { database })
  if (found > 0) return
  try {
    await command(createDatabase(database, cluster))
  } catch (error) {
    if (!(error instanceof SurgetankError) || error.code !== 'database_misconfigured') throw error
    throw new SurgetankError(
      'database_misconfigured',
      `The database ${database} does not exist, and this user may not create it: create it, or let the user do so. ${error.detail}`,
      error,
    )
  }
}

/** Of what an older surgetank looks for where this one has nothing: see HELD_NAMES. */
async function keepNames(target: MigrationTarget, named: Named): Promise<void> {
  const names = await target.all<[string, string]>(
    `SELECT database, name FROM system.tables WHERE database IN ({database:String}, {internal:String}) AND name IN ('migrations', 'state', 'names_held')`,
    { database: named.database, internal: internalOf(named.database) },
  )
  const has = (database: string, name: string) => names.some(([of, is]) => of === database && is === name)
  const own = internalOf(named.database)
  if (!has(own, 'migrations')) return
  const isHeld = has(own, 'names_held')
  if (isHeld && !has(named.database, 'migrations') && !has(named.database, 'state')) return
  const layout = { ...named, internal: own }
  const run = async (sql: string) => {
    for (const statement of renderStatements([sql], layout)) await target.command(statement)
  }
  for (const name of HELD_NAMES) {
    await run(`CREATE TABLE IF NOT EXISTS telemetry.${name} (version UInt32) ENGINE = Null`).catch(unlessHeld)
    await run(`DETACH TABLE IF EXISTS telemetry.${name} PERMANENTLY`)
  }
  await run('CREATE TABLE IF NOT EXISTS telemetry_internal.names_held (version UInt32) ENGINE = Null')
}

/** Older servers say that the name is taken, newer ones nothing. */
function unlessHeld(error: unknown): void {
  if (codeOf(error) !== 57) throw error
}

/** Only where it is another: an earlier version that was killed while it emptied a window left it at none. */
async function setTokenWindows({ command, all }: MigrationTarget, { database }: Named): Promise<void> {
  const wrong = await all<[string, string]>(
    `SELECT database, name FROM system.tables WHERE database IN ({database:String}, {internal:String}) AND name IN {tables:Array(String)}
     AND endsWith(engine, 'MergeTree') AND extract(engine_full, 'non_replicated_deduplication_window = (\\\\d+)') != {kept:String}`,
    { database, internal: internalOf(database), tables: TABLES_WITH_TOKENS, kept: String(TOKENS_KEPT) },
  )
  for (const [of, table] of wrong) {
    await command(
      `ALTER TABLE ${quoteName(of)}.${quoteName(table)} MODIFY SETTING non_replicated_deduplication_window = ${TOKENS_KEPT}`,
    )
  }
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
export function schemaFolder(): URL {
  const beside = new URL('./schema/', import.meta.url)
  return existsSync(beside) ? beside : new URL('../../database/schema/', import.meta.url)
}
