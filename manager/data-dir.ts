/**
 * The data directory belongs to one running surgetank. Its lock is a file of its own whose name says who holds it: process
 * id, start time, and a word that is never used again. So a lock is whole from the moment it exists, and to remove a stale
 * one can never remove another's. A start makes its own first and looks for others then: of two at one moment, at least
 * one sees the other. ClickHouse's own lock on its directory and the fenced claims of the log stand behind it.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { removeTemporary } from '../database/embedded/sockets.ts'
import type { Walls } from '../database/embedded/walls/walls.ts'
import { SurgetankError } from '../errors.ts'

export interface Ports {
  readonly mqtt: number
  readonly http: number
  /** Null where ClickHouse is a server of its own. */
  readonly sql: number | null
}

/** Who runs here, and where it listens: what the other commands (`verify`, `quarantine`, `doctor`) need to know. */
export interface Running {
  readonly pid: number
  readonly startedAt: string
  /** The user it runs as; null where that cannot be told. */
  readonly user: number | null
  readonly ports: Ports | null
  /** The folder of the engine's sockets; null where there is no engine, or one of a version that did not tell. */
  readonly socketFolder: string | null
  /** Of the engine; null as above. */
  readonly walls: Walls | null
}

/** What the lock says of its holder, as it becomes known. */
export interface Announced extends Ports {
  readonly socketFolder: string
  readonly walls: Walls | null
}

export interface DataDir {
  /** Tells the other commands where this instance listens, and what else they ask for. */
  announce(news: Partial<Announced>): void
  release(): void
}

/** surgetank.lock.<process id>.<its start time>.<word>; its content is what was announced. */
const LOCK = /^surgetank\.lock\.(\d{1,10})\.([\w-]+)\.\w+$/
const TRIES = 4
const PAUSE_MS_MAX = 50

/** Makes and locks the directory, with these folders in it. Throws `data_dir_unusable`, or `data_dir_in_use` with the id of the process that has it. */
export function openDataDir(path: string, folders: readonly string[] = []): DataDir {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    for (const folder of folders) mkdirSync(join(path, folder), { recursive: true, mode: 0o700 })
    const lock = takeLock(path)
    let told: Partial<Announced> = {}
    return {
      // It only grows: whoever reads it half-written sees one that has not told its ports yet.
      announce: news => {
        told = { ...told, ...news }
        writeFileSync(lock, JSON.stringify(told), { flag: 'r+' })
      },
      release: () => rmSync(lock, { force: true }),
    }
  } catch (error) {
    if (error instanceof SurgetankError) throw error
    const advice = 'set SURGETANK_DATA_DIR to a directory that can be written.'
    throw new SurgetankError('data_dir_unusable', `${path}; ${advice}`, error)
  }
}

/** The surgetank that runs on this directory; null when none does. Throws `data_dir_unusable` when this user cannot look. */
export function findRunning(path: string): Running | null {
  let running: Lock[]
  try {
    running = findLocks(path).filter(isHeld)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') throw closedTo(path, error)
    // Not there, or no directory: `openDataDir` has the words for that.
    return null
  }
  // A second start that is about to be refused has a lock for a moment, and no ports.
  return running.find(({ ports }) => ports !== null) ?? running[0] ?? null
}

function closedTo(path: string, error: unknown): SurgetankError {
  const detail = `${path} is closed to this user. Run this as the user that surgetank runs as.`
  return new SurgetankError('data_dir_unusable', detail, error)
}

/** Two that start at one moment may both give way: each tries again after a pause of its own. */
function takeLock(path: string): string {
  const own = `surgetank.lock.${process.pid}.${startTimeOf(process.pid)}.${randomBytes(6).toString('hex')}`
  const lock = join(path, own)
  for (let tries = 1; ; tries++) {
    writeFileSync(lock, '', { flag: 'wx', mode: 0o600 })
    const others = findLocks(path).filter(({ name }) => name !== own)
    const holder = others.find(isHeld)
    if (holder === undefined) {
      for (const { name, socketFolder } of others) {
        if (socketFolder !== null) removeTemporary(socketFolder)
        rmSync(join(path, name), { force: true })
      }
      return lock
    }
    rmSync(lock, { force: true })
    if (tries === TRIES) {
      const way = 'Stop it first, or set SURGETANK_DATA_DIR to another directory.'
      throw new SurgetankError('data_dir_in_use', `Process ${holder.pid} uses ${path}. ${way}`)
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1 + Math.random() * PAUSE_MS_MAX)
  }
}

interface Lock extends Running {
  readonly name: string
}

function findLocks(path: string): Lock[] {
  return readdirSync(path).flatMap(name => {
    const [, pid, startedAt] = LOCK.exec(name) ?? []
    if (pid === undefined || startedAt === undefined) return []
    const lock = join(path, name)
    return [{ name, pid: Number(pid), startedAt, user: userOf(Number(pid), lock), ...readAnnounced(lock) }]
  })
}

function readAnnounced(lock: string): Pick<Running, 'ports' | 'socketFolder' | 'walls'> {
  try {
    const { mqtt, http, sql, socketFolder, walls } = JSON.parse(readFileSync(lock, 'utf8')) as Partial<Announced>
    return {
      ports: mqtt === undefined || http === undefined ? null : { mqtt, http, sql: sql ?? null },
      socketFolder: typeof socketFolder === 'string' && isAbsolute(socketFolder) ? socketFolder : null,
      walls: walls ?? null,
    }
  } catch {
    return { ports: null, socketFolder: null, walls: null }
  }
}

/** Of the process, because a disk may say another owner of every file; of the lock where there is no /proc. */
function userOf(pid: number, lock: string): number | null {
  try {
    const user = /^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    if (user !== undefined) return Number(user)
  } catch {}
  return statSync(lock, { throwIfNoEntry: false })?.uid ?? null
}

function isHeld({ pid, startedAt }: Lock): boolean {
  return startTimeOf(pid) === startedAt
}

/**
 * When a process started, in words that no later process of the same id repeats, also after the machine was started again;
 * null when there is none. Where there is no /proc, a process that is alive is taken for the one that made the lock.
 */
function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Field 22, counted after the command's closing bracket, which may itself hold spaces. A zombie runs no more.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? null : `${bootId()}-${fields[19]}`
  } catch {
    if (process.platform === 'linux') return null
  }
  try {
    process.kill(pid, 0)
    return 'alive'
  } catch {
    return null
  }
}

/** Start times count from the machine's own start. */
function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8)
}
