/**
 * Where the tables are that are not for analysts: in a database of their own, beside the one of the readings; in that one too
 * before version 4 of the schema, and on a server whose user may not create another.
 *
 * Asked when it is needed first, and again when a table is not found: another process may migrate while this one runs.
 */
import { internalOf } from './database.ts'
import { codeOf } from './error-classes.ts'
import type { Statement } from './history.ts'
import { quoteName } from './schema.ts'

export interface Place {
  /** The name of that database, unquoted. */
  internal(): Promise<string>
  /** Runs `work` with the quoted name; once more when a table was not found and the tables have moved since. */
  use<Result>(work: (internal: string) => Promise<Result>): Promise<Result>
}

/** The table whose database is asked for. Until a migration is through, the old one stands beside the new one and is right. */
const WITNESS = 'readings_1h'

/** UNKNOWN_TABLE and UNKNOWN_DATABASE. */
const NOT_FOUND = new Set([60, 81])

export function openPlace(database: string, all: <Row>(statement: Statement) => Promise<Row[]>): Place {
  let known: string | null = null
  return { internal, use }

  async function internal(): Promise<string> {
    if (known !== null) return known
    const found = await all<[string]>({
      sql: 'SELECT database FROM system.tables WHERE name = {witness:String} AND database IN ({database:String}, {internal:String})',
      params: { witness: WITNESS, database, internal: internalOf(database) },
    })
    const places = found.map(([name]) => name)
    if (places.length === 0) return database
    known = places.includes(database) ? database : internalOf(database)
    return known
  }

  async function use<Result>(work: (internal: string) => Promise<Result>): Promise<Result> {
    const tried = await internal()
    try {
      return await work(quoteName(tried))
    } catch (error) {
      if (!isNotFound(error)) throw error
      known = null
      const now = await internal()
      if (now === tried) throw error
      return work(quoteName(now))
    }
  }
}

/** True when a statement named a table or a database that is not there. */
export function isNotFound(error: unknown): boolean {
  return NOT_FOUND.has(codeOf(error) ?? 0)
}
