/** `surgetank doctor`: would it start here, and how fast could it acknowledge? Looks, measures, and leaves nothing behind. */
import { closeSync, existsSync, fdatasyncSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { totalmem } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { ACCESS_DEFAULTS, type DatabaseAccess } from '../database/database.ts'
import { tryWalls } from '../database/embedded/walls/fork.ts'
import { allStand, describeWalls, WALLS_ADVICE } from '../database/embedded/walls/walls.ts'
import { SurgetankError } from '../errors.ts'
import type { Settings } from '../settings.ts'
import { shownText } from '../shown-text.ts'
import { VERSION } from '../version.ts'
import { choosePlaces, embeddedAccess, isEmbedded, type Places } from './adapters.ts'
import { SCHEMA_VERSION } from './build-info.ts'
import { findRunning, type Running } from './data-dir.ts'
import { checkDataFiles } from './data-files.ts'
import { examineEngine, examineReceipts, examineServers } from './doctor-servers.ts'

export interface Finding {
  readonly what: string
  readonly found: string
  /** `stop`: it would not start, or not keep its promises. */
  readonly verdict: 'ok' | 'warn' | 'stop'
  /** What to do about it. */
  readonly advice?: string
}

const FSYNCS = 100
const DISK_FREE_BYTES_MIN = 2 * 2 ** 30
const MEMORY_BYTES_MIN = 1.5 * 2 ** 30
const FSYNC_MS_SLOW = 20
/** In the advice, for a person to put in. */
const USER = '<user of surgetank>'
/** Of a data directory, looked at. */
const FILES_MAX = 100_000

/** All findings, in the order an operator would ask. */
export async function examine(settings: Settings): Promise<Finding[]> {
  const places = choosePlaces(settings)
  const onDisk = isEmbedded(places, 'log') || isEmbedded(places, 'database')
  const dir = onDisk ? lookInto(settings.SURGETANK_DATA_DIR) : null
  const running = dir?.running ?? null
  return [
    { what: 'surgetank', found: `${VERSION}, schema version ${SCHEMA_VERSION}`, verdict: 'ok' },
    examineNode(),
    ...packagesOf(places).map(examinePackage),
    examineMemory(places),
    ...(dir === null ? [] : [dir.finding]),
    ...(dir?.isClosed === false ? await examineDataFiles(settings.SURGETANK_DATA_DIR, running) : []),
    ...(dir?.isClosed === false ? examineDisk(settings.SURGETANK_DATA_DIR) : []),
    ...(running === null && dir?.isClosed !== true ? await examinePorts(settings, places) : []),
    ...(await examineServers(places)),
    ...(await examineReceipts(places.log, Date.now())),
    ...(places.database.kind === 'embedded'
      ? [await examineEngine(accessTo(running)), await examineWalls(running)]
      : []),
  ]
}

function packagesOf({ log, space, database }: Places): string[] {
  const ofLog = log.kind === 'kafka' ? 'kafkajs' : 'lmdb'
  return [
    'aedes',
    ofLog,
    ...(space.kind === 'redis' ? ['ioredis'] : []),
    ...(database.kind === 'embedded' ? ['chdb'] : []),
    '@clickhouse/client',
  ]
}

/**
 * Null where no engine runs that has its schema, or all that can be brought to it. One of an earlier version, which told of no
 * sockets, is asked by its SQL port: what an upgrade will do is asked while it runs.
 */
function accessTo(running: Running | null): DatabaseAccess | null {
  const port = running?.ports?.sql ?? null
  if (running === null || port === null) return null
  if (running.socketFolder !== null) return embeddedAccess(running.socketFolder)
  return { ...ACCESS_DEFAULTS, url: `http://127.0.0.1:${port}`, socketPath: null, user: 'default', password: '' }
}

interface DataDirLook {
  readonly finding: Finding
  readonly running: Running | null
  /** To this user, who then cannot even tell whether somebody runs on it. */
  readonly isClosed: boolean
}

function lookInto(dir: string): DataDirLook {
  const what = 'data directory'
  try {
    const running = findRunning(dir)
    const found = running === null ? `${dir}, nobody runs on it` : `process ${running.pid} runs on it`
    return { finding: { what, found, verdict: 'ok' }, running, isClosed: false }
  } catch (error) {
    if (!(error instanceof SurgetankError)) throw error
    return { finding: { what, found: error.detail, verdict: 'stop' }, running: null, isClosed: true }
  }
}

/** Whether others than the user of surgetank can read what is in it. Nothing of one that is not there yet. */
export async function examineDataFiles(dir: string, running: Running | null): Promise<Finding[]> {
  const owner = running === null ? ownUser() : running.user
  const options = { correct: false, owner, seenMax: FILES_MAX, atOnceMsMax: Number.POSITIVE_INFINITY }
  const { seen, exposed, first, whole } = await checkDataFiles(dir, options)
  if (seen === 0 && first === null) return []
  const what = 'data files'
  if (first === null) {
    return [{ what, found: `open to its user only${whole ? '' : `, as far as the first ${seen} tell`}`, verdict: 'ok' }]
  }
  const { path, why } = first
  const found = `open to others: ${exposed} of ${seen}, such as ${path}${why === null ? '' : `; ${why}`}`
  const quoted = quotedForShell(resolve(dir))
  const commands = `chown -R ${running?.user ?? USER} ${quoted} && chmod -R go= ${quoted}`
  const advice = `A start corrects what its user may change. For the rest, as root: ${commands}`
  return [{ what, found, verdict: 'warn', advice }]
}

/** Who would run surgetank here; of a superuser, who looks for another one, that cannot be told. */
function ownUser(): number | null {
  return process.geteuid?.() || null
}

function quotedForShell(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`
}

function examineNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const fits = major > 20 || (major === 20 && minor >= 19)
  const found = `Node ${process.versions.node}, ${process.platform} ${process.arch}`
  return fits
    ? { what: 'node', found, verdict: 'ok' }
    : { what: 'node', found, verdict: 'stop', advice: 'Node 20.19 or newer is needed.' }
}

function examinePackage(name: string): Finding {
  try {
    const { version } = createRequire(import.meta.url)(`${name}/package.json`) as { version: string }
    return { what: name, found: version, verdict: 'ok' }
  } catch (error) {
    const blocked = (error as NodeJS.ErrnoException).code === 'ERR_PACKAGE_PATH_NOT_EXPORTED'
    return blocked
      ? { what: name, found: 'installed', verdict: 'ok' }
      : { what: name, found: 'missing', verdict: 'stop', advice: 'Run `npm ci`.' }
  }
}

function examineMemory(places: Places): Finding {
  const found = `${gib(totalmem())} GiB`
  return totalmem() >= MEMORY_BYTES_MIN || !isEmbedded(places, 'database')
    ? { what: 'memory', found, verdict: 'ok' }
    : { what: 'memory', found, verdict: 'warn', advice: 'The embedded ClickHouse alone takes about 0.5 GiB.' }
}

/** Of a directory that does not exist yet, the disk that it would be made on. */
function examineDisk(dataDir: string): Finding[] {
  let dir = dataDir
  while (!existsSync(dir)) dir = dirname(dir)
  const probe = join(dir, `doctor-${process.pid}.tmp`)
  try {
    const { bavail, bsize } = statfsSync(dir)
    const free = bavail * bsize
    const { p50, p99 } = timeFsyncs(probe)
    const fsync = `one fsync: p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms; a lone message is acknowledged no faster`
    return [
      free >= DISK_FREE_BYTES_MIN
        ? { what: 'disk', found: `${gib(free)} GiB free`, verdict: 'ok' }
        : {
            what: 'disk',
            found: `${gib(free)} GiB free`,
            verdict: 'warn',
            advice: 'When it is full, devices get no PUBACK.',
          },
      p99 <= FSYNC_MS_SLOW
        ? { what: 'fsync', found: fsync, verdict: 'ok' }
        : {
            what: 'fsync',
            found: fsync,
            verdict: 'warn',
            advice: 'A slow disk: acknowledgements wait for it. Use a local SSD.',
          },
    ]
  } catch (error) {
    const advice = 'Set SURGETANK_DATA_DIR to a directory that can be written.'
    return [{ what: 'disk', found: `${dir}: ${(error as Error).message}`, verdict: 'stop', advice }]
  }
}

function timeFsyncs(path: string): { p50: number; p99: number } {
  const file = openSync(path, 'w')
  const block = Buffer.alloc(4096, 1)
  const times: number[] = []
  try {
    for (let at = 0; at < FSYNCS; at++) {
      const since = performance.now()
      writeSync(file, block, 0, block.length, at * block.length)
      fdatasyncSync(file)
      times.push(performance.now() - since)
    }
  } finally {
    closeSync(file)
    rmSync(path, { force: true })
  }
  times.sort((a, b) => a - b)
  return { p50: times[FSYNCS >> 1] ?? 0, p99: times[Math.floor(FSYNCS * 0.99)] ?? 0 }
}

async function examinePorts(settings: Settings, places: Places): Promise<Finding[]> {
  const host = settings.SURGETANK_LISTEN
  const ports = [
    { name: 'SURGETANK_MQTT_PORT', host },
    { name: 'SURGETANK_HTTP_PORT', host },
    ...(isEmbedded(places, 'database') ? [{ name: 'SURGETANK_SQL_PORT', host: '127.0.0.1' } as const] : []),
  ] as const
  return Promise.all(
    ports.map(async ({ name, host }): Promise<Finding> => {
      const port = settings[name]
      return { what: `port ${port}`, ...judgePort(await whyNotListen(port, host), { name, host }) }
    }),
  )
}

/** The code of the error; null when one can listen there. */
function whyNotListen(port: number, host: string): Promise<string | null> {
  return new Promise(resolve => {
    const probe = createServer()
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    probe.listen(port, host, () => probe.close(() => resolve(null)))
  })
}

/** What the code of `listen` means for the setting that names the port. */
export function judgePort(
  code: string | null,
  { name, host }: { readonly name: string; readonly host: string },
): Omit<Finding, 'what'> {
  const verdict = 'stop'
  switch (code) {
    case null:
      return { found: 'free', verdict: 'ok' }
    case 'EADDRNOTAVAIL':
      return { found: `${host} is no address of this machine`, verdict, advice: 'Set SURGETANK_LISTEN to one that is.' }
    case 'EACCES':
      return { found: 'this user may not listen there', verdict, advice: `Set ${name} to one from 1024 on.` }
    case 'EADDRINUSE':
      return { found: 'taken', verdict, advice: `Set ${name} to another.` }
    default:
      return { found: `cannot listen: ${code}`, verdict, advice: `Set ${name} to another.` }
  }
}

/** Of the engine that runs; where none does, raised and met by a process of their own, as this user. */
async function examineWalls(running: Running | null): Promise<Finding> {
  const what = 'SQL engine'
  const walls = running === null ? await tryWalls() : running.walls
  if (walls === null) {
    const found = `process ${running?.pid} has not told what its engine is walled from`
    return { what, found, verdict: 'ok' }
  }
  const found = describeWalls(walls)
  return allStand(walls) ? { what, found, verdict: 'ok' } : { what, found, verdict: 'warn', advice: WALLS_ADVICE }
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1)
}

/** The findings for a person. */
export function describeFindings(findings: readonly Finding[]): string {
  const mark = { ok: 'ok  ', warn: 'WARN', stop: 'STOP' }
  return findings
    .map(
      ({ what, found, verdict, advice }) =>
        `${mark[verdict]}  ${what.padEnd(20)} ${shownText(found)}${advice === undefined ? '' : `\n      ${shownText(advice)}`}`,
    )
    .join('\n')
}
