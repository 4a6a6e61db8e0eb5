/** A real embedded ClickHouse in a child process, on a folder of its own, for one test file. */
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, type AgentOptions, type IncomingHttpHeaders, request } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { type ClickHouseClient, createClient } from '@clickhouse/client'
import { openDatabase } from '../../database/clickhouse-database.ts'
import type { Database, DatabaseAccess } from '../../database/database.ts'
import {
  type EmbeddedDatabase,
  type EmbeddedExit,
  startEmbeddedDatabase,
} from '../../database/embedded/embedded-database.ts'
import { openRowBlock, type ReadingRow } from '../../database/row-binary.ts'
import { type SqlPort, startSqlPort } from '../../database/sql-port/sql-port.ts'
import { embeddedAccess } from '../../manager/adapters.ts'
import type { Value } from '../../model/reading.ts'
import { type ClickHouseServer, openClickHouseServer } from '../servers/clickhouse-server.ts'

export interface Fixture {
  readonly folder: string
  /** The SQL port: analysts, without a user and a password. */
  readonly url: string
  /** The engine's own socket, as surgetank's parts come in. */
  readonly access: DatabaseAccess
  /** The same engine as if it were a ClickHouse server: TCP, a user and a password. */
  readonly server: ClickHouseServer
  readonly child: EmbeddedDatabase
  readonly sql: SqlPort
  readonly database: Database
  /** The official client as one of surgetank's parts, which may write. */
  readonly writer: ClickHouseClient
  /** And as an analyst: no user, no password. */
  readonly analyst: ClickHouseClient
  /** Starts the engine again on the same folder. The SQL port goes on. */
  restart(): Promise<EmbeddedDatabase>
  /** Starts the process of the SQL port again on the same port. */
  restartSql(): Promise<void>
  close(): Promise<void>
}

/** As `waits.ts`: for what never comes. */
const PATIENT = { log: { level: 127 as const }, request_timeout: 120_000 }

/** The official client as one of surgetank's parts, by the engine's own socket. */
export function openOwnClient(socketPath: string): ClickHouseClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 10, socketPath } as AgentOptions)
  return createClient({ ...PATIENT, url: 'http://localhost', http_agent: agent })
}

export async function openFixture(onExit?: (exit: EmbeddedExit) => void): Promise<Fixture> {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-database-'))
  const exits = onExit === undefined ? {} : { onExit }
  let child = await startEmbeddedDatabase({ dataDir: folder, ...exits })
  const { own, analysts: analystsSocket } = child.sockets
  let sql = await startSqlPort({ port: 0, analystsSocket })
  const url = `http://127.0.0.1:${sql.port}`
  const access = embeddedAccess(dirname(own))
  const server = await openClickHouseServer(own)
  const database = openDatabase(access)
  const writer = openOwnClient(own)
  const analyst = createClient({ ...PATIENT, url })
  return {
    folder,
    url,
    access,
    server,
    get child() {
      return child
    },
    get sql() {
      return sql
    },
    database,
    writer,
    analyst,
    async restart() {
      child = await startEmbeddedDatabase({ dataDir: folder, ...exits })
      return child
    },
    async restartSql() {
      sql = await startSqlPort({ port: sql.port, analystsSocket })
    },
    async close() {
      await Promise.all([database.close(), writer.close(), analyst.close()])
      await Promise.all([server.close(), sql.stop()])
      await child.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** The claim is never lost. */
export const held = async () => {}

/** The first column of the first row. */
export async function scalar(client: ClickHouseClient, query: string): Promise<unknown> {
  return (await rows(client, query))[0]?.[0]
}

export async function rows(client: ClickHouseClient, query: string): Promise<unknown[][]> {
  const result = await client.query({ query, format: 'JSONCompactEachRow' })
  return result.json<unknown[]>()
}

/** Rows as the writers make them; what is not given is the same for all. */
export function block(given: readonly GivenRow[], source = 'log-0', position = 0) {
  const builder = openRowBlock()
  for (const [index, row] of given.entries()) builder.add(toRow(row, source, position, index))
  return builder.finish()
}

export interface GivenRow {
  readonly device?: string
  readonly metric?: string
  /** Both in µs. */
  readonly sentTs?: number | null
  readonly receivedAt?: number
  readonly value: Value
}

/** µs since 1970. */
export const RECEIVED_AT = Date.UTC(2026, 0, 15, 12) * 1_000

/** What ingest gives for the time of a reading: no more than 5 minutes ahead of its receipt. */
const AHEAD_MAX = 5 * 60_000_000

function toRow(
  { device = 'press-1', metric = 'temperature', sentTs = null, receivedAt = RECEIVED_AT, value }: GivenRow,
  source: string,
  position: number,
  index: number,
): ReadingRow {
  const ts = sentTs === null || sentTs > receivedAt + AHEAD_MAX ? receivedAt : sentTs
  return { device, reading: { metric, ts, receivedAt, value, sentTs }, source, position, index }
}

export interface RawAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  readonly bytes: Buffer
  /** The body broke off before its end. */
  readonly broken: boolean
}

/** A request as curl makes it: exactly these headers and bytes. `to` is a URL, or the path of a Unix socket. */
export function raw(
  to: string,
  options: { method?: string; path: string; headers?: Record<string, string>; body?: Buffer | string },
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const { method = 'GET', path, headers = {}, body } = options
    const where = to.startsWith('/') ? { socketPath: to } : { hostname: new URL(to).hostname, port: new URL(to).port }
    const sent = request({ ...where, method, path, headers, agent: false }, response => {
      const chunks: Buffer[] = []
      const done = (broken: boolean) => {
        const bytes = Buffer.concat(chunks)
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text: bytes.toString(), bytes, broken })
      }
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.once('end', () => done(false))
      response.once('error', () => done(true))
    })
    sent.once('error', reject)
    sent.end(body)
  })
}

export function bytesOf(...chunks: (Buffer | string)[]): Readable {
  return Readable.from(
    chunks.map(chunk => Buffer.from(chunk)),
    { objectMode: false },
  )
}
