/** What `doctor` finds out about the servers that are configured: does each answer as a start needs it, and with these credentials? */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { pino } from 'pino'
import { type DatabaseOptions, openDatabase } from '../database/clickhouse-database.ts'
import { ACCESS_DEFAULTS, type DatabaseAccess, internalOf, type ServerFound } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import { RECEIPT_AHEAD_MS_MAX } from '../pump/pump.ts'
import { within } from '../within.ts'
import { examineLog, openSpace, openView, type Places } from './adapters.ts'
import type { Finding } from './doctor.ts'
import { isOutOfReach } from './doctor-grants.ts'

/** Of one server: longer than any of them needs, and short enough for whoever waits. */
const ANSWER_MS_MAX = 15_000
/** What the clients of the servers say meanwhile is said by the findings. */
const log = pino({ level: 'silent' })

export function examineServers(places: Places): Promise<Finding[]> {
  const { log: pump, space, database } = places
  return Promise.all([
    ...(pump.kind === 'kafka' ? [examineKafka(pump)] : []),
    ...(space.kind === 'redis' ? [examineRedis(space)] : []),
    ...(database.kind === 'server' ? [examineClickHouse(database.access)] : []),
  ])
}

function examineKafka(place: Places['log'] & { kind: 'kafka' }): Promise<Finding> {
  const advice = 'Without it no reading is accepted.'
  return examine({ what: 'kafka', down: 'stop', advice }, async () => {
    const view = await openView(place, log)
    const partitions = await view.places().finally(() => view.close())
    const found = `${place.brokers.join(', ')}: topic ${place.topic}, ${partitions.length} partitions`
    return { found, toMend: await examineLog(place, log) }
  })
}

function examineRedis(place: Places['space'] & { kind: 'redis' }): Promise<Finding> {
  const advice = 'Without it readings are accepted and stored, and no state is served.'
  return examine({ what: 'redis', down: 'warn', advice }, async () => {
    const { space } = await openSpace(place, false, log)
    const { devices } = await space.counts().finally(() => space.close())
    return { found: `${hostsOf(place.url)}: ${devices} devices` }
  })
}

function hostsOf(urls: string): string {
  return urls
    .split(',')
    .map(url => new URL(url).host)
    .join(', ')
}

function examineClickHouse(access: (Places['database'] & { kind: 'server' })['access']): Promise<Finding> {
  const advice = 'Without it readings wait in the log, and no history is served.'
  return examine({ what: 'clickhouse', down: 'warn', advice }, async () => {
    const found = await askSchema(access)
    return {
      found: `${access.url}: ClickHouse ${found.version}, user ${access.user}; ${describeSchema(found)}`,
      toMend: [...schemaToMend(found, access.database), ...(await internalToMake(found, access))],
    }
  })
}

/** The receipts of a log that can be read now, against the clock of this machine; none of one that cannot. */
export async function examineReceipts(
  place: Places['log'],
  now: number,
  answerMsMax = ANSWER_MS_MAX,
): Promise<Finding[]> {
  const what = 'receipts'
  const newest = await newestReceipt(place, answerMsMax)
  if (newest === undefined) {
    const advice = 'Whether the last one is ahead of the clock is not known. Ask again when the log answers faster.'
    return [{ what, found: 'could not be read in time', verdict: 'warn', advice }]
  }
  if (newest === null || newest === 0) return []
  const at = new Date(newest).toISOString()
  if (newest - now <= RECEIPT_AHEAD_MS_MAX) return [{ what, found: `the last one is of ${at}`, verdict: 'ok' }]
  const found = `the last one is of ${at}, ${Math.round((newest - now) / 1_000)} s ahead of the clock`
  const advice =
    'Set the clock right. Until it is past that time, what is received gets times right behind it, in order and 1 µs apart.'
  return [{ what, found, verdict: 'warn', advice }]
}

/** Null of a log that cannot be read, undefined of one that does not answer in time. */
async function newestReceipt(place: Places['log'], answerMsMax: number): Promise<number | null | undefined> {
  try {
    const read = openView(place, log).then(view => view.newestReceivedAt().finally(() => view.close()))
    return await within(answerMsMax, read)
  } catch (error) {
    // Why it cannot be read is the finding of another question.
    if (error instanceof SurgetankError) return null
    throw error
  }
}

/** Who is in another container, or in a unit with its own /tmp, sees another folder for temporary files. */
export const SEEN_FROM = 'Run this where it runs: in its container, or with the same temporary folder.'

