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
import type { PumpInlet } from '../pump/pump.ts'
import type { Older } from '../space/redis-marks.ts'
import { fetchWriters, type LogPlace } from './adapters.ts'
import { SCHEMA_VERSION } from './build-info.ts'
import { openPatiently, type Patience } from './patience.ts'

export const ORDER = 'upgrade the writers and readers first, then the brokers'

const OLDER_BROKERS =
  'older brokers serve devices, too: replace them soon; what a device sends again to one of them may be stored twice'
const NOT_READ_BY = 'the log already holds lines that older processes beside this one cannot read: upgrade them'

/** Longer than a process that was killed is taken to live: the session of a writer is 15 s, a lease 5 s. */
const GRACE_MS = 20_000
/** Longer than Kafka lets writers come and go (30 s); a broker that is told nothing serves its devices then. */
const UNTOLD_MS_MAX = 35_000
/** How far back the log is looked into for lines of this format: a few reads, and only where somebody older is found. */
const LOOKED_AT_MESSAGES = 1_000

export interface BrokerNeighbours {
  readonly log: LogPlace
  /** Of that log. */
  readonly inlet: Pick<PumpInlet, 'tail'>
  /** Of the space; null where it is not shared. */
  readonly older: (() => Promise<Older>) | null
}

/**
 * Before a broker writes its first line: resolves when nobody is known to live who could not read it. Rejects with
 * `upgrade_order` (stop) when somebody still does after GRACE_MS. Older brokers are told of in the log only, and so is
 * everybody where the newest of the log has lines of this format already: to wait would protect nobody then.
 */
export function refuseBeforeReaders({ log: place, inlet, older }: BrokerNeighbours, patience: Patience): Promise<void> {
  const since = performance.now()
  const { log } = patience
  let told = false
  return openPatiently('older processes to end', patience, async () => {
    const writers = await unlessUntold(since + UNTOLD_MS_MAX, log, () => olderWriters(place))
    const readers = await unlessUntold(since, log, olderReaders)
    const found = [...writers, ...readers]
    if (found.length === 0) return
    if (await holdsThisFormat(inlet)) {
      log.warn({ older: found }, NOT_READ_BY)
      return
    }
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

async function holdsThisFormat(inlet: BrokerNeighbours['inlet']): Promise<boolean> {
  const chunks = await inlet.tail(LOOKED_AT_MESSAGES)
  return chunks.some(({ format, messages }) => messages > 0 && format >= LINE_FORMAT)
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

/** Before the schema is brought up to date: resolves when `refuseBesideOlderWriters` does, for as long as that takes. */
export function waitForOlderWriters(
  place: LogPlace,
  database: Pick<Database, 'examine'>,
  patience: Patience,
): Promise<void> {
  return openPatiently('older writers to end', patience, () => refuseBesideOlderWriters(place, database))
}

/**
 * Rejects with `older_beside` (retry) while an older writer lives; asks nobody where there is nothing to change, or where no
 * other process can write what this log holds.
 */
export async function refuseBesideOlderWriters(place: LogPlace, database: Pick<Database, 'examine'>): Promise<void> {
  if (place.kind === 'directory') return
  const { applied, newest } = await database.examine()
  if (applied === newest || applied === 0) return
  const older = (await fetchWriters(place)).filter(({ knows }) => knows.schema < SCHEMA_VERSION)
  if (older.length === 0) return
  const hosts = [...new Set(older.map(({ host }) => host))].join(', ')
  const detail = `It writes into tables of version ${applied}, which are to be brought to ${newest}: end the older writers (${hosts}).`
  throw new SurgetankError('older_beside', detail)
}
