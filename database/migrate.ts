/**
 * Brings the schema of ClickHouse to this version: the files of `schema/`, in order of their numbers.
 *
 * Each statement may run again, so a migration that was killed half-way, or that several processes run at once, ends in
 * the same schema; `migrations` is written last, and the same version twice there means once. Where everything is in
 * place nothing is changed: a user without the right to change the schema can work then.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { SurgetankError } from '../errors.ts'
import type { ServerFound } from './database.ts'
import { createDatabase, type Layout, quoteName, renderStatements, splitStatements, TOKENS_KEPT } from './schema.ts'

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

type Reads = Pick<MigrationTarget, 'all'>

/** The first version whose views deduplicate by the token of the insert (ClickHouse pull request 61601), as a release with long support. */
const OLDEST_SERVER = [24, 8] as const

const TABLES_WITH_TOKENS = ['readings', 'state', 'readings_1m', 'readings_1h'] as const

const MIGRATIONS_TABLE = `CREATE TABLE IF NOT EXISTS telemetry.migrations
   (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
   ENGINE = MergeTree ORDER BY version SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`

/** Applies what is missing. Throws as `examineServer`, and changes nothing then. */
export async function migrate(
  target: MigrationTarget,
  layout: Layout,
  migrations: readonly Migration[] = readMigrations(),
): Promise<void> {
  const { applied, newest } = await examineServer(target, layout, migrations)
  if (applied < newest) await apply(target, layout, { migrations, applied })
  if (layout.cluster === null) await setTokenWindows(target, layout)
}

/**
 * What a migration starts from; only reads. Throws `database_newer` (stop) when the database knows a version that these
 * files do not; `database_misconfigured` (stop) when server, cluster and tables do not fit each other.
 */
export async function examineServer(
  target: Reads,
  layout: Layout,
  migrations: readonly Migration[] = readMigrations(),
): Promise<ServerFound> {
  const version = await checkServer(target)
  const tables = await readTables(target, layout)
  checkEngine(tables, layout)
  const newest = migrations.at(-1)?.version ?? 0
  const applied = tables.has('migrations') ? await readVersion(target, layout) : 0
  if (applied > newest) {
    throw new SurgetankError(
      'database_newer',
      `It has schema version ${applied}, this surgetank knows up to ${newest}: run the newer one.`,
    )
  }
  if (applied < newest && layout.cluster !== null) await checkCluster(target, layout.cluster)
  return { version, applied, newest }
}

async function checkServer({ all }: Reads): Promise<string> {
  const [[given] = ['']] = await all<[string]>('SELECT version()')
  const version = String(given)
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldestMajor, oldestMinor] = OLDEST_SERVER
  if (major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return version
  throw new SurgetankError(
    'database_misconfigured',
    `The server is ClickHouse ${version}; surgetank needs ${OLDEST_SERVER.join('.')} or later: upgrade the server.`,
  )
}

/** Tables and views that there are, by name, with their engines. */
async function readTables({ all }: Reads, { database }: Layout): Promise<Map<string, string>> {
  const sql = 'SELECT name, engine FROM system.tables WHERE database = {database:String}'
  return new Map(await all<[string, string]>(sql, { database }))
}

/** What is safe to do after a kill differs between the two kinds of tables, so which they are must be known. */
function checkEngine(tables: ReadonlyMap<string, string>, { database, cluster }: Layout): void {
  const engine = tables.get('readings')
  const expected = cluster === null ? 'MergeTree' : 'ReplicatedMergeTree'
  if (engine === undefined || engine === expected) return
  throw new SurgetankError(
    'database_misconfigured',
    `The table ${database}.readings has the engine ${engine}, not ${expected}: ${
      cluster === null
        ? 'name the cluster of its replicas, or choose another database.'
        : 'name no cluster, or choose another database and copy the rows.'
    }`,
  )
}

async function readVersion({ all }: Reads, { database }: Layout): Promise<number> {
  const [[version] = [0]] = await all<[number]>(`SELECT max(version) FROM ${quoteName(database)}.migrations`)
  return version
}

async function apply(
  target: MigrationTarget,
  layout: Layout,
  { migrations, applied }: { migrations: readonly Migration[]; applied: number },
): Promise<void> {
  await ensureDatabase(target, layout)
  for (const statement of renderStatements([MIGRATIONS_TABLE], layout)) await target.command(statement)
  for (const { version, name, statements } of migrations) {
    if (version <= applied) continue
    for (const statement of renderStatements(statements, layout)) await target.command(statement)
    await target.command(
      `INSERT INTO ${quoteName(layout.database)}.migrations (version, name) SELECT {version:UInt32}, {name:String}`,
      { version, name },
    )
  }
}

/** A reading lies on one server that holds them all: several shards would each show a part. */
async function checkCluster({ all }: Reads, cluster: string): Promise<void> {
  const sql = 'SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster:String}'
  const [[shards] = [0]] = await all<[number]>(sql, { cluster })
  if (shards === 1) return
  throw new SurgetankError(
    'database_misconfigured',
    shards === 0
      ? `The server knows no cluster ${cluster}: name one of system.clusters, or none.`
      : `The cluster ${cluster} has ${shards} shards; surgetank needs one shard with any number of replicas.`,
  )
}

/** Looked for first: a user of an existing database may have no right to create one, not even if it exists. */
async function ensureDatabase({ command, all }: MigrationTarget, layout: Layout): Promise<void> {
  const { database } = layout
  const sql = 'SELECT count() FROM system.databases WHERE name = {database:String}'
  const [[found] = [0]] = await all<[number]>(sql, { database })
  if (found > 0) return
  try {
    await command(createDatabase(layout))
  } catch (error) {
    if (!(error instanceof SurgetankError) || error.code !== 'database_misconfigured') throw error
    throw new SurgetankError(
      'database_misconfigured',
      `The database ${database} does not exist, and this user may not create it: create it, or let the user do so. ${error.detail}`,
      error,
    )
  }
}

/** Only where it is another: an earlier version that was killed while it emptied a window left it at none. */
async function setTokenWindows({ command, all }: MigrationTarget, { database }: Layout): Promise<void> {
  const wrong = await all<[string]>(
    `SELECT name FROM system.tables WHERE database = {database:String} AND name IN {tables:Array(String)}
     AND extract(engine_full, 'non_replicated_deduplication_window = (\\\\d+)') != {kept:String}`,
    { database, tables: TABLES_WITH_TOKENS, kept: String(TOKENS_KEPT) },
  )
  for (const [table] of wrong) {
    await command(
      `ALTER TABLE ${quoteName(database)}.${quoteName(table)} MODIFY SETTING non_replicated_deduplication_window = ${TOKENS_KEPT}`,
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
function schemaFolder(): URL {
  const beside = new URL('./schema/', import.meta.url)
  return existsSync(beside) ? beside : new URL('../../database/schema/', import.meta.url)
}
