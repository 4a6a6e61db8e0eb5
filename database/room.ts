/** What a rewriting migration needs of the disk, and what is free there. Only reads. */
import { SurgetankError } from '../errors.ts'
import { internalOf } from './database.ts'
import type { Reads } from './examine.ts'

export interface Room {
  /** Readings that are not copied yet. */
  readonly rows: number
  readonly bytesNeeded: number
  readonly bytesFree: number
}

/** For the files of tables that hold next to nothing, and what is written meanwhile. */
const BYTES_APART = 64 << 20

/**
 * The new rows take no more than the old ones, which stay until the end. The largest day is there thrice more: its parts are merged,
 * and a server keeps what was merged or replaced for minutes. The newest state is written anew, of which some more may be there
 * for a while.
 */
export async function measureRoom({ all }: Reads, database: string): Promise<Room> {
  const partitions = await all<[string, number, number]>(
    `SELECT partition_id, sum(rows), sum(bytes_on_disk) FROM system.parts
     WHERE active AND database = {database:String} AND table = 'readings' GROUP BY partition_id`,
    { database },
  )
  const copied = new Map(
    await all<[string, number]>(
      `SELECT partition_id, sum(rows) FROM system.parts
       WHERE active AND database IN ({database:String}, {internal:String}) AND table = 'migration_readings_copy' GROUP BY partition_id`,
      { database, internal: internalOf(database) },
    ),
  )
  const [[stateBytes] = [0]] = await all<[number]>(
    "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = {database:String} AND table = 'state'",
    { database },
  )
  const left = partitions.filter(([partition, rows]) => copied.get(partition) !== rows)
  const bytes = left.map(([, , bytes]) => bytes)
  const needed = sum(bytes) + 3 * Math.max(0, ...bytes) + 2 * stateBytes + BYTES_APART
  return { rows: sum(left.map(([, rows]) => rows)), bytesNeeded: needed, bytesFree: await readFree({ all }, database) }
}

/** On the disks where the readings are; of a server without any of them, on the one that it takes otherwise. */
async function readFree({ all }: Reads, database: string): Promise<number> {
  const [[disks, free, least] = [0, 0, 0]] = await all<[number, number, number]>(
    `SELECT count(), sum(unreserved_space), (SELECT min(unreserved_space) FROM system.disks) FROM system.disks WHERE name IN
     (SELECT disk_name FROM system.parts WHERE active AND database = {database:String} AND table = 'readings')`,
    { database },
  )
  return disks === 0 ? least : free
}

/** Throws `database_no_room` (stop) where less is free than is needed. */
export function checkRoom({ rows, bytesNeeded, bytesFree }: Room): void {
  if (bytesFree >= bytesNeeded) return
  throw new SurgetankError(
    'database_no_room',
    `${rows} readings are to be written anew, which needs ${mib(bytesNeeded)} MiB beside the old ones; ${mib(bytesFree)} MiB are free. Make room, and start again: the old tables are as they were.`,
  )
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

function mib(bytes: number): number {
  return Math.ceil(bytes / (1 << 20))
}
