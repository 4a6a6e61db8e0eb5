/**
 * The data directory belongs to one running surgetank. The lock is a file with the process id and its start time: a lock
 * whose process is gone, or whose id another process has by now, is stale and taken over. ClickHouse's own lock on its
 * directory and the fenced claims of the log stand behind it.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { SurgetankError } from '../errors.ts'

export interface Ports {
  readonly mqtt: number
  readonly http: number
  readonly sql: number
}

/** Who runs here, and where it listens: what the other commands (`verify`, `quarantine`, `doctor`) need to know. */
export interface Running {
  readonly pid: number
  readonly startedAt: string
  readonly ports: Ports | null
}

export interface DataDir {
  readonly log: string
  readonly database: string
  /** Tells the other commands where this instance listens. */
  announce(ports: Ports): void
  release(): void
}

const LOCK = 'surgetank.lock'

/** Makes and locks the directory. Throws `data_dir_unusable`, or `data_dir_in_use` with the id of the process that has it. */
export function openDataDir(path: string): DataDir {
  const paths = { log: join(path, 'log'), database: join(path, 'clickhouse') }
  const lock = join(path, LOCK)
  const own = { pid: process.pid, startedAt: startTimeOf(process.pid) ?? '' }
  try {
    for (const dir of Object.values(paths)) mkdirSync(dir, { recursive: true })
  } catch (error) {
    throw new SurgetankError(
      'data_dir_unusable',
      `${path}; set SURGETANK_DATA_DIR to a directory that can be written.`,
      error,
    )
  }
  takeLock(path, { ...own, ports: null })
  return {
    ...paths,
    announce: ports => writeFileSync(lock, JSON.stringify({ ...own, ports })),
    release: () => rmSync(lock, { force: true }),
  }
}

/** The surgetank that runs on this directory; null when none does. */
export function findRunning(path: string): Running | null {
  let running: Running
  try {
    running = JSON.parse(readFileSync(join(path, LOCK), 'utf8')) as Running
  } catch {
    // No lock, or one that was cut short by a kill while it was written: nobody runs.
    return null
  }
  return startTimeOf(running.pid) === running.startedAt ? running : null
}

function takeLock(path: string, own: Running): void {
  for (let tries = 0; tries < 3; tries++) {
    try {
      writeFileSync(join(path, LOCK), JSON.stringify(own), { flag: 'wx' })
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw new SurgetankError('data_dir_unusable', `${path} cannot be written.`, error)
      }
    }
    const running = findRunning(path)
    if (running !== null) {
      const way = 'Stop it first, or set SURGETANK_DATA_DIR to another directory.'
      throw new SurgetankError('data_dir_in_use', `Process ${running.pid} uses ${path}. ${way}`)
    }
    rmSync(join(path, LOCK), { force: true })
  }
  throw new SurgetankError('data_dir_in_use', `Another one is starting on ${path} at this moment.`)
}

/**
 * When a process started, in words that no later process of the same id repeats; null when there is none. Where there is
 * no /proc, a process that is alive is taken for the one that wrote the lock.
 */
function startTimeOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // Field 22, counted after the command's closing bracket, which may itself hold spaces. A zombie runs no more.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? null : (fields[19] ?? null)
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
