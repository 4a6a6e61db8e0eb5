/**
 * Two versions on one Kafka, one Redis and one ClickHouse: who waits for whom, so that neither meets what it cannot take.
 *
 * What a newer broker writes into the log an older writer or reader cannot read, and what a newer writer makes of the tables an
 * older writer cannot insert into. So the order to upgrade in is: writers, readers and APIs first, then the brokers. It
 * is kept here by the processes themselves, as far as the older ones leave a trace (`pump/kafka-members.ts`,
 * `space/redis-marks.ts`); docs/UPGRADE.md says how far that is.
 */
import type { Logger } from 'pino'
import type { Database } from '../database/database.ts'
import { hasFate, SurgetankError } from '../errors.ts'
import { LINE_FORMAT } from '../model/message.ts'
import type { Older } from '../space/redis-marks.ts'
import { fetchWriters, type LogPlace } from './adapters.ts'
import { SCHEMA_VERSION } from './build-info.ts'
import { openPatiently, type Patience } from './patience.ts'

export const ORDER = 'upgrade the writers and readers first, then the brokers'

const OLDER_BROKERS =
  'older brokers serve devices, too: replace them soon; what a device sends again to one of them may be stored twice'

/** Longer than a process that was killed is taken to live: the session of a writer is 15 s, a lease 5 s. */
const GRACE_MS = 20_000
/** Longer than Kafka lets writers come and go (30 s); a broker that is told nothing serves its devices then. */
const UNTOLD_MS_MAX = 35_000

export interface BrokerNeighbours {
  readonly log: LogPlace
  /** Of the space; null where it is not shared. */
  readonly older: (() => Promise<Older>) | null
}

/**
 * Before a broker writes its first line: resolves when nobody is known to live who could not read it. Rejects with
 * `upgrade_order` (stop) when somebody still does after GRACE_MS. Older brokers are told of in the log only.
 */
export function refuseBeforeReaders({ log: place, older }: BrokerNeighbours, patience: Patience): Promise<void> {
  const since = performance.now()
  const { log } = patience
  let told = false
  return openPatiently('older processes to end', patience, async () => {
    const writers = await unlessUntold(since + UNTOLD_MS_MAX, log, () => olderWriters(place))
    const readers = await unlessUntold(since, log, olderReaders)
    const found = [...writers, ...readers]
    if (found.length === 0) return
    const sentence = `Lines of format ${LINE_FORMAT} cannot be read by ${found.join(' and ')}: ${ORDER}.`
    throw new SurgetankError(performance.now() - since < GRACE_MS ? 'older_beside' : 'upgrade_order', sentence)
  })

  async function olderReaders(): Promise<string[]> {
    if (older === null) return []
    const { brokers, readers } = await older()
    if (brokers.length > 0 && !told) log.warn({ units: brokers }, OLDER_BROKERS)
    told = true
    return readers.map(name => `the reader ${name} in Redis`)
  }
}

/** What cannot be asked is asked again until then, and taken for nobody afterwards: a broker needs neither writers nor Redis. */
async function unlessUntold(until: number, log: Logger, ask: () => Promise<string[]>): Promise<string[]> {
  try {
    return await ask()
  } catch (error) {
    if (!hasFate(error, 'retry') || performance.now() < until) throw error
    log.warn({ why: error.message }, 'whether older processes run beside this one cannot be asked')
    return []
  }
}

async function olderWriters(place: LogPlace): Promise<string[]> {
  const writers = await fetchWriters(place)
  return writers.filter(({ knows }) => knows.lines < LINE_FORMAT).map(({ host }) => `the writer at ${host}`)
}

/**
 * Before the schema is brought up to date: resolves when no older writer is left, for as long as that takes. Where there is
 * nothing to change, at once.
 */
export function waitForOlderWriters(
  place: LogPlace,
  database: Pick<Database, 'examine'>,
  patience: Patience,
): Promise<void> {
  return openPatiently('older writers to end', patience, async () => {
    const { applied, newest } = await database.examine()
    if (applied === newest || applied === 0) return
    const older = (await fetchWriters(place)).filter(({ knows }) => knows.schema < SCHEMA_VERSION)
    if (older.length === 0) return
    const hosts = [...new Set(older.map(({ host }) => host))].join(', ')
    const detail = `It writes into tables of version ${applied}, which are to be brought to ${newest}: end the older writers (${hosts}).`
    throw new SurgetankError('older_beside', detail)
  })
}