/** The embedded engine, of which only one process can read: asked where it runs. Null where none runs. */
export function examineEngine(access: DatabaseAccess | null): Promise<Finding> {
  const what = 'clickhouse'
  if (access === null) {
    const found = 'embedded, and not running: its schema is looked at when it starts, and by doctor while it runs'
    return Promise.resolve({ what, found, verdict: 'ok' })
  }
  const socketFolder = access.socketPath === null ? null : dirname(access.socketPath)
  if (socketFolder !== null && !existsSync(socketFolder)) {
    const found = `embedded, with its sockets in ${socketFolder}, which is not to be seen from here`
    return Promise.resolve({ what, found, verdict: 'warn', advice: SEEN_FROM })
  }
  const advice = 'Readings wait in the log, and no history is served.'
  return examine({ what, down: 'warn', advice }, async () => {
    const found = await askSchema(access, { readonly: true })
    return {
      found: `embedded, ClickHouse ${found.version}; ${describeSchema(found)}`,
      toMend: schemaToMend(found, ACCESS_DEFAULTS.database),
    }
  })
}

async function askSchema(access: DatabaseAccess, options: DatabaseOptions = {}): Promise<ServerFound> {
  const database = openDatabase(access, options)
  try {
    return await database.examine()
  } finally {
    await database.close()
  }
}

function describeSchema({ applied, newest, rewrite, internal }: ServerFound): string {
  if (applied === newest) return `its tables are there, of version ${applied}, those of the system in ${internal}`
  if (applied === 0 && rewrite === null) return 'its tables are made at the start'
  const way = `its tables are brought from version ${applied} to ${newest} at the start`
  if (rewrite === null) return way
  const { rows, bytesNeeded, bytesFree } = rewrite
  return `${way}: ${rows} readings are written anew, for which ${mib(bytesNeeded)} MiB are needed and ${mib(bytesFree)} MiB are free`
}

function schemaToMend({ applied, newest, rewrite, internal, changed }: ServerFound, database: string): string[] {
  const apart = internalOf(database)
  return [
    ...changed,
    ...(rewrite !== null && rewrite.bytesFree < rewrite.bytesNeeded
      ? ['Make room before you start this version: it changes nothing until there is enough.']
      : []),
    ...(applied === newest && internal === database
      ? [
          `Analysts see the tables of the system beside their own: when they were made, the user could not create the database ${apart}.`,
        ]
      : []),
  ]
}

/** Only of a server, and only while the rows are yet to be written anew: the embedded engine makes what it needs. */
async function internalToMake({ rewrite, internal }: ServerFound, access: DatabaseAccess): Promise<string[]> {
  const apart = internalOf(access.database)
  if (rewrite === null || internal === apart) return []
  const database = openDatabase(access)
  try {
    if (!(await isOutOfReach(database, apart))) return []
  } catch (error) {
    if (error instanceof SurgetankError)
      return [`Whether this user may create ${apart} cannot be asked: ${error.message}`]
    throw error
  } finally {
    await database.close()
  }
  return [
    `Create the database ${apart} and grant this user the rights on it before you start this version (docs/UPGRADE.md): it can neither see nor create it, and the tables of the system would stay beside those of the analysts.`,
  ]
}

function mib(bytes: number): number {
  return Math.ceil(bytes / (1 << 20))
}

interface Examined {
  readonly what: string
  /** What it means when the server is away; what an operator must mend always stops. */
  readonly down: 'warn' | 'stop'
  readonly advice: string
}

interface Answer {
  readonly found: string
  /** What works and should be mended, a sentence each. */
  readonly toMend?: readonly string[]
}

async function examine({ what, down, advice }: Examined, ask: () => Promise<Answer>): Promise<Finding> {
  try {
    const answer = await within(ANSWER_MS_MAX, ask())
    if (answer === undefined) throw new SurgetankError('busy', `No answer within ${ANSWER_MS_MAX / 1_000} s.`)
    const { found, toMend = [] } = answer
    return toMend.length === 0
      ? { what, found, verdict: 'ok' }
      : { what, found, verdict: 'warn', advice: toMend.join(' ') }
  } catch (error) {
    if (!(error instanceof SurgetankError)) throw error
    if (error.code === 'log_missing') return { what, found: 'answers; the topic is not made yet', verdict: 'ok' }
    return { what, found: error.message, verdict: error.fate === 'stop' ? 'stop' : down, advice }
  }
}
