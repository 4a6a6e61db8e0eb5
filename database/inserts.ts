/**
 * Waiting for inserts that nobody waits for any more: a client that died or gave up leaves its INSERT to the engine, and what
 * is counted before that has ended may be one row more a moment later [G2].
 *
 * Every insert of ours has a deduplication token that begins with its source, and a server shows the settings of each
 * statement that runs. So only those of one source are waited for, while other writers go on.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../errors.ts'
import type { Statement } from './history.ts'

const LOOK_EVERY_MS = 50
const WAIT_MS_MAX = 60_000

/** In a row. A statement that was just handed to the engine is listed a moment later, so one empty look proves little. */
const EMPTY_LOOKS = 2

/** The statements that run: with a cluster, on all of its replicas. */
export function processesOf(cluster: string | null): string {
  return cluster === null ? 'system.processes' : `clusterAllReplicas('${cluster}', system.processes)`
}

/** With a cluster, on all replicas that can be reached: what runs on one that cannot is not decided by what is counted here. */
export function underWay(source: string, cluster: string | null): Statement {
  const processes = processesOf(cluster)
  const settings = cluster === null ? '' : ' SETTINGS skip_unavailable_shards = 1'
  return {
    sql: `SELECT count() FROM ${processes} WHERE query_kind = 'Insert'
      AND startsWith(Settings['insert_deduplication_token'], {prefix:String})${settings}`,
    params: { prefix: `${source}/` },
  }
}

/** Rejects with `database_unavailable` when one still runs after a minute, when the database cannot tell, or by `signal`. */
export async function waitForInserts(
  count: () => Promise<[number][]>,
  source: string,
  signal?: AbortSignal,
): Promise<void> {
  const giveUpAt = performance.now() + WAIT_MS_MAX
  for (let empty = 0; ; ) {
    const [[running] = [0]] = await count()
    empty = running === 0 ? empty + 1 : 0
    if (empty === EMPTY_LOOKS) return
    if (performance.now() > giveUpAt) {
      throw new SurgetankError(
        'database_unavailable',
        `${running} earlier inserts of ${source} still run after ${WAIT_MS_MAX} ms`,
      )
    }
    await pause(LOOK_EVERY_MS, undefined, signal === undefined ? {} : { signal }).catch((error: unknown) => {
      throw new SurgetankError('database_unavailable', 'waiting for earlier inserts was given up', error)
    })
  }
}
