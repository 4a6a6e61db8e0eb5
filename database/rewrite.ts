/**
 * From version 3 to 4: all readings and the newest state are written anew, because the types of a sort key cannot be altered.
 *
 * The new tables grow beside the old ones, one partition after another. A partition is put together in a table apart, a slice
 * of its receipts at a time, counted, and takes its place by REPLACE PARTITION: whole or not at all, and as often as wanted. So
 * after a kill at any statement, what counts as much as the old partition is passed over, and the rest is made again. From version
 * 3 nothing of the old tables is changed or renamed until the swap, and an older surgetank opens them as before; from versions 1
 * and 2 the files 002 and 003 are run first (migrate.ts). From the swap on there is only the way forward, and it is short (swap.ts).
 *
 * Nobody may insert meanwhile: writers begin after their migration. An older writer that goes on is noticed by the counts until
 * the swap; its next insert after that names a column that is no longer stored, and is refused as a whole.
 * Several processes may be at it: each copies into tables of its own names, what they do to the common ones may be repeated or
 * fails where it is too late, and whoever sees another one copy waits for it.
 */
import { randomBytes } from 'node:crypto'
import { SurgetankError } from '../errors.ts'
import type { MigrationStep } from './database.ts'
import { examineTables, type Found, isOld } from './examine.ts'
import type { Migration, MigrationTarget } from './migrate.ts'
import { countPartitions, differing } from './partitions.ts'
import { measureRoom } from './room.ts'
import { type Layout, quoteName, renderStatements } from './schema.ts'
import { fillState } from './state-anew.ts'
import { finish, isSwapped, swapTables } from './swap.ts'
import { ANY_SIZE, tokensOf, usePart, waitForOthers } from './together.ts'

export interface RewriteOptions {
  readonly from: number
  readonly migrations: readonly Migration[]
  readonly migrationsTable: string
  readonly swap: 'rename' | 'replace'
  readonly told: (step: MigrationStep) => void
  readonly rowsMax?: number
}

