/**
 * The end of a rewriting: the new tables take the place of the old ones, then everything is where version 4 has it.
 *
 * A process that was frozen before any of these statements and wakes when others are through does no harm: a table is renamed from
 * a name that is gone by then, a partition is moved into a table of the old columns, what is dropped has a name of its own, or is
 * empty. Nobody inserts before all of it is done.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../errors.ts'
import { type Found, isOld } from './examine.ts'
import { processesOf } from './inserts.ts'
import { countPartitions, lacking } from './partitions.ts'
import { AS_NEW, COPIED_COLUMNS, catchUp, copyPartition, type Rewriting, settingsOf } from './rewrite.ts'
import { type Layout, quoteName } from './schema.ts'
import { fillState } from './state-anew.ts'
import { ANY_SIZE, PART_NAMES, tokensOf, usePart } from './together.ts'

/** What is swapped: a table, the keys of its old form, and the head of the statement that makes the new one. */
const SWAPPED = {
  readings: 'MergeTree PARTITION BY toYYYYMMDD(received_at) ORDER BY (metric, device, ts)',
  state: 'AggregatingMergeTree ORDER BY (device, metric)',
} as const
type Swapped = keyof typeof SWAPPED

/** Tables that move to the other database as they are. */
const MOVED = ['readings_1m', 'readings_1h', 'by_source_from', 'migrations'] as const
type Moved = (typeof MOVED)[number]
const OLD_VIEWS = ['state_mv', 'readings_1m_mv', 'readings_1h_mv'] as const

const INSERTS_LOOK_MS = 50
const INSERTS_WAIT_MS_MAX = 60_000

const DROP = `SYNC ${ANY_SIZE}`

/** True when the old readings have begun to give their place, so that they are not all there any more. */
export function isSwapped({ tables, forms }: Found, { database, internal }: Layout): boolean {
  return (
    forms.get(database)?.get('readings') === 'version 4' ||
    tables.get(internal)?.has('migration_readings_before') === true
  )
}

export async function swapTables(rewriting: Rewriting): Promise<void> {
  const { layout, options } = rewriting
  const swap = options.swap === 'rename' ? swapByName : swapByPartition
  if (!isSwapped(await rewriting.look(), layout)) await waitForInserts(rewriting)
  await swap(rewriting, 'readings')
  if (options.swap === 'rename') await addLateRows(rewriting)
  // Elsewhere the new state has been in its place from the beginning.
  if (layout.internal === layout.database) await swap(rewriting, 'state')
}

/** An insert of an older writer that has begun stores its rows in the old table. It has a token, unlike those of analysts. */
async function waitForInserts({ all, layout }: Rewriting): Promise<void> {
  const { database, cluster } = layout
  const processes = processesOf(cluster)
  const giveUpAt = performance.now() + INSERTS_WAIT_MS_MAX
  for (;;) {
    const [[running] = [0]] = await all<[number]>(
      `SELECT count() FROM ${processes} WHERE query_kind = 'Insert' AND current_database = {database:String}
       AND Settings['insert_deduplication_token'] != '' AND NOT startsWith(Settings['insert_deduplication_token'], {tokens:String})`,
      { database, tokens: tokensOf(layout) },
    )
    if (running === 0) return
    if (performance.now() > giveUpAt)
      throw new SurgetankError('database_unavailable', `${running} inserts still run: stop the older writers`)
    await pause(INSERTS_LOOK_MS)
  }
}

/** The first name is gone when somebody else was faster, and nothing has happened then. */
async function swapByName(rewriting: Rewriting, table: Swapped): Promise<void> {
  const { layout, run } = rewriting
  const [copy, next, before] = ['copy', 'next', 'before'].map(end => `telemetry_internal.migration_${table}_${end}`)
  const has = (found: Found, end: string) =>
    found.tables.get(layout.internal)?.has(`migration_${table}_${end}`) === true
  const found = await rewriting.look()
  if (found.tables.get(layout.database)?.has(table) !== true) {
    // The engine was killed between two names.
    if (has(found, 'next')) return run(`RENAME TABLE ${next} TO telemetry.${table}`)
    if (has(found, 'before')) return run(`RENAME TABLE ${before} TO telemetry.${table}`)
    throw new SurgetankError('database_changed', `There is no ${layout.database}.${table}: restore it from a copy.`)
  }
  if (!isOld(found, layout.database, table)) return
  // Of the state; what the readings were left at is taken back before they are counted.
  if (has(found, 'next'))
    await run(has(found, 'copy') ? `DROP TABLE IF EXISTS ${next} ${DROP}` : `RENAME TABLE ${next} TO ${copy}`)
  await run(`RENAME TABLE ${copy} TO ${next}, telemetry.${table} TO ${before}, ${next} TO telemetry.${table}`)
}

