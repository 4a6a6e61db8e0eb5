/**
 * An API on a free port, over a real space, a clock that the test moves, and hand-driven ports for the log's books and the
 * database: here the test decides what they answer and when. The journeys run the real ones.
 */
import { request } from 'node:http'
import { type Logger, pino } from 'pino'
import { type Api, type HealthCheck, openApi } from '../../api/api.ts'
import type { BucketPoint, Database, HistoryQuery, RawPoint } from '../../database/database.ts'
import type { Message } from '../../model/message.ts'
import type { Value } from '../../model/reading.ts'
import type { PumpLag, PumpView } from '../../pump/pump.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import type { Space } from '../../space/space.ts'

/** 2026-11-20T12:00:00.000Z */
export const NOON = Date.UTC(2026, 10, 20, 12)
export const STALE_AFTER_MS = 900_000

export interface Fixture {
  readonly api: Api
  readonly space: Space
  readonly url: string
  readonly clock: { now: number }
  readonly database: HandDatabase
  readonly books: { oldestUnwrittenAt: number | null; oldestHeldAt: number | null }
  health: () => Promise<readonly HealthCheck[]>
  get(path: string, headers?: Record<string, string>): Promise<Response>
  close(): Promise<void>
}

/** What the history routes ask of a database, answered by the test. */
export interface HandDatabase {
  raw: (query: HistoryQuery, after: string | null, signal: AbortSignal) => Promise<RawPoint[]>
  buckets: (query: HistoryQuery, everyMs: number, aggregates: readonly string[]) => Promise<BucketPoint[]>
}

export async function openFixture(
  options: { readonly warm?: boolean; readonly space?: Space; readonly host?: string; readonly log?: Logger } = {},
): Promise<Fixture> {
  const space = options.space ?? openMemorySpace({ devicesMax: 100_000 })
  if (options.warm !== false) await (await space.claimRebuild())?.finish()
  const clock = { now: NOON }
  const database: HandDatabase = { raw: async () => [], buckets: async () => [] }
  const books: Fixture['books'] = { oldestUnwrittenAt: null, oldestHeldAt: null }
  const api = await openApi({
    host: options.host ?? '127.0.0.1',
    port: 0,
    space,
    database: databasePort(database),
    view: viewPort(books),
    health: () => fixture.health(),
    metricsText: async () => '# TYPE one counter\none 1\n',
    staleAfterMs: STALE_AFTER_MS,
    oldestHeldAt: () => books.oldestHeldAt,
    clock: () => clock.now,
    log: options.log ?? pino({ level: 'silent' }),
    version: '1.2.3',
  })
  const url = `http://${options.host === '127.0.0.2' ? options.host : '127.0.0.1'}:${api.port}`
  const fixture: Fixture = {
    api,
    space,
    url,
    clock,
    database,
    books,
    health: async () => [],
    get: (path, headers = {}) => fetch(url + path, { headers, redirect: 'manual' }),
    close: async () => {
      await api.close()
      await space.close()
    },
  }
  return fixture
}

function databasePort(hand: HandDatabase): Database {
  const port: Pick<Database, 'history' | 'historyBuckets'> = {
    history: (query, after, signal) => hand.raw(query, after, signal ?? new AbortController().signal),
    historyBuckets: (query, everyMs, aggregates) => hand.buckets(query, everyMs, aggregates),
  }
  // The API reads history and nothing else; anything more would fail here.
  return port as Database
}

function viewPort(hand: Fixture['books']): PumpView {
  const lag = async (): Promise<PumpLag> => {
    const { oldestUnwrittenAt } = hand
    return { readings: 0, oldestUnwrittenAt, bytes: 0, bytesUnwritten: 0, bytesMax: 1 }
  }
  const port: Pick<PumpView, 'lag'> = { lag }
  return port as PumpView
}

/** Received at a ms, and of 17 ms before. */
export function message(device: string, receivedMs: number, values: Readonly<Record<string, Value>>): Message {
  const [receivedAt, ts] = [receivedMs * 1000, (receivedMs - 17) * 1000]
  const readings = Object.entries(values).map(([metric, value]) => ({ metric, ts, receivedAt, value, sentTs: ts }))
  return { device, receivedAt, readings }
}

/** A request as a browser would not send it: any method, any Host. */
export function rawRequest(
  { api, url }: Fixture,
  { method = 'GET', path, host }: { readonly method?: string; readonly path: string; readonly host?: string },
): Promise<{ readonly status: number; readonly headers: Readonly<Record<string, unknown>>; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const headers = host === undefined ? {} : { host }
    const sent = request(
      { host: new URL(url).hostname, port: api.port, method, path, headers, agent: false },
      response => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', chunk => {
          text += chunk
        })
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
      },
    )
    sent.on('error', reject)
    sent.end()
  })
}
