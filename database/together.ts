/**
 * What processes that migrate the same database at once need of each other: whoever sees another one copy waits for it, and the
 * tables apart in which partitions are put together are dropped, also those that a process which died left behind.
 *
 * Such a table could still be another's, of a process that is between two statements for longer than it is looked for. Then
 * that one finds its table gone, which is nothing but another try.
 */
import { randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { internalOf } from './database.ts'
import type { Named } from './examine.ts'
import { processesOf } from './inserts.ts'
import type { MigrationTarget } from './migrate.ts'
import type { Rewriting } from './rewrite.ts'
import { quoteName } from './schema.ts'

const LOOK_EVERY_MS = 1_000
/** Before what others left is dropped: so many looks in a row find nobody, this long apart. */
const LOOKS_BEFORE_DROP = 3
const LOOK_AGAIN_MS = 100

/** Tables apart, as a pattern of ClickHouse: of one process, or of the late rows of a partition. */
export const PART_NAMES = '(part_[0-9a-f]{12}|late_[0-9]+)'

/** Partitions and tables may be larger than a server lets anybody drop by mistake, and what is replaced is dropped. */
export const ANY_SIZE = 'SETTINGS max_table_size_to_drop = 0, max_partition_size_to_drop = 0'

/** Begins the token of each statement that copies rows of this database. */
export function tokensOf({ database }: Pick<Named, 'database'>): string {
  return `migration/${database}/`
}

/** Resolves when no other process copies at this moment. What a process that died left running is waited for, too. */
export async function waitForOthers({ all, layout, attempt, progress }: Rewriting): Promise<void> {
  while ((await countOthers({ all }, layout, attempt)) > 0) {
    progress('waits for another process that does the same', 0)
    await pause(LOOK_EVERY_MS)
  }
}

/** `attempt`: how our own tokens begin; empty where there are none yet. */
async function countOthers(
  { all }: Pick<MigrationTarget, 'all'>,
  { database, cluster }: Named,
  attempt: string,
): Promise<number> {
  const processes = processesOf(cluster)
  const settings = cluster === null ? '' : ' SETTINGS skip_unavailable_shards = 1'
  const [[others] = [0]] = await all<[number]>(
    `SELECT count() FROM ${processes} WHERE startsWith(Settings['insert_deduplication_token'], {tokens:String})
     AND ({attempt:String} = '' OR NOT startsWith(Settings['insert_deduplication_token'], {attempt:String}))${settings}`,
    { tokens: tokensOf({ database }), attempt },
  )
  return others
}

/** At the start of a try, before room is measured: waits until nobody copies, and drops what tries before this one left. */
export async function clearParts(target: MigrationTarget, named: Named, told: (what: string) => void): Promise<void> {
  for (let empty = 0; ; ) {
    const left = await partsLeft(target, named)
    if (left.length === 0) return
    empty = (await countOthers(target, named, '')) === 0 ? empty + 1 : 0
    if (empty === LOOKS_BEFORE_DROP) {
      for (const part of left) await target.command(`DROP TABLE IF EXISTS ${part} SYNC ${ANY_SIZE}`)
      return
    }
    if (empty === 0) told('waits for another process that does the same')
    await pause(empty === 0 ? LOOK_EVERY_MS : LOOK_AGAIN_MS)
  }
}

async function partsLeft({ all }: MigrationTarget, { database }: Named): Promise<string[]> {
  const found = await all<[string, string]>(
    `SELECT database, name FROM system.tables WHERE database IN ({database:String}, {internal:String}) AND match(name, '^migration_${PART_NAMES}$')`,
    { database, internal: internalOf(database) },
  )
  return found.map(([of, name]) => `${quoteName(of)}.${name}`)
}

/**
 * A table apart for one partition, of this server alone, while `work` is at it. Merges are synced as inserts are: what they made
 * takes its place at once, and what they were made from is dropped.
 */
export async function usePart(
  { layout, runPlain }: Rewriting,
  like: string,
  work: (part: string) => Promise<void>,
  name = `part_${randomBytes(6).toString('hex')}`,
): Promise<void> {
  const part = `${quoteName(layout.internal)}.migration_${name}`
  const drop = () => runPlain(`DROP TABLE IF EXISTS ${part} SYNC ${ANY_SIZE}`)
  await runPlain(
    `CREATE TABLE ${part} AS ${like}
     ENGINE = MergeTree PARTITION BY toYYYYMMDD(ts + toIntervalMicrosecond(received_delta)) ORDER BY (metric, device, ts)
     SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1`,
  )
  try {
    await work(part)
  } catch (error) {
    // What cannot be dropped now is dropped by the next try.
    await drop().catch(() => {})
    throw error
  }
  await drop()
}
