/** A real embedded ClickHouse in a child process, on a folder of its own, for one test file. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { type ClickHouseClient, createClient } from '@clickhouse/client'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { ACCESS_DEFAULTS, type Database } from '../../database/database.ts'
import {
  type EmbeddedDatabase,
  type EmbeddedExit,
  startEmbeddedDatabase,
} from '../../database/embedded/embedded-database.ts'
import { openRowBlock, type ReadingRow } from '../../database/row-binary.ts'
import type { Value } from '../../model/reading.ts'

export interface Fixture {
  readonly folder: string
  readonly url: string
  readonly password: string
  readonly child: EmbeddedDatabase
  readonly database: Database
  /** The official client as the user who may write. */
  readonly writer: ClickHouseClient
  /** And as an analyst: no user, no password. */
  readonly analyst: ClickHouseClient
  /** Starts the child again on the same folder and port. */
  restart(): Promise<EmbeddedDatabase>
  close(): Promise<void>
}

/** As `waits.ts`: for what never comes. */
const REQUEST_MS_MAX = 120_000

export async function openFixture(onExit?: (exit: EmbeddedExit) => void): Promise<Fixture> {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-database-'))
  const password = randomBytes(16).toString('hex')
  const exits = onExit === undefined ? {} : { onExit }
  const children = [await startEmbeddedDatabase({ dataDir: folder, port: 0, password, ...exits })]
  const { port } = children[0] as EmbeddedDatabase
  const url = `http://127.0.0.1:${port}`
  const database = openDatabase({ url, user: 'surgetank', password, ...ACCESS_DEFAULTS })
  const log = { level: 127 as const }
  const patient = { url, log, request_timeout: REQUEST_MS_MAX }
  const writer = createClient({ ...patient, username: 'surgetank', password })
  const analyst = createClient(patient)
  return {
    folder,
    url,
    password,
    get child() {
      return children.at(-1) as EmbeddedDatabase
    },
    database,
    writer,
    analyst,
    async restart() {
      const child = await startEmbeddedDatabase({ dataDir: folder, port, password, ...exits })
      children.push(child)
      return child
    },
    async close() {
      await Promise.all([database.close(), writer.close(), analyst.close()])
      await children.at(-1)?.stop()
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

/** A request as curl makes it: exactly these headers and bytes. */
export function raw(
  url: string,
  options: { method?: string; path: string; headers?: Record<string, string>; body?: Buffer | string },
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url)
    const { method = 'GET', path, headers = {}, body } = options
    const sent = request({ hostname, port, method, path, headers, agent: false }, response => {
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
