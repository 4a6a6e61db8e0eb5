/**
 * Before the rows are written anew: can what is not for analysts get a database of its own? Where it cannot, everything stays in
 * one database for good, so it is asked while that can still be changed.
 */
import { text } from 'node:stream/consumers'
import type { Database } from '../database/database.ts'

/** The privileges that hold the right to create a database. */
const CREATES = new Set(['ALL', 'ALL PRIVILEGES', 'CREATE', 'CREATE DATABASE'])
const GRANT = /^GRANT (.+) ON (\S+) TO /

/** True when the user sees no database of this name, and may not make one. Rejects as a query does. */
export async function isOutOfReach(database: Pick<Database, 'queryStream'>, name: string): Promise<boolean> {
  const ask = async (sql: string) => text(await database.queryStream(sql, { name }))
  const seen = await ask('SELECT count() FROM system.databases WHERE name = {name:String} FORMAT TSV')
  if (Number(seen) > 0) return false
  return !mayCreate(await ask('SHOW GRANTS FINAL FORMAT TSVRaw'), name)
}

/** By the lines of SHOW GRANTS: whether one of them gives the right to create this database. Pure. */
export function mayCreate(grants: string, name: string): boolean {
  return grants.split('\n').some(line => {
    const [, privileges = '', on = ''] = GRANT.exec(line) ?? []
    const creates = privileges.split(', ').some(privilege => CREATES.has(privilege))
    return creates && isFor(on, name)
  })
}

/** `on` is `*.*`, `telemetry.*`, or one whose name goes on after the `*`, as in `telemetry*.*`. */
function isFor(on: string, name: string): boolean {
  const [database = ''] = on.replaceAll('`', '').split('.')
  return database.endsWith('*') ? name.startsWith(database.slice(0, -1)) : database === name
}
