/**
 * The three brokers that are compared, each as the processes it really is, and what tells afterwards whether it holds
 * what it acknowledged.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { ACCESS_DEFAULTS, type DatabaseAccess } from '../database/database.ts'
import { startEmbeddedDatabase } from '../database/embedded/embedded-database.ts'
import { processTree } from './cpu.ts'
import { endProcess, nextMessage, startScript, track } from './processes.ts'
import { COUNTER_BASE, READINGS_PER_MESSAGE } from './wire.ts'

export const VARIANTS = ['bare', 'surgetank', 'direct'] as const
export type VariantName = (typeof VARIANTS)[number]

/** Messages whose counters are from `first` up to, not including, `end`. */
export interface CounterRange {
  readonly first: number
  readonly end: number
}

export interface Variant {
  readonly name: VariantName
  readonly port: number
  readonly brokerPid: number
  /** The broker's process and all others that work for it. */
  pids(): number[]
  /** Waits until what was acknowledged is where it belongs; then what is wrong with it, as a sentence, or null. */
  check(range: CounterRange, acked: number): Promise<string | null>
  close(): Promise<void>
}

export interface SurgetankVariant extends Variant {
  /** Stored readings of the range. */
  count(range: CounterRange): Promise<number>
}

const START_MS_MAX = 60_000
const STORED_MS_MAX = 90_000
const POLL_MS = 100

export async function openBare(): Promise<Variant> {
  const child = startScript('./bare-process.js')
  const { port } = await nextMessage<{ port: number }>(child, START_MS_MAX)
  const pid = pidOf(child)
  return {
    name: 'bare',
    port,
    brokerPid: pid,
    pids: () => [pid],
    check: async () => null,
    close: () => endProcess(child),
  }
}

export async function openDirect(): Promise<Variant> {
  const dir = await mkdtemp(join(tmpdir(), 'bench-direct-'))
  const password = randomBytes(16).toString('hex')
  const database = await startEmbeddedDatabase({ dataDir: dir, port: 0, password })
  const url = `http://127.0.0.1:${database.port}`
  const child = startScript('./direct-process.js')
  const access: DatabaseAccess = { url, user: 'surgetank', password, ...ACCESS_DEFAULTS }
  child.send(access)
  const { port } = await nextMessage<{ port: number }>(child, START_MS_MAX)
  const table = openTable(url, 'direct.readings')
  const pid = pidOf(child)
  return { name: 'direct', port, brokerPid: pid, pids: () => [pid, database.pid], check: table.check, close }

  async function close(): Promise<void> {
    await table.close()
    await endProcess(child)
    await database.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

/** The whole system, as `surgetank` starts it, on ports and a directory of its own. */
export async function openSurgetank(): Promise<SurgetankVariant> {
  const dir = await mkdtemp(join(tmpdir(), 'bench-surgetank-'))
  const env = {
    ...process.env,
    SURGETANK_MQTT_PORT: '0',
    SURGETANK_HTTP_PORT: '0',
    SURGETANK_SQL_PORT: '0',
    SURGETANK_DATA_DIR: dir,
    SURGETANK_LOG_LEVEL: 'warn',
  }
  const main = fileURLToPath(new URL('../main.js', import.meta.url))
  const child = track(spawn(process.execPath, [main], { env, stdio: ['ignore', 'pipe', 'inherit'] }))
  const ports = await readPorts(child)
  const table = openTable(`http://127.0.0.1:${ports.sql}`, 'telemetry.readings')
  const pid = pidOf(child)
  const pids = () => processTree(pid)
  return { name: 'surgetank', port: ports.mqtt, brokerPid: pid, pids, check: table.check, count: table.count, close }

  async function close(): Promise<void> {
    await table.close()
    await endProcess(child)
    await rm(dir, { recursive: true, force: true })
  }
}

/** From the block that it prints once it is ready. */
function readPorts(child: ChildProcess): Promise<{ mqtt: number; sql: number }> {
  let text = ''
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Surgetank was not ready in time:\n${text}`)), START_MS_MAX)
    child.once('exit', code => reject(new Error(`Surgetank ended early (${code}):\n${text}`)))
    child.stdout?.on('data', chunk => {
      text += chunk
      const mqtt = /^ *MQTT .*?:(\d+)/m.exec(text)?.[1]
      const sql = /^ *SQL .*?:(\d+)/m.exec(text)?.[1]
      if (mqtt === undefined || sql === undefined) return
      clearTimeout(timer)
      child.stdout?.removeAllListeners('data').resume()
      resolve({ mqtt: Number(mqtt), sql: Number(sql) })
    })
  })
}

interface Table {
  count(range: CounterRange): Promise<number>
  check(range: CounterRange, acked: number): Promise<string | null>
  close(): Promise<void>
}

/** Counts by the counter that every message of the bench carries. */
function openTable(url: string, table: string): Table {
  const client = createClient({ url, request_timeout: 120_000, log: { level: ClickHouseLogLevel.OFF } })
  return { count, check, close: () => client.close() }

  /** Readings stored of the range: three times its messages. */
  async function count(range: CounterRange): Promise<number> {
    return ((await tally(range))[0] ?? 0) * READINGS_PER_MESSAGE
  }

  async function tally({ first, end }: CounterRange): Promise<number[]> {
    const query = `SELECT count(), uniqExact(value) FROM ${table} WHERE metric = 'message_counter'
      AND value >= ${COUNTER_BASE + first} AND value < ${COUNTER_BASE + end}`
    const result = await client.query({ query, format: 'JSONCompactEachRow' })
    const [row] = await result.json<unknown[]>()
    return (row ?? []).map(Number)
  }

  async function check(range: CounterRange, acked: number): Promise<string | null> {
    const until = Date.now() + STORED_MS_MAX
    for (;;) {
      const [stored = 0, distinct = 0] = await tally(range)
      if (stored > distinct) return `${stored - distinct} messages are stored twice`
      if (distinct >= acked) return null
      if (Date.now() > until) return `${acked - distinct} acknowledged messages are not stored`
      await sleep(POLL_MS)
    }
  }
}

function pidOf(child: ChildProcess): number {
  if (child.pid === undefined) throw new Error('A process of the bench could not be started.')
  return child.pid
}
