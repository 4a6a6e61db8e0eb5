/**
 * Waiting for inserts that nobody waits for any more: a client that died or gave up leaves its INSERT to the engine, and what
 * is counted before that has ended may be one row more a moment later [G2].
 */
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../errors.ts'
import type { Statement } from './history.ts'

const LOOK_EVERY_MS = 50
const WAIT_MS_MAX = 60_000

/** In a row. A statement that was just handed to the engine is listed a moment later, so one empty look proves little. */
const EMPTY_LOOKS = 2

/**
 * The embedded engine's statements begin with a comment; a name may stand in quotes. What a query says elsewhere is text.
 * All that inserts here names the database, too.
 */
const UNDER_WAY: Statement = {
  sql: `SELECT count() FROM system.processes WHERE query_kind = 'Insert'
    AND match(query, '(?is)^\\s*(/\\*.*?\\*/\\s*)*INSERT\\s+INTO\\s+(TABLE\\s+)?[\`"]?telemetry[\`"]?\\s*\\.\\s*[\`"]?readings[\`"]?(\\W|$)')`,
  params: {},
}

/** Rejects with `database_unavailable` when one still runs after a minute, when the database cannot tell, or by `signal`. */
export async function waitForInserts(
  all: (statement: Statement) => Promise<[number][]>,
  signal?: AbortSignal,
): Promise<void> {
  const giveUpAt = performance.now() + WAIT_MS_MAX
  for (let empty = 0; ; ) {
    const [[running] = [0]] = await all(UNDER_WAY)
    empty = running === 0 ? empty + 1 : 0
    if (empty === EMPTY_LOOKS) return
    if (performance.now() > giveUpAt) {
      throw new SurgetankError('database_unavailable', `${running} earlier inserts still run after ${WAIT_MS_MAX} ms`)
    }
    await pause(LOOK_EVERY_MS, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
      throw new SurgetankError('database_unavailable', 'waiting for earlier inserts was given up', error)
    })
  }
}
