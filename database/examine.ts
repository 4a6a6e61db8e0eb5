/**
 * What a migration finds: the server, its tables and their columns, and what is to be done. Only reads; all that can be wrong
 * is found here, before the first change.
 */
import { SurgetankError } from '../errors.ts'
import { internalOf, type ServerFound } from './database.ts'
import { type FoundTable, formOf } from './known-columns.ts'
import type { Migration, MigrationTarget } from './migrate.ts'
import { measureRoom } from './room.ts'
import { type Layout, quoteName } from './schema.ts'

export type Reads = Pick<MigrationTarget, 'all'>

/** The database and the cluster, as an operator named them. */
export type Named = Pick<Layout, 'database' | 'cluster'>

/** The first version whose views deduplicate by the token of the insert (ClickHouse pull request 61601), as a release with long support. */
const OLDEST_SERVER = [24, 8] as const

/** The version whose tables are made anew, and all rows copied into them. */
export const REWRITING_VERSION = 4

/** A name that is held by an empty table, or no table of rows. */
const NO_ROWS = new Set(['Null', 'View', 'MaterializedView'])

/** Tables and views of both databases. */
export interface Found {
  /** Of ClickHouse. */
  readonly version: string
  readonly applied: number
  readonly newest: number
  /** By database, then name: their engines. */
  readonly tables: ReadonlyMap<string, ReadonlyMap<string, string>>
  /** By database, then name: the versions whose columns a table has. */
  readonly forms: ReadonlyMap<string, ReadonlyMap<string, string>>
  /** Tables whose columns are of no version; none where there is something to do. */
  readonly changed: readonly SurgetankError[]
  /** What is to be done: nothing; the newest schema where there is none; files; or all rows written anew, after what files it needs. */
  readonly work: 'none' | 'fresh' | 'files' | 'rewrite'
}

/**
 * Throws `database_newer` (stop) when the database knows a version that these files do not; `database_misconfigured` (stop)
 * when server, cluster and tables do not fit each other; `database_changed` (stop) when there is something to do and the
 * columns of a table are of no version.
 */
export async function examineServer(
  target: Reads,
  named: Named,
  migrations: readonly Migration[],
): Promise<ServerFound> {
  const found = await examineTables(target, named, migrations)
  const { version, applied, newest, work } = found
  const rewrite = work === 'rewrite' && isOld(found, named.database) ? await measureRoom(target, named.database) : null
  const own = internalOf(named.database)
  const internal = found.tables.get(own)?.has('migrations') === true ? own : named.database
  const changed = found.changed.map(({ detail }) => detail)
  return { version, applied, newest, internal, rewrite, changed }
}

export async function examineTables(target: Reads, named: Named, migrations: readonly Migration[]): Promise<Found> {
  const version = await checkServer(target)
  const tables = await readTables(target, named)
  const own = tables.get(named.database) ?? new Map()
  checkEngine(own, named)
  const newest = migrations.at(-1)?.version ?? 0
  const applied = await readVersion(target, tables)
  if (applied > newest) {
    throw new SurgetankError(
      'database_newer',
      `It has schema version ${applied}, this surgetank knows up to ${newest}: run the newer one.`,
    )
  }
  const { forms, changed } = await readForms(target, named, tables)
  if (applied < newest && changed[0] !== undefined) throw changed[0]
  if (applied < newest && named.cluster !== null) await checkCluster(target, named.cluster)
  return { version, applied, newest, tables, forms, changed, work: workOf({ applied, newest, tables, forms }, named) }
}

function workOf(
  { applied, newest, tables, forms }: Pick<Found, 'applied' | 'newest' | 'tables' | 'forms'>,
  { database }: Named,
): Found['work'] {
  if (applied >= newest) return 'none'
  if (newest < REWRITING_VERSION) return 'files'
  const readings = forms.get(database)?.get('readings')
  const unfinished = [...tables.values()].some(names => names.has('migration_readings_copy'))
  const isNew = readings === undefined || readings === 'version 4'
  return applied === 0 && isNew && !unfinished ? 'fresh' : 'rewrite'
}

/** True while the table of the readings is one that is to be written anew. */
export function isOld(
  { forms }: Pick<Found, 'forms'>,
  database: string,
  table: 'readings' | 'state' = 'readings',
): boolean {
  const form = forms.get(database)?.get(table)
  return form !== undefined && form !== 'version 4'
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

/** Tables and views that there are, with their engines. */
export async function readTables({ all }: Reads, { database }: Named): Promise<Map<string, Map<string, string>>> {
  const sql =
    'SELECT database, name, engine FROM system.tables WHERE database IN ({database:String}, {internal:String})'
  const found = new Map<string, Map<string, string>>()
  for (const [of, name, engine] of await all<[string, string, string]>(sql, {
    database,
    internal: internalOf(database),
  }))
    found.set(of, (found.get(of) ?? new Map()).set(name, engine))
  return found
}

/** What is safe to do after a kill differs between the two kinds of tables, so which they are must be known. */
function checkEngine(tables: ReadonlyMap<string, string>, { database, cluster }: Named): void {
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

/** The newest that either database tells: while one is being finished, both do. */
async function readVersion({ all }: Reads, tables: Found['tables']): Promise<number> {
  const versions = [0]
  for (const [database, names] of tables) {
    if (!names.has('migrations')) continue
    const [[version] = [0]] = await all<[number]>(`SELECT max(version) FROM ${quoteName(database)}.migrations`)
    versions.push(version)
  }
  return Math.max(...versions)
}

async function readForms(
  { all }: Reads,
  { database }: Named,
  tables: Found['tables'],
): Promise<Pick<Found, 'forms' | 'changed'>> {
  const sql = `SELECT database, table, name, type FROM system.columns
    WHERE database IN ({database:String}, {internal:String})`
  const columns = new Map<string, FoundTable & { readonly columns: Map<string, string> }>()
  for (const [of, table, name, type] of await all<[string, string, string, string]>(sql, {
    database,
    internal: internalOf(database),
  })) {
    const key = `${of}.${table}`
    const found = columns.get(key) ?? { database: of, name: table, columns: new Map<string, string>() }
    found.columns.set(name, type)
    columns.set(key, found)
  }
  const forms = new Map<string, Map<string, string>>()
  const changed: SurgetankError[] = []
  for (const table of columns.values()) {
    if (NO_ROWS.has(tables.get(table.database)?.get(table.name) ?? '')) continue
    const form = formOf(table)
    if (form instanceof SurgetankError) changed.push(form)
    else if (form !== null) forms.set(table.database, (forms.get(table.database) ?? new Map()).set(table.name, form))
  }
  return { forms, changed }
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
