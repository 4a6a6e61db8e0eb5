/** What ClickHouse holds of the bench, counted by the counter that every message carries. */
import { setTimeout as sleep } from 'node:timers/promises'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { COUNTER_BASE, READINGS_PER_MESSAGE } from './wire.ts'

/** Messages whose counters are from `first` up to, not including, `end`. */
export interface CounterRange {
  readonly first: number
  readonly end: number
}

export interface StoredTable {
  /** All rows of the table: ClickHouse knows the number without reading them. */
  rows(): Promise<number>
  /** Resolves when the table has so many rows, with true; with false after `waitMs`. */
  reaches(rows: number, waitMs: number): Promise<boolean>
  /** What is wrong with the messages stored of a range, as a sentence, or null: each of them must be there, once. */
  check(range: CounterRange, acked: number): Promise<string | null>
  close(): Promise<void>
}

export interface StoredTableOptions {
  /** Of an SQL port: it is asked as an analyst. */
  readonly url: string
  readonly table: string
}

const POLL_MS = 50

export function openStoredTable({ url, table }: StoredTableOptions): StoredTable {
  const client = createClient({ url, request_timeout: 120_000, log: { level: ClickHouseLogLevel.OFF } })
  return { rows, reaches, check, close: () => client.close() }

  async function rows(): Promise<number> {
    return (await numbers(`SELECT count() FROM ${table}`))[0] ?? 0
  }

  async function reaches(wanted: number, waitMs: number): Promise<boolean> {
    const until = performance.now() + waitMs
    while ((await rows()) < wanted) {
      if (performance.now() > until) return false
      await sleep(POLL_MS)
    }
    return true
  }

  async function check({ first, end }: CounterRange, acked: number): Promise<string | null> {
    const [stored = 0, distinct = 0] = await numbers(`SELECT count(), uniqExact(value) FROM ${table}
      WHERE metric = 'message_counter' AND value >= ${COUNTER_BASE + first} AND value < ${COUNTER_BASE + end}`)
    if (stored > distinct) return `${stored - distinct} messages are stored twice`
    return distinct < acked ? `${acked - distinct} acknowledged messages are not stored` : null
  }

  async function numbers(query: string): Promise<number[]> {
    const result = await client.query({ query, format: 'JSONCompactEachRow' })
    const [row] = await result.json<unknown[]>()
    return (row ?? []).map(Number)
  }
}

/** Rows that so many messages become. */
export function rowsOf(messages: number): number {
  return messages * READINGS_PER_MESSAGE
}
