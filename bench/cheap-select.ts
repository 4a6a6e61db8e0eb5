/**
 * CPU of a cheap SELECT and of the writer's insert, in builds side by side: `node dist/bench/cheap-select.js <dist> [<dist> …]`; a
 * number among the words is how many requests a round has.
 * Each build gets an engine of its own with the same rows. Rounds take turns, so that a busy machine is busy for all of them.
 * Counted is the CPU of every process of the build: engine, SQL port, and for inserts the client in this process.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Database, DatabaseAccess } from '../database/database.ts'
import { openRowBlock } from '../database/row-binary.ts'
import { readCpuOfAll } from './cpu.ts'
import { medianInterval, spreadOf } from './statistics.ts'

const ROUNDS = 11
const words = process.argv.slice(2)
const REQUESTS = Number(words.find(word => /^\d+$/.test(word)) ?? 2_000)
const INSERTS = { 5000: 60, 50000: 12 } as const
const PASSWORD = 'of-the-bench'
const SELECTS: Readonly<Record<string, (n: number) => string>> = {
  'SELECT 1': () => 'SELECT 1',
  latest: () => "SELECT * FROM latest WHERE device = 'press-17'",
  'latest, a new text each time': n => `SELECT * FROM latest WHERE device = 'press-17' AND ${n} > 0`,
}
const AT = Date.UTC(2026, 0, 15, 12) * 1_000

interface Build {
  readonly name: string
  readonly port: number
  readonly pids: readonly number[]
  readonly database: Database
  close(): Promise<void>
}

/** What an engine is started with: an earlier build listens on the port itself, and its access needs a password. */
interface Engine {
  readonly port?: number
  readonly pid: number
  readonly sockets?: { readonly own: string; readonly analysts: string }
  stop(): Promise<void>
}

async function openBuild(dist: string): Promise<Build> {
  const load = async (path: string) => import(pathToFileURL(join(resolve(dist), path)).href)
  const dir = mkdtempSync(join(tmpdir(), 'bench-select-'))
  const { startEmbeddedDatabase } = await load('database/embedded/embedded-database.js')
  const engine: Engine = await startEmbeddedDatabase({ dataDir: dir, port: 0, password: PASSWORD })
  const { sockets } = engine
  const sql =
    sockets === undefined
      ? null
      : await (await load('database/sql-port/sql-port.js')).startSqlPort({ port: 0, analystsSocket: sockets.analysts })
  const port: number = sql?.port ?? engine.port
  const access: DatabaseAccess = {
    url: sockets === undefined ? `http://127.0.0.1:${port}` : 'http://localhost',
    socketPath: sockets?.own ?? null,
    user: 'surgetank',
    password: PASSWORD,
    database: 'telemetry',
    cluster: null,
    ca: null,
  }
  const database: Database = (await load('database/clickhouse-database.js')).openDatabase(access)
  await database.migrate()
  await database.insertReadings(block(5_000, 0), 'bench-0')
  // Merges are the same work in every build, at times of their own.
  await post(sockets === undefined ? { port } : { socketPath: sockets.own }, 'SYSTEM STOP MERGES')
  const pids = [engine.pid, ...(sql === null ? [] : [sql.pid as number])]
  return { name: dist, port, pids, database, close }

  async function close(): Promise<void> {
    await database.close()
    await sql?.stop()
    await engine.stop()
    rmSync(dir, { recursive: true, force: true })
  }
}

function block(rows: number, position: number) {
  const builder = openRowBlock()
  for (let index = 0; index < rows; index++) {
    const ts = AT + index
    const reading = { metric: `metric-${index % 4}`, ts, receivedAt: ts, value: 20 + (index % 100) / 7, sentTs: ts }
    builder.add({ device: `press-${index % 100}`, reading, source: 'bench', position, index })
  }
  return builder.finish()
}

let asked = 1

/** ms of CPU for each request. */
async function measureSelect({ port, pids }: Build, sql: (n: number) => string): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const before = total(pids)
  for (let n = 0; n < REQUESTS; n++) await post({ port, agent }, sql(++asked))
  const ms = (total(pids) - before) / REQUESTS
  agent.destroy()
  return ms
}

let position = 1

/** ms of CPU for each insert, the client's included. */
async function measureInsert({ database, pids }: Build, rows: keyof typeof INSERTS): Promise<number> {
  const blocks = Array.from({ length: INSERTS[rows] }, () => [block(rows, ++position), position] as const)
  const before = total(pids)
  const own = process.cpuUsage()
  for (const [rowBlock, at] of blocks) await database.insertReadings(rowBlock, `bench-${at}`)
  const { user, system } = process.cpuUsage(own)
  return (total(pids) - before + (user + system) / 1_000) / INSERTS[rows]
}

/** ms so far. */
function total(pids: readonly number[]): number {
  const { userUs, sysUs } = readCpuOfAll(pids) ?? { userUs: Number.NaN, sysUs: Number.NaN }
  return (userUs + sysUs) / 1_000
}

type Way = { readonly port: number; readonly agent?: Agent } | { readonly socketPath: string }

/** Only what is not asked as an analyst, with one agent for all, needs the password of an earlier build. */
function post(way: Way, body: string): Promise<void> {
  const headers = 'agent' in way ? {} : { 'x-clickhouse-user': 'surgetank', 'x-clickhouse-key': PASSWORD }
  return new Promise((done, failed) => {
    const sent = request({ host: '127.0.0.1', ...way, method: 'POST', path: '/', headers }, response => {
      if (response.statusCode !== 200) failed(new Error(`HTTP status ${response.statusCode}`))
      response.resume().once('end', done)
    })
    sent.once('error', failed)
    sent.end(body)
  })
}

const builds = await Promise.all(words.filter(word => !/^\d+$/.test(word)).map(openBuild))
const figures = new Map<string, number[]>()
const measures: [string, (build: Build) => Promise<number>][] = [
  ...Object.entries(SELECTS).map(
    ([name, sql]) => [name, (build: Build) => measureSelect(build, sql)] as [string, (build: Build) => Promise<number>],
  ),
  ['insert of 5,000', build => measureInsert(build, 5_000)],
  ['insert of 50,000', build => measureInsert(build, 50_000)],
]
for (const build of builds) for (const sql of Object.values(SELECTS)) await measureSelect(build, sql)
// Selects first: what is inserted is merged for a while.
for (const [name, measure] of measures) {
  for (let round = 0; round < ROUNDS; round++) {
    const turn = round % 2 === 0 ? builds : [...builds].reverse()
    for (const build of turn) {
      const key = `${name} ${build.name}`
      const ms = await measure(build)
      figures.set(key, [...(figures.get(key) ?? []), ms])
      console.error(`${key}: ${ms.toFixed(3)} ms`)
    }
  }
}
const [before, ...others] = builds
for (const [name] of measures) {
  const of = (build: Build | undefined) => figures.get(`${name} ${build?.name}`) ?? []
  for (const build of others) {
    const ratios = of(build).map((ms, round) => ms / (of(before)[round] ?? Number.NaN))
    const { from, to } = medianInterval(ratios) ?? { from: Number.NaN, to: Number.NaN }
    const medians = [of(before), of(build), ratios].map(list => spreadOf(list)?.median.toFixed(3))
    console.log(
      `${name}: ${medians[0]} and ${medians[1]} ms of CPU, ratio ${medians[2]} (95 % interval ${from.toFixed(3)}–${to.toFixed(3)})`,
    )
  }
}
await Promise.all(builds.map(build => build.close()))
