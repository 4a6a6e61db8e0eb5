/**
 * Chunks that the log no longer holds when a writer comes to them. Retention must never cut what is not written; if it
 * did, nobody may miss it: an error in the log and a metric to alarm on [G5]. The writer goes on behind the gap.
 */
import type { Logger } from 'pino'
import type { Database, SourceRange } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { PlannedBatch } from './insert.ts'

/** Of chunks that were never planned: none of them can be in ClickHouse. */
export function reportGap({ source, from, to }: SourceRange, log: Logger): void {
  if (to <= from) return
  const gap = new SurgetankError('log_cut', `${source}: positions ${from} to ${to - 1} are gone.`)
  log.error({ err: gap, source, from, to }, gap.message)
  metrics.logCut.inc(to - from)
}

/** Of a plan, once it is settled: its insert may have brought all of it into ClickHouse before the log was cut. */
export async function reportGapOfPlan(
  { source, from, to, mode, chunks }: PlannedBatch,
  { database, log }: { database: Database; log: Logger },
): Promise<void> {
  const gap = { source, from, to: chunks[0]?.position ?? to }
  if (gap.to === from) return
  const stored = await database.countReadings(gap)
  // An insert of the whole range is in ClickHouse as a whole; of parts, some may be.
  if (stored > 0 && mode === 'whole') log.warn({ ...gap, stored }, 'the log was cut, but what is gone is in ClickHouse')
  else reportGap(gap, log)
}
