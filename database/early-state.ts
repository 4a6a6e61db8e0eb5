/**
 * The state of the first commit that ran (189cb15), which says version 1 and lacks what was added to that file later:
 * `seen_at`. It is given the column before any file is run, and what it holds is counted again from the readings.
 */
import type { MigrationTarget } from './migrate.ts'
import { type Layout, renderStatements } from './schema.ts'

const MEND = [
  `ALTER TABLE telemetry.state ADD COLUMN IF NOT EXISTS
   seen_at SimpleAggregateFunction(max, DateTime64(3, 'UTC')) COMMENT 'The last receipt of any of its readings, late ones included'`,
  `ALTER TABLE telemetry.state_mv MODIFY QUERY
   SELECT device, metric, tuple(ts, received_at, kind, ifNull(value, 0), value_str) AS newest, received_at AS seen_at
   FROM telemetry.readings`,
  // Not by a token: what was lost between the two statements is made by the next try. A maximum may be repeated.
  `INSERT INTO telemetry.state (device, metric, newest, seen_at) SETTINGS insert_deduplicate = 0, async_insert = 0
   SELECT device, metric, max(tuple(ts, received_at, kind, ifNull(value, 0), value_str)), max(received_at)
   FROM telemetry.readings GROUP BY device, metric`,
]

/** Safe to repeat. A kill before the last statement leaves rows without `seen_at`, which `fillState` finds. */
export async function mendFirstState(target: MigrationTarget, layout: Layout): Promise<void> {
  for (const statement of renderStatements(MEND, layout)) await target.command(statement)
}
