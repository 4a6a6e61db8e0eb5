/**
 * Runs one request on the engine: a connection of its own, prepared for who asks, its statement, its answer.
 *
 * One connection per request: settings, parameters, the database and a deduplication token can then not leak from one
 * request into the next. A session keeps its connection, and its settings are undone after each request. Those of analysts are
 * kept for requests that want exactly the same (kept-connections.ts).
 */
import { totalmem } from 'node:os'
import { openAdmission, readTableFunctions, refuseUnlessRead } from './analyst.ts'
import { analystDatabase } from './analyst-names.ts'
import { type AnalystLimits, analystSettings, type Setting } from './analyst-settings.ts'
import { refuseFormat } from './analyst-shape.ts'
import type { Answer } from './answer.ts'
import { openCanceller } from './cancel.ts'
import type { Engine, EngineConnection } from './engine.ts'
import { EngineError } from './engine-error.ts'
import { quote } from './engine-tokens.ts'
import { openKeptConnections } from './kept-connections.ts'
import { openLane } from './lanes.ts'
import type { StatementRequest } from './request.ts'
import { patient, stream, whole } from './results.ts'
import { openSessions } from './sessions.ts'
import type { Spool, Statement } from './spool.ts'
import { firstWord, resultFormat } from './sql-text.ts'

/** By the socket that a request comes by: `own` is surgetank itself, everyone else is an analyst. */
export type Role = 'own' | 'analyst'

export interface Execution {
  readonly request: StatementRequest
  readonly role: Role
  readonly statement: Statement
  /** Fires when the client goes away. */
  readonly gone: AbortSignal
}

export interface Executor {
  /**
   * Runs and answers. Rejects with whatever went wrong, before the answer or in the middle of it: whoever gave the answer
   * tells the client then, by its `fail`.
   */
  execute(execution: Execution, respond: (format: string) => Answer): Promise<void>
}

export interface ExecutorOptions {
  readonly engine: Engine
  readonly spool: Spool
  readonly limits: AnalystLimits
}

/** The ping of the official client, by which an engine that hangs is told from one that is busy: it has its own lane. */
const PING = "SELECT 'ping'"

/** Inserts, surgetank's own queries and those of analysts do not wait for each other. Together fewer than the threads of libuv's pool. */
const LANES = {
  insert: { runningMax: 2, waitingMax: 64 },
  own: { runningMax: 4, waitingMax: 256 },
  analyst: { runningMax: 2, waitingMax: 64 },
  ping: { runningMax: 1, waitingMax: 16 },
} as const

/**
 * What one query of surgetank's own may take: without a limit, one that grows with the data ends the child of a small machine.
 * Well before it, groups, sorts and joins go on in files: `max_bytes_in_join` is where a grace hash join splits. Inserts hold
 * one block, which the writers bound. A request may set other values.
 */
const OWN_MEMORY_BYTES_MAX = Math.floor(
  Math.min(2 * 1024 ** 3, Math.min(totalmem(), process.constrainedMemory() || totalmem()) / 4),
)
const OWN_LIMITS: readonly Setting[] = [
  { name: 'max_memory_usage', value: String(OWN_MEMORY_BYTES_MAX) },
  { name: 'max_bytes_before_external_group_by', value: String(Math.floor(OWN_MEMORY_BYTES_MAX / 4)) },
  { name: 'max_bytes_before_external_sort', value: String(Math.floor(OWN_MEMORY_BYTES_MAX / 4)) },
  { name: 'max_bytes_in_join', value: String(Math.floor(OWN_MEMORY_BYTES_MAX / 4)) },
  { name: 'join_algorithm', value: 'grace_hash,hash' },
]

/** Formats whose chunks may simply follow each other; the others repeat a header in each, and are sent whole. */
const STREAMED = new Set(
  'JSONEachRow JSONCompactEachRow JSONStringsEachRow JSONCompactStringsEachRow TabSeparated TSV TabSeparatedRaw TSVRaw CSV RowBinary Native Values LineAsString'.split(
    ' ',
  ),
)

/** How long a client of an analyst may read nothing of an answer that is there. */
const UNREAD_MS_MAX = 30_000

