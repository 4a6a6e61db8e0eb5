/**
 * The brokers that are compared, each as the processes it really is, and what tells afterwards whether it holds what it
 * acknowledged. The one on several machines has a file of its own, `machines.ts`.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startEmbeddedDatabase } from '../database/embedded/embedded-database.ts'
import { startSqlPort } from '../database/sql-port/sql-port.ts'
import { findByScript, processTree } from './cpu.ts'
import { endProcess, nextMessage, pidOf, readOutput, START_MS_MAX, startScript, track } from './processes.ts'
import { openStoredTable, type StoredTable } from './stored.ts'

export const VARIANTS = ['bare', 'surgetank', 'machines', 'direct'] as const
export type VariantName = (typeof VARIANTS)[number]

export const PARTS = ['broker', 'writer', 'reader and API', 'Redis', 'Kafka', 'ClickHouse'] as const
export type PartName = (typeof PARTS)[number]
/** Process ids by the part they play; a part that a variant does not have is left out. */
export type PartPids = Partial<Record<PartName, readonly number[]>>

export interface Variant {
  readonly name: VariantName
  readonly port: number
  parts(): PartPids
  /** Where what was acknowledged ends up; null when it is not stored. */
  readonly table: StoredTable | null
  close(): Promise<void>
}

export interface StoringVariant extends Variant {
  readonly table: StoredTable
}

const WRITER_SCRIPT = 'writer-process'
const DATABASE_SCRIPT = 'database/embedded'
const MAIN = fileURLToPath(new URL('../main.js', import.meta.url))

export async function openBare(): Promise<Variant> {
  const child = startScript('./bare-process.js')
  const { port } = await nextMessage<{ port: number }>(child, START_MS_MAX)
  const broker = [pidOf(child)]
  return { name: 'bare', port, parts: () => ({ broker }), table: null, close: () => endProcess(child) }
}

export async function openDirect(): Promise<Variant> {
  const dir = await mkdtemp(join(tmpdir(), 'bench-direct-'))
  const database = await startEmbeddedDatabase({ dataDir: dir })
  const sql = await startSqlPort({ port: 0, analystsSocket: database.sockets.analysts })
  const url = `http://127.0.0.1:${sql.port}`
  const child = startScript('./direct-process.js')
  child.send(database.sockets.own)
  const { port } = await nextMessage<{ port: number }>(child, START_MS_MAX)
  const table = openStoredTable({ url, table: 'direct.readings' })
  const parts = { broker: [pidOf(child)], ClickHouse: [database.pid] }
  return { name: 'direct', port, parts: () => parts, table, close }

  async function close(): Promise<void> {
    await table.close()
    await endProcess(child)
    await sql.stop()
    await database.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

/** The whole system, as `surgetank` starts it, on ports and a directory of its own; `main` is that of another build. */
export async function openSurgetank(main = MAIN): Promise<StoringVariant> {
  const dir = await mkdtemp(join(tmpdir(), 'bench-surgetank-'))
  const env = {
    ...process.env,
    SURGETANK_MQTT_PORT: '0',
    SURGETANK_HTTP_PORT: '0',
    SURGETANK_SQL_PORT: '0',
    SURGETANK_DATA_DIR: dir,
    SURGETANK_LOG_LEVEL: 'warn',
  }
  const child = startSurgetank([], env, main)
  const [, mqtt, sql] = await readOutput(child, /^ *MQTT .*?:(\d+)[\s\S]*^ *SQL .*?:(\d+)/m)
  const table = openStoredTable({ url: `http://127.0.0.1:${sql}`, table: 'telemetry.readings' })
  return { name: 'surgetank', port: Number(mqtt), parts, table, close }

  /** The writer and ClickHouse are started again when they end, so they are looked for each time. */
  function parts(): PartPids {
    const [broker = 0, ...children] = processTree(pidOf(child))
    const found = (script: string) => findByScript(children, script) ?? 0
    return { broker: [broker], writer: [found(WRITER_SCRIPT)], ClickHouse: [found(DATABASE_SCRIPT)] }
  }

  async function close(): Promise<void> {
    await table.close()
    await endProcess(child)
    await rm(dir, { recursive: true, force: true })
  }
}

/** `surgetank` with these words. */
export function startSurgetank(words: readonly string[], env: NodeJS.ProcessEnv, main = MAIN): ChildProcess {
  return track(spawn(process.execPath, [main, ...words], { env, stdio: ['ignore', 'pipe', 'inherit'] }))
}
