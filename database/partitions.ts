/**
 * Partitions of two tables, compared by their rows. Outside of the engine: what a JOIN gives for a missing row depends on
 * `join_use_nulls`, which a server's profile may have set, and a comparison with NULL finds nothing.
 */
import type { Reads } from './examine.ts'

/** Rows by the id of their partition. */
export type Counts = ReadonlyMap<string, number>

/** `table` is quoted and stands with its database. Rows that somebody deleted do not count. */
export async function countPartitions({ all }: Reads, table: string): Promise<Counts> {
  return new Map(await all<[string, number]>(`SELECT _partition_id AS id, count() AS n FROM ${table} GROUP BY id`))
}

/** Partitions of `old` that have another number of rows in `now`, or none; the newest first. Pure. */
export function differing(old: Counts, now: Counts): string[] {
  return newestFirst([...old].filter(([id, rows]) => (now.get(id) ?? 0) !== rows))
}

/** Partitions of `old` that have fewer rows in `now`; the newest first. Pure. */
export function lacking(old: Counts, now: Counts): string[] {
  return newestFirst([...old].filter(([id, rows]) => (now.get(id) ?? 0) < rows))
}

function newestFirst(partitions: readonly (readonly [id: string, rows: number])[]): string[] {
  return partitions
    .map(([id]) => id)
    .sort()
    .reverse()
}
