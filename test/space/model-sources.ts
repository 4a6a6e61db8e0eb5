/**
 * A log and a database for readers, made by the test: the log is what was appended, whole; the database holds what the test
 * says was written before. And the oracle: a space in memory that was told the same.
 */
import type { Database, LatestRow } from '../../database/database.ts'
import { encodeLine, type Message } from '../../model/message.ts'
import { toMs } from '../../model/time.ts'
import type { Chunk, PumpView } from '../../pump/pump.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import type { Space } from '../../space/space.ts'
import { accepted } from '../contracts/pump-samples.ts'

export interface ModelSources {
  readonly view: PumpView
  readonly database: Database
  readonly oracle: Space
  /** As a group commit: durable from here on. */
  append(messages: readonly Message[]): Promise<void>
  /** All of the log so far is in ClickHouse, and the log holds it no more. */
  writeOut(): Promise<void>
}

const PAGE = 5_000

export function openModelSources(): ModelSources {
  const oracle = openMemorySpace({ devicesMax: 1_000_000 })
  const written = openMemorySpace({ devicesMax: 1_000_000 })
  const chunks: { chunk: Chunk; appendedAt: number }[] = []
  let end = 0
  let committed = 0

  const view: Pick<PumpView, 'places' | 'positionAt' | 'read'> = {
    places: async () => [{ partition: 0, source: 'model', first: committed, end, committed, plan: null }],
    positionAt: async (_partition, at) => chunks.find(({ appendedAt }) => appendedAt >= at)?.chunk.position ?? end,
    read: async (_partition, from, { chunksMax }) =>
      chunks
        .map(({ chunk }) => chunk)
        .filter(({ position }) => position >= from)
        .slice(0, chunksMax),
  }
  const database: Pick<Database, 'latest' | 'ping' | 'catchUp'> = {
    latest,
    ping: async () => true,
    catchUp: async () => {},
  }
  // A reader asks nothing else; anything more would fail here.
  return { view: view as PumpView, database: database as Database, oracle, append, writeOut }

  async function append(messages: readonly Message[]): Promise<void> {
    await oracle.merge(messages)
    const lines = Buffer.from(messages.map(message => encodeLine(message)).join('\n'))
    const receipts = messages.map(({ receivedAt }) => toMs(receivedAt))
    const chunk: Chunk = {
      partition: 0,
      position: end++,
      ...accepted(messages.length),
      readings: messages.reduce((sum, { readings }) => sum + readings.length, 0),
      firstReceivedAt: Math.min(...receipts),
      lastReceivedAt: Math.max(...receipts),
      lines,
    }
    chunks.push({ chunk, appendedAt: Date.now() })
  }

  async function writeOut(): Promise<void> {
    for (const state of await all(oracle)) {
      for (const { metric, ts, receivedAt, value } of state.metrics) {
        const { device, lastSeen } = state
        await written.merge([{ device, receivedAt, readings: [{ metric, ts, receivedAt, value, sentTs: ts }] }])
        await written.merge([{ device, receivedAt: lastSeen, readings: [] }])
      }
    }
    chunks.length = 0
    committed = end
  }

  async function* latest(): AsyncIterable<LatestRow[]> {
    const rows = (await all(written)).flatMap(({ device, lastSeen, metrics }) =>
      metrics.map(({ metric, ts, receivedAt, value }) => ({ device, metric, ts, receivedAt, value, seenAt: lastSeen })),
    )
    for (let at = 0; at < rows.length; at += PAGE) yield rows.slice(at, at + PAGE)
  }
}

/** Every state, in order. */
export function all(space: Space): ReturnType<Space['page']> {
  return space.page({ after: null, limit: 1_000_000, search: null, online: null })
}