/** What every step of a rewriting has at hand. */
export interface Rewriting {
  readonly layout: Layout
  readonly options: RewriteOptions
  /** The statements of the newest file. */
  readonly statements: readonly string[]
  /** Of this process and this try; it begins the token of each statement that copies. */
  readonly attempt: string
  /** Runs a statement that is written as in the files of the schema. */
  run(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void>
  /** As it is: quoted names, and tables of this server alone. */
  runPlain(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void>
  all<Row>(sql: string, params?: Readonly<Record<string, unknown>>): Promise<Row[]>
  look(): Promise<Found>
  /** Tells that so many rows more are done, and at what it is. */
  progress(what: string, rows: number): void
}

const COPY = 'migration_readings_copy'
/** Rows of one statement: some seconds of one slow core. */
const SLICE_ROWS_MAX = 500_000
/** Each slice looks through the receipts of its whole partition, so a huge one gets larger slices. */
const SLICES_MAX = 1_000
/** Partitions that are found changed are copied again, so often. */
const ROUNDS_MAX = 10

export const COPIED_COLUMNS =
  'device, metric, ts, kind, value, value_str, received_delta, sent_delta, source, source_position, source_index'

/** The old row as the new one. A time of 0 meant that the device gave none. */
export const AS_NEW = `device, metric, toDateTime64(ts, 6, 'UTC'), kind, value, value_str,
  (toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(ts)) * 1000,
  if(sent_ts = 0, NULL, (sent_ts - toUnixTimestamp64Milli(ts)) * 1000), source, source_position, source_index`

/** Everything but the last word, which is the row in `migrations`. */
export async function rewrite(target: MigrationTarget, layout: Layout, options: RewriteOptions): Promise<void> {
  const rewriting = openRewriting(target, layout, options)
  const found = await rewriting.look()
  if (isOld(found, layout.database) && !isSwapped(found, layout)) {
    // The engine was killed between the first name and the next.
    if (found.tables.get(layout.internal)?.has('migration_readings_next') === true)
      await rewriting.run(`RENAME TABLE telemetry_internal.migration_readings_next TO telemetry_internal.${COPY}`)
    const { rows } = await measureRoom(target, layout.database)
    const counted = withProgress(rewriting, rows)
    await copyReadings(counted)
    counted.progress('the newest state', 0)
    await fillState(counted)
    counted.progress('the new tables take the place of the old ones', 0)
    await copyReadings(counted)
  }
  await swapTables(rewriting)
  await finish(rewriting)
}

function openRewriting(target: MigrationTarget, layout: Layout, options: RewriteOptions): Rewriting {
  return {
    layout,
    options,
    statements: options.migrations.at(-1)?.statements ?? [],
    attempt: `${tokensOf(layout)}${randomBytes(6).toString('hex')}`,
    all: target.all,
    runPlain: target.command,
    look: () => examineTables(target, layout, options.migrations),
    progress: () => {},
    async run(sql, params) {
      for (const statement of renderStatements([sql], layout)) await target.command(statement, params)
    },
  }
}

function withProgress(rewriting: Rewriting, rowsAll: number): Rewriting {
  const { from, migrations, told } = rewriting.options
  const to = migrations.at(-1)?.version ?? 0
  const since = performance.now()
  let done = 0
  return {
    ...rewriting,
    progress(what, rows) {
      done += rows
      const seconds = (performance.now() - since) / 1_000
      const secondsLeft = done === 0 ? null : Math.max(0, Math.round((seconds / done) * (rowsAll - done)))
      told({ from, to, what, rows: Math.min(done, rowsAll), rowsAll, secondsLeft })
    },
  }
}

/** All partitions that are not copied yet; returns when there is none. */
async function copyReadings(rewriting: Rewriting): Promise<void> {
  const { run, options } = rewriting
  for (const sql of copyTable(rewriting)) await run(sql)
  for (let round = 1; ; round++) {
    await waitForOthers(rewriting)
    await catchUp(rewriting, [`telemetry.readings`, `telemetry_internal.${COPY}`])
    const left = await partitionsLeft(rewriting)
    if (left.length === 0) return
    if (round > ROUNDS_MAX) {
      throw new SurgetankError(
        'database_unavailable',
        `readings come in while they are written anew for version ${options.migrations.at(-1)?.version}: stop the older writers`,
      )
    }
    for (const partition of left) {
      await waitForOthers(rewriting)
      await copyPartition(rewriting, partition, `${quoteName(rewriting.layout.database)}.readings`)
    }
  }
}

/** A replica shows what it has fetched so far; asked for, it fetches what the others have. */
export async function catchUp({ run, layout }: Rewriting, tables: readonly string[]): Promise<void> {
  if (layout.cluster === null) return
  for (const table of tables) await run(`SYSTEM SYNC REPLICA ${table} LIGHTWEIGHT`)
}

/** The table of the readings as the newest file has it, under another name. */
function copyTable({ statements }: Rewriting): string[] {
  const head = 'CREATE TABLE IF NOT EXISTS telemetry.readings\n'
  return statements
    .filter(sql => sql.startsWith(head))
    .map(sql => sql.replace(head, `CREATE TABLE IF NOT EXISTS telemetry_internal.${COPY}\n`))
}

async function partitionsLeft(rewriting: Rewriting): Promise<string[]> {
  const { database, internal } = rewriting.layout
  const old = await countPartitions(rewriting, `${quoteName(database)}.readings`)
  return differing(old, await countPartitions(rewriting, `${quoteName(internal)}.${COPY}`))
}

/** From `old` into the copy; passed over when another process was faster since the partitions were listed. */
export async function copyPartition(rewriting: Rewriting, partition: string, old: string): Promise<void> {
  const { layout, all, run, options, progress } = rewriting
  const copy = `${quoteName(layout.internal)}.${COPY}`
  const minutes = await all<[number, number]>(
    `SELECT toUnixTimestamp(toStartOfMinute(received_at)) AS minute, count() FROM ${old}
     WHERE _partition_id = {partition:String} GROUP BY minute ORDER BY minute`,
    { partition },
  )
  const counted = minutes.reduce((total, [, rows]) => total + rows, 0)
  const [[there] = [0]] = await all<[number]>(`SELECT count() FROM ${copy} WHERE _partition_id = {partition:String}`, {
    partition,
  })
  if (there === counted) return
  progress(`readings of ${partition}`, 0)
  const rowsMax = Math.max(options.rowsMax ?? SLICE_ROWS_MAX, Math.ceil(counted / SLICES_MAX))
  await usePart(rewriting, copy, async part => {
    for (const { rows, ...slice } of planSlices(minutes, rowsMax)) {
      await run(
        `INSERT INTO ${part} (${COPIED_COLUMNS}) SETTINGS ${settingsOf(rewriting)}
         SELECT ${AS_NEW} FROM ${old}
         WHERE _partition_id = {partition:String} AND received_at >= fromUnixTimestamp({from:Int64}) AND received_at < fromUnixTimestamp({to:Int64})
         AND cityHash64(source, source_position, source_index) % {shares:UInt32} = {share:UInt32}`,
        { partition, ...slice },
      )
      progress(`readings of ${partition}`, rows)
    }
    const [[copied] = [0]] = await all<[number]>(`SELECT count() FROM ${part}`)
    if (copied !== counted) return
    const replace = `ALTER TABLE telemetry_internal.${COPY} REPLACE PARTITION ID {partition:String} FROM ${part} ${ANY_SIZE}`
    await run(replace, { partition })
  })
}

/**
 * By the token others see that this process copies. Another one for each statement: an INSERT … SELECT with a token is
 * deduplicated by it even where `insert_deduplicate` is 0.
 */
export function settingsOf({ attempt }: Rewriting): string {
  return `insert_deduplicate = 0, async_insert = 0, max_threads = 2, max_insert_threads = 1, insert_deduplication_token = '${attempt}/${randomBytes(6).toString('hex')}'`
}

export interface Slice {
  /** Seconds since 1970; `from` included, `to` not. */
  readonly from: number
  readonly to: number
  /** Of a minute that is larger than a slice: which of how many shares, by a digest of the place in the log. */
  readonly share: number
  readonly shares: number
  /** Of a share, about. */
  readonly rows: number
}

/** Minutes, in order, put together up to so many rows; a larger one in shares of about as many. Pure. */
export function planSlices(minutes: readonly (readonly [minute: number, rows: number])[], rowsMax: number): Slice[] {
  const slices: Slice[] = []
  for (const [minute, rows] of minutes) {
    const last = slices.at(-1)
    if (last?.shares === 1 && last.rows + rows <= rowsMax) {
      slices[slices.length - 1] = { ...last, to: minute + 60, rows: last.rows + rows }
      continue
    }
    const shares = Math.max(1, Math.ceil(rows / rowsMax))
    for (let share = 0; share < shares; share++)
      slices.push({ from: minute, to: minute + 60, share, shares, rows: Math.floor(rows / shares) })
  }
  return slices
}