/** The first word of what gives rows as they are computed. */
const QUERY = /^(?:SELECT|WITH|FROM|\()$/

export async function openExecutor({ engine, spool, limits }: ExecutorOptions): Promise<Executor> {
  const { control } = engine
  const unreadMsMax = Math.min(UNREAD_MS_MAX, limits.secondsMax * 1_000)
  const admission = openAdmission(await readTableFunctions(control))
  const canceller = openCanceller(control)
  const sessions = openSessions(() => engine.connect())
  // Apart: a connection that judges is not read-only.
  const judging = openKeptConnections(() => engine.connect())
  const kept = openKeptConnections(() => engine.connect())
  const lanes = {
    insert: openLane(LANES.insert),
    own: openLane(LANES.own),
    analyst: openLane(LANES.analyst),
    ping: openLane(LANES.ping),
  }
  return { execute }

  async function execute(execution: Execution, respond: (format: string) => Answer): Promise<void> {
    const { request, role, statement } = execution
    if (statement.kind === 'insert') return insert(execution, statement, respond)
    const lane = role === 'analyst' ? 'analyst' : statement.sql === PING ? 'ping' : 'own'
    const leave = await lanes[lane].enter(execution.gone)
    const running =
      role === 'own'
        ? withConnection(request, connection => ownQuery(connection, execution, statement.sql, respond))
        : analystQuery(execution, statement.sql, respond)
    const end = await running.finally(leave)
    // Only now, so that whoever has its answer may go on in its session.
    await end()
  }

  async function insert(
    { request, role, gone }: Execution,
    { insert, data, encoding }: Statement & { kind: 'insert' },
    respond: (format: string) => Answer,
  ): Promise<void> {
    if (role !== 'own' || request.readonly) throw new EngineError(164, 'Cannot execute query in readonly mode')
    const started = performance.now()
    const file = await spool.write(data)
    let rows = 0
    try {
      const leave = await lanes.insert.enter(gone)
      const work = (connection: EngineConnection) => insertFile(connection, request, gone, insert, encoding, file.path)
      if (file.bytes > 0) rows = await withConnection(request, work).finally(leave)
      else leave()
    } finally {
      file.remove()
    }
    const counts = { readRows: rows, readBytes: file.bytes, writtenRows: rows, writtenBytes: file.bytes }
    await respond('TabSeparated').end({ ...counts, elapsedMs: performance.now() - started })
  }

  async function insertFile(
    connection: EngineConnection,
    request: StatementRequest,
    gone: AbortSignal,
    { head, settings, format }: (Statement & { kind: 'insert' })['insert'],
    encoding: string | null,
    path: string,
  ): Promise<number> {
    await useDatabase(connection, request.database)
    await set(connection, [...request.settings, ...request.params])
    const sql = `${head} FROM INFILE ${quote(path)} COMPRESSION '${encoding ?? 'none'}' ${settings} FORMAT ${format}`
    const result = await canceller.during(gone, mark => connection.run(mark + sql))
    return result.rows
  }

  async function ownQuery(
    connection: EngineConnection,
    { request, gone }: Execution,
    sql: string,
    respond: (format: string) => Answer,
  ): Promise<() => Promise<void>> {
    const started = performance.now()
    const shape = shapeOf(request, { format: resultFormat(sql), streams: QUERY.test(firstWord(sql)) })
    await prepareOwn(connection, request, sql)
    return run(connection, { sql, ...shape, gone, started, unreadMsMax: null }, respond)
  }

  /** Nothing of an analyst outlives the request, and no session: a read-only user can make no temporary table to keep. */
  async function analystQuery(
    { request, gone }: Execution,
    asked: string,
    respond: (format: string) => Answer,
  ): Promise<() => Promise<void>> {
    const started = performance.now()
    const { database, params } = request
    // Judged where no setting of the analyst's holds.
    const admitted = await judging.use(
      { ...UNPREPARED, gone },
      async () => true,
      connection => admission.admit(connection, { sql: asked, params }),
    )
    const { sql, clause } = admitted
    const shape = shapeOf(request, admitted)
    refuseFormat(shape.format)
    const settings = analystSettings({ address: request.settings, clause, whole: !shape.streamed }, limits)
    const prepare = async (connection: EngineConnection) => {
      const isThere = await useAnalystDatabase(connection, database)
      await set(connection, [...settings, ...params, { name: 'readonly', value: '1' }])
      return isThere
    }
    return kept.use({ database, settings, params, gone }, prepare, connection =>
      run(connection, { sql, ...shape, gone, started, unreadMsMax }, respond),
    )
  }

  async function run(
    connection: EngineConnection,
    { sql, format, streamed, gone, started, unreadMsMax }: Run,
    respond: (format: string) => Answer,
  ): Promise<() => Promise<void>> {
    const answer = patient(respond(format), unreadMsMax)
    const { readRows, readBytes } = await canceller.during(gone, mark =>
      streamed ? stream(connection, mark + sql, format, answer, gone) : whole(connection, mark + sql, format, answer),
    )
    const counts = { readRows, readBytes, writtenRows: 0, writtenBytes: 0, elapsedMs: performance.now() - started }
    return async () => {
      if (!gone.aborted || !streamed) await answer.end(counts)
    }
  }

  async function prepareOwn(connection: EngineConnection, request: StatementRequest, sql: string): Promise<void> {
    await useDatabase(connection, request.database)
    if (request.readonly) await refuseUnlessRead(connection, sql)
    else if (((await connection.classify(sql))?.statements ?? 1) > 1)
      throw new EngineError(62, 'Multi-statements are not allowed')
    // A session's connection could never be made writable again.
    const readonly = request.readonly && request.session === null ? [{ name: 'readonly', value: '1' }] : []
    await set(connection, [...OWN_LIMITS, ...request.settings, ...request.params, ...readonly])
  }

  async function withConnection<Result>(
    request: StatementRequest,
    work: (connection: EngineConnection) => Promise<Result>,
  ): Promise<Result> {
    const { session } = request
    if (session === null) {
      const connection = engine.connect()
      return work(connection).finally(() => connection.close())
    }
    const connection = sessions.take(session)
    try {
      return await work(connection)
    } finally {
      await unset(connection, request.settings)
      sessions.giveBack(session)
    }
  }
}

/** How the result of a statement is sent. */
interface Shape {
  readonly format: string
  readonly streamed: boolean
}

interface Run extends Shape {
  readonly sql: string
  readonly gone: AbortSignal
  readonly started: number
  /** How long its client may read nothing; null for as long as it likes. */
  readonly unreadMsMax: number | null
}

const UNPREPARED = { database: null, settings: [], params: [] }

function shapeOf(
  { whole, defaultFormat }: StatementRequest,
  statement: { readonly format: string | null; readonly streams: boolean },
): Shape {
  const format = statement.format ?? defaultFormat
  return { format, streamed: !whole && STREAMED.has(format) && statement.streams }
}

/** `default` is what clients say when they mean none. */
async function useDatabase(connection: EngineConnection, database: string | null): Promise<void> {
  if (database !== null && database !== '' && database !== 'default') await connection.run(`USE ${quoteName(database)}`)
}

/**
 * Analysts begin in `telemetry`, and before that exists where there is nothing to open by a bare name: never in `system`, nor
 * in the overlay that opens files by their names. False when it does not exist yet.
 */
async function useAnalystDatabase(connection: EngineConnection, database: string | null): Promise<boolean> {
  const name = analystDatabase(database)
  if (name !== null) return useDatabase(connection, name).then(() => true)
  const isThere = await connection.run('USE telemetry').then(
    () => true,
    () => false,
  )
  if (!isThere) await connection.run('USE information_schema')
  return isThere
}

async function set(connection: EngineConnection, settings: readonly Setting[]): Promise<void> {
  if (settings.length > 0)
    await connection.run(`SET ${settings.map(({ name, value }) => `${name} = ${quote(value)}`).join(', ')}`)
}

/** Settings hold for one request, also in a session. */
async function unset(connection: EngineConnection, settings: readonly Setting[]): Promise<void> {
  if (settings.length > 0)
    await connection.run(`SET ${settings.map(({ name }) => `${name} = DEFAULT`).join(', ')}`).catch(() => {})
}

function quoteName(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``
}