/** Where the place of a table is bound to its name: its rows go aside, it is made anew, and takes the new rows. */
async function swapByPartition(rewriting: Rewriting, table: Swapped): Promise<void> {
  const { layout, run, statements } = rewriting
  const at = (name: string) => `${quoteName(layout.internal)}.${name}`
  const live = `${quoteName(layout.database)}.${table}`
  const [copy, before] = [`migration_${table}_copy`, `migration_${table}_before`] as const
  const found = await rewriting.look()
  if (isOld(found, layout.database, table)) {
    await run(
      `CREATE TABLE IF NOT EXISTS telemetry_internal.${before} AS telemetry.${table} ENGINE = ${SWAPPED[table]}
       SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`,
    )
    // Of the old columns: the new table refuses to give a partition to it.
    for (const partition of await partitionsOf(rewriting, live))
      await run(
        `ALTER TABLE telemetry.${table} MOVE PARTITION ID {partition:String} TO TABLE ${at(before)} ${ANY_SIZE}`,
        {
          partition,
        },
      )
    await run(`DROP TABLE IF EMPTY telemetry.${table} ${DROP}`)
  }
  if (found.tables.get(layout.internal)?.has(copy) !== true) return
  if (table === 'readings') await copyLateRows(rewriting, at(before), at(copy))
  const database = table === 'readings' ? 'telemetry' : 'telemetry_internal'
  for (const sql of statements.filter(one => one.startsWith(`CREATE TABLE IF NOT EXISTS ${database}.${table}\n`)))
    await run(sql)
  await catchUp(rewriting, [`telemetry_internal.${copy}`])
  for (const partition of await partitionsOf(rewriting, at(copy)))
    await run(`ALTER TABLE telemetry.${table} REPLACE PARTITION ID {partition:String} FROM ${at(copy)} ${ANY_SIZE}`, {
      partition,
    })
  await run(`DROP TABLE IF EXISTS telemetry_internal.${copy} ${DROP}`)
}

/** What an insert stored in the old table after it was counted last; nobody inserts into it any more. */
async function copyLateRows(rewriting: Rewriting, before: string, copy: string): Promise<void> {
  const found = await rewriting.look()
  if (found.tables.get(rewriting.layout.internal)?.has('migration_readings_before') !== true) return
  await catchUp(rewriting, [
    'telemetry_internal.migration_readings_before',
    'telemetry_internal.migration_readings_copy',
  ])
  const short = lacking(await countPartitions(rewriting, before), await countPartitions(rewriting, copy))
  for (const partition of short) await copyPartition(rewriting, partition, before)
  if (isOld(found, rewriting.layout.database, 'state')) await fillState(rewriting)
}

async function partitionsOf({ all }: Rewriting, table: string): Promise<string[]> {
  return (await all<[string]>(`SELECT DISTINCT _partition_id AS id FROM ${table} ORDER BY id`)).map(([id]) => id)
}

/**
 * What an insert stored in the old table while the names changed. Past the views: those of the old table had these rows; only
 * the newest state is asked of it once more.
 */
async function addLateRows(rewriting: Rewriting): Promise<void> {
  const { layout } = rewriting
  const old = `${quoteName(layout.internal)}.migration_readings_before`
  const now = `${quoteName(layout.database)}.readings`
  const found = await rewriting.look()
  if (found.tables.get(layout.internal)?.has('migration_readings_before') !== true) return
  await waitForInserts(rewriting)
  const short = lacking(await countPartitions(rewriting, old), await countPartitions(rewriting, now))
  for (const partition of short) await addRowsOf(rewriting, partition, { old, now })
  // The old one had them from the old view. Not only where rows were short: a kill may have come between the two.
  if (isOld(found, layout.database, 'state')) await fillState(rewriting)
}

/**
 * The table apart has the name of its partition, so that of two processes one comes too late and looks again; and what is moved
 * out of it is moved once, whoever does that.
 */
async function addRowsOf(
  rewriting: Rewriting,
  partition: string,
  { old, now }: { readonly old: string; readonly now: string },
): Promise<void> {
  const { all, run } = rewriting
  const place = '(source, source_position, source_index)'
  const count = async (table: string) => {
    const sql = `SELECT count() FROM ${table} WHERE _partition_id = {partition:String}`
    const [[rows] = [0]] = await all<[number]>(sql, { partition })
    return rows
  }
  const add = async (part: string) => {
    await run(
      `INSERT INTO ${part} (${COPIED_COLUMNS}) SETTINGS ${settingsOf(rewriting)} SELECT ${AS_NEW} FROM ${old}
       WHERE _partition_id = {partition:String} AND ${place} NOT IN (SELECT ${place} FROM ${now} WHERE _partition_id = {partition:String})`,
      { partition },
    )
    if ((await count(part)) + (await count(now)) > (await count(old)))
      throw new SurgetankError('database_unavailable', `another process adds late rows of ${partition}`)
    await run(`ALTER TABLE ${part} MOVE PARTITION ID {partition:String} TO TABLE ${now} ${ANY_SIZE}`, { partition })
  }
  await usePart(rewriting, now, add, `late_${partition}`)
}

