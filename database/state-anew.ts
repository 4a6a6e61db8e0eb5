/**
 * The newest state, written anew: from the old one, and from the readings where that does not tell all. It is a maximum, so
 * every statement here may run as often as it likes, and what comes twice counts once.
 */
import { isOld } from './examine.ts'
import { type Rewriting, settingsOf } from './rewrite.ts'
import { quoteName } from './schema.ts'

const TIME = "DateTime64(6, 'UTC')"
const NEWEST = `Tuple(ts ${TIME}, received_at ${TIME}, kind Enum8('number' = 1, 'integer' = 2, 'bool' = 3, 'string' = 4, 'null' = 5), value Float64, value_str String)`

/** Into the table where it will stay; or beside the old one, where both are in one database. */
export async function fillState(rewriting: Rewriting): Promise<void> {
  const { layout, run, all, statements } = rewriting
  const { database, internal } = layout
  const name = internal === database ? 'migration_state_copy' : 'state'
  const head = 'CREATE TABLE IF NOT EXISTS telemetry_internal.state\n'
  for (const sql of statements.filter(one => one.startsWith(head)))
    await run(sql.replace(head, `CREATE TABLE IF NOT EXISTS telemetry_internal.${name}\n`))
  const into = () =>
    `INSERT INTO ${quoteName(internal)}.${name} (device, metric, newest, seen_at) SETTINGS ${settingsOf(rewriting)}`
  const old = `${quoteName(database)}.state`
  const found = await rewriting.look()
  let isWhole = isOld(found, database, 'state')
  if (isWhole) {
    await run(`${into()} SELECT device, metric, CAST(whole AS ${NEWEST}), toDateTime64(seen_at, 6, 'UTC')
      FROM (SELECT device, metric, materialize(newest) AS whole, seen_at FROM ${old} FINAL)`)
    const [[unseen] = [0]] = await all<[number]>(
      `SELECT count() FROM ${old} FINAL WHERE toUnixTimestamp64Milli(seen_at) = 0`,
    )
    isWhole = unseen === 0
  }
  if (isWhole) return
  const readings = `${quoteName(database)}.readings`
  await run(`${into()} SELECT device, metric, CAST(max(tuple(ts, received_at, kind, ifNull(value, 0), value_str)) AS ${NEWEST}),
    toDateTime64(max(received_at), 6, 'UTC') FROM ${readings} GROUP BY device, metric`)
}
