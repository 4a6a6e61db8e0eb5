/**
 * Tables apart: where rows are put together that then join a table as they are, by ATTACH PARTITION, past its tokens and past
 * the views that it feeds.
 *
 * Two writers of the same source may both be at it: an old owner that was frozen, and the new one. So each attempt has a
 * table of its own, named after the source, and whoever begins drops those of all earlier attempts first. An ATTACH
 * that still comes then finds no table; one that is at work holds it, and the DROP waits for its end. Should the old
 * owner, just woken, drop the table of the new one, the attempt is made again.
 */
import { createHash, randomBytes } from 'node:crypto'
import { SurgetankError } from '../errors.ts'
import type { Fence } from './database.ts'
import type { Statement } from './history.ts'
import { isNotFound } from './place.ts'
import { unquoted } from './schema.ts'

/** What is needed of a database; statements run in the database of the readings. */
export interface ApartTarget {
  /** The quoted name of the database that holds the rollups, and these tables. */
  readonly internal: string
  command(sql: string, params?: Readonly<Record<string, unknown>>): Promise<void>
  all<Row>(statement: Statement): Promise<Row[]>
}

/**
 * The keys of the tables, as the schema has them: parts join only where these are equal. Named, and not taken over with the
 * engine, because that of a replicated table has its place in Keeper.
 */
const ENGINES = {
  readings:
    'MergeTree PARTITION BY toYYYYMMDD(ts + toIntervalMicrosecond(received_delta)) ORDER BY (metric, device, ts)',
  readings_1m: 'AggregatingMergeTree PARTITION BY toYear(bucket) ORDER BY (metric, device, bucket)',
  readings_1h: 'AggregatingMergeTree PARTITION BY toYear(bucket) ORDER BY (metric, device, bucket)',
} as const
export type ApartTable = keyof typeof ENGINES

export interface Apart {
  /** With its database. */
  readonly name: string
  /** Runs `work` on the table; rejects with `database_unavailable` when another attempt has dropped it. */
  use<Result>(work: () => Promise<Result>): Promise<Result>
  /** All rows join the table, partition by partition; `fence` is asked before. The rows stay here, too. */
  attach(fence: Fence): Promise<void>
  drop(): Promise<void>
}

/** Removes what earlier attempts for this source left, whoever made them. Of the owner of the claim only. */
export async function dropApart({ command, all, internal }: ApartTarget, source: string, fence: Fence): Promise<void> {
  await fence()
  const left = await all<[string]>({
    sql: 'SELECT name FROM system.tables WHERE database = {internal:String} AND startsWith(name, {prefix:String})',
    params: { internal: unquoted(internal), prefix: prefixOf(source) },
  })
  for (const [name] of left) await command(`DROP TABLE IF EXISTS ${internal}.${name} SYNC`)
}

/** An empty table like `table`. */
export async function openApart(
  { command, all, internal }: ApartTarget,
  source: string,
  table: ApartTable,
): Promise<Apart> {
  const whole = table === 'readings' ? table : `${internal}.${table}`
  const name = `${internal}.${prefixOf(source)}${table}_${randomBytes(6).toString('hex')}`
  await command(
    `CREATE TABLE ${name} AS ${whole} ENGINE = ${ENGINES[table]} SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`,
  )
  return { name, use, attach, drop }

  async function use<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work()
    } catch (error) {
      // All other tables that a repair names are of the schema.
      if (!isNotFound(error)) throw error
      throw new SurgetankError('database_unavailable', `another repair of ${source} has begun`, error)
    }
  }

  async function attach(fence: Fence): Promise<void> {
    const sql = `SELECT DISTINCT _partition_id FROM ${name}`
    const partitions = await use(() => all<[string]>({ sql, params: {} }))
    for (const [partition] of partitions) {
      await fence()
      const sql = `ALTER TABLE ${whole} ATTACH PARTITION ID {partition:String} FROM ${name}`
      await use(() => command(sql, { partition }))
    }
  }

  function drop(): Promise<void> {
    return command(`DROP TABLE IF EXISTS ${name} SYNC`)
  }
}

/** The name of a source may hold anything; its digest may stand in the name of a table. */
function prefixOf(source: string): string {
  return `repair_${createHash('sha256').update(source).digest('hex').slice(0, 16)}_`
}