/** What is left is small, or only changes its place. */
export async function finish(rewriting: Rewriting): Promise<void> {
  const { layout, run, statements, options } = rewriting
  for (const view of OLD_VIEWS) await run(`DROP VIEW IF EXISTS telemetry.${view}`)
  const isTable = (sql: string) => sql.startsWith('CREATE TABLE')
  const tables = [options.migrationsTable, ...statements.filter(isTable)]
  if (layout.internal !== layout.database) await moveTables(rewriting, tables)
  for (const sql of tables) await run(sql)
  for (const sql of statements.filter(one => !isTable(one))) await run(sql)
  await dropOld(rewriting)
}

/**
 * By partitions, which are not written anew by that: they are the same files. Two processes that both REPLACE a partition can leave it
 * there twice, which a replicated table alone prevents. So elsewhere each fills a table apart, and one of them gets the name.
 */
async function moveTables(rewriting: Rewriting, creates: readonly string[]): Promise<void> {
  const { layout, run, options } = rewriting
  for (const table of MOVED) {
    const head = `CREATE TABLE IF NOT EXISTS telemetry_internal.${table}\n`
    const create = creates.find(sql => sql.startsWith(head)) ?? ''
    const { tables } = await rewriting.look()
    if (tables.get(layout.database)?.get(table)?.endsWith('MergeTree') !== true) continue
    if (options.swap === 'replace') {
      await run(create)
      await takePartitions(rewriting, table, table)
      continue
    }
    if (tables.get(layout.internal)?.has(table) === true) continue
    const part = `migration_part_${randomBytes(6).toString('hex')}`
    try {
      await run(create.replace(head, `CREATE TABLE IF NOT EXISTS telemetry_internal.${part}\n`))
      await takePartitions(rewriting, table, part)
      // Fails where another process was faster: the next look finds that.
      await run(`RENAME TABLE telemetry_internal.${part} TO telemetry_internal.${table}`)
    } catch (error) {
      await run(`DROP TABLE IF EXISTS telemetry_internal.${part} ${DROP}`).catch(() => {})
      throw error
    }
  }
}

async function takePartitions(rewriting: Rewriting, table: Moved, into: string): Promise<void> {
  const { layout, run } = rewriting
  const old = `${quoteName(layout.database)}.${table}`
  await catchUp(rewriting, [`telemetry.${table}`])
  for (const partition of await partitionsOf(rewriting, old))
    await run(
      `ALTER TABLE telemetry_internal.${into} REPLACE PARTITION ID {partition:String} FROM ${old} ${ANY_SIZE}`,
      { partition },
    )
}

/** The old tables, and all that tries before this one left. `migrations` stays until its last word is written elsewhere. */
async function dropOld(rewriting: Rewriting): Promise<void> {
  const { layout, run, all } = rewriting
  const { database, internal } = layout
  await checkWhole(rewriting)
  if (internal !== database)
    for (const table of ['state', 'readings_1m', 'readings_1h', 'by_source_from'])
      await run(`DROP TABLE IF EXISTS telemetry.${table} ${DROP}`)
  // And the tables apart of repairs that a kill cut short: from now on they are looked for in the other database.
  const left = await all<[string, string]>(
    `SELECT if(database = {internal:String}, 'telemetry_internal', 'telemetry'), name FROM system.tables
     WHERE (database = {internal:String} AND match(name, '^migration_(${PART_NAMES}|(readings|state)_(copy|next|before))$')) OR (database = {database:String} AND match(name, '^repair_[0-9a-f]{16}_readings(_1m|_1h)?_[0-9a-f]{12}$'))`,
    { internal, database },
  )
  for (const [of, name] of left) await run(`DROP TABLE IF EXISTS ${of}.${name} ${DROP}`)
}

/** The last look before rows are dropped: whatever went wrong, they are still there. */
async function checkWhole(rewriting: Rewriting): Promise<void> {
  const { database, internal } = rewriting.layout
  if ((await rewriting.look()).tables.get(internal)?.has('migration_readings_before') !== true) return
  const before = `${internal}.migration_readings_before`
  await catchUp(rewriting, ['telemetry_internal.migration_readings_before', 'telemetry.readings'])
  const old = await countPartitions(rewriting, `${quoteName(internal)}.migration_readings_before`)
  const short = lacking(old, await countPartitions(rewriting, `${quoteName(database)}.readings`))
  if (short.length === 0) return
  throw new SurgetankError(
    'database_changed',
    `${database}.readings has fewer rows than ${before} in the partitions ${short.join(', ')}: nothing was dropped. Ask for help, and keep both tables.`,
  )
}
