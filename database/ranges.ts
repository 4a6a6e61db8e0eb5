/** The SQL that looks at a range of the log in the database: what the writers ask when the end of an insert is unknown. */
import type { RollupTable, SourceRange } from './database.ts'
import type { Statement } from './history.ts'

/** The rows of a range, by the parameters source, from and to. */
export const OF_RANGE = 'source = {source:String} AND source_position >= {from:UInt64} AND source_position < {to:UInt64}'

const NUMERIC = "kind IN ('number', 'integer', 'bool')"

/**
 * Three numbers: the numeric readings of a range; all numeric readings in the buckets that these touch; and how many of
 * them the rollup has. When the second lacks exactly the first, the rollup's part of this range was lost.
 */
export function lackingStatement(rollup: RollupTable, range: SourceRange): Statement {
  const bucket = rollup === 'readings_1m' ? 'toStartOfMinute(ts)' : 'toStartOfHour(ts)'
  const mine = `FROM telemetry.readings WHERE ${OF_RANGE} AND ${NUMERIC}`
  const touched = `(SELECT DISTINCT metric, device, ${bucket} ${mine})`
  return {
    sql: `SELECT
        (SELECT count() ${mine}),
        (SELECT count() FROM telemetry.readings WHERE ${NUMERIC} AND (metric, device, ${bucket}) IN ${touched}),
        (SELECT sum(readings) FROM telemetry.${rollup} WHERE (metric, device, bucket) IN ${touched})`,
    params: { ...range },
  }
}
