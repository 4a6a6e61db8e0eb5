/**
 * The modes of what is in the data directory: folders 0700, files 0600. What a process makes has them by its umask
 * (private-files.ts); this corrects what is there from before: of an older version, restored from a backup, made by hand.
 *
 * The directory itself comes first, which closes all of it at once. The rest is corrected from the top down, so that nobody
 * else can put another thing under a name between the look and the change. Links are never followed, except that the
 * directory itself may be one. Files may come and go meanwhile. What cannot be corrected, such as a volume of another
 * owner, is told and never stops a start.
 */
import type { Stats } from 'node:fs'
import { chmod, lstat, opendir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { within } from '../within.ts'

/** Something that others may reach, and why it stays so; the reason is null where nothing was tried. */
export interface Exposed {
  readonly path: string
  readonly why: string | null
}

export interface FilesReport {
  /** Folders and files looked at. */
  readonly seen: number
  readonly corrected: number
  /** How many are still open to others, and the first of them. */
  readonly exposed: number
  readonly first: Exposed | null
  /** False when it ended before it had looked at all of them. */
  readonly whole: boolean
}

export interface FilesOptions {
  /** False only looks. */
  readonly correct: boolean
  /** Looks at so many at most. */
  readonly seenMax: number
  /** From so many on it goes slowly, beside everything else. */
  readonly atOnceMax: number
  readonly signal?: AbortSignal
}

const AT_ONCE_MAX = 5_000
/** A start waits so long at most; the rest is corrected beside what runs. */
const START_MS_MAX = 1_000
const GROUP = 32
/** After each group: about 6,000 a second, for a tenth of one core. */
const PAUSE_MS = 5

/** Corrects the modes at a start. Resolves when all are, or when that goes on beside everything else; never rejects. */
export async function closeDataFiles(dir: string, log: Logger, signal: AbortSignal): Promise<void> {
  const options = { correct: true, seenMax: Number.POSITIVE_INFINITY, atOnceMax: AT_ONCE_MAX, signal }
  const told = checkDataFiles(dir, options).then(
    report => tell(report, log),
    (error: unknown) => log.warn({ err: error }, 'the modes of the data directory could not be looked at'),
  )
  await within(START_MS_MAX, told)
}

function tell({ corrected, exposed, first }: FilesReport, log: Logger): void {
  if (corrected > 0) log.info({ corrected }, 'files of the data directory were open to others, and are not any more')
  if (first === null) return
  const fields = { exposed, path: first.path, why: first.why }
  log.warn(fields, 'files of the data directory are open to others; `surgetank doctor` says what to do')
}

/** Looks at the modes of a data directory and what is in it. One that is not there has nothing to tell. */
export async function checkDataFiles(dir: string, options: FilesOptions): Promise<FilesReport> {
  const report = { seen: 0, corrected: 0, exposed: 0, first: null as Exposed | null, whole: true }
  const top = await ifThere(stat(dir))
  if (top === null) return report
  await judge(dir, top)
  if (report.exposed === 0 && isOfAnother(top)) expose(dir, `it belongs to user ${top.uid}`)
  const folders = [dir]
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for await (const group of groupsOf(folder)) {
      if (report.seen >= options.seenMax || options.signal?.aborted) return { ...report, whole: false }
      folders.push(...(await Promise.all(group.map(lookAt))).filter(path => path !== null))
      if (report.seen > options.atOnceMax) await pause(PAUSE_MS)
    }
  }
  return report

  /** Resolves with the path when it is a folder to go on with. */
  async function lookAt(path: string): Promise<string | null> {
    const found = await ifThere(lstat(path))
    if (found === null) return null
    if (!found.isSymbolicLink()) await judge(path, found)
    else if (dirname(path) === dir) await judgeLink(path)
    return found.isDirectory() ? path : null
  }

  /** In the directory itself, made by an operator: the log on a disk of its own, say. */
  async function judgeLink(path: string): Promise<void> {
    const target = await ifThere(stat(path))
    if (target !== null && isOpen(target)) expose(path, 'it is a link, and what it leads to is left as it is')
  }

  async function judge(path: string, found: Stats): Promise<void> {
    report.seen++
    if (!isOpen(found)) return
    const why = options.correct ? await correct(path, found) : null
    if (why === undefined) report.corrected++
    else expose(path, why)
  }

  function expose(path: string, why: string | null): void {
    report.exposed++
    report.first ??= { path, why }
  }
}

/** Undefined when nobody else reaches it any more; otherwise what is in the way. */
async function correct(path: string, found: Stats): Promise<string | undefined> {
  try {
    await chmod(path, wantedMode(found))
    return isOpen(await stat(path)) ? 'its disk keeps no modes' : undefined
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (code === 'EROFS') return 'its disk is read-only'
    return isOfAnother(found) ? `it belongs to user ${found.uid}` : code
  }
}

/** Open to others, or a file that may be run. */
function isOpen(found: Stats): boolean {
  return (found.mode & ~wantedMode(found) & 0o777) !== 0
}

function wantedMode(found: Stats): number {
  return found.isDirectory() ? 0o700 : 0o600
}

/** What is in a folder, some at a time; nothing of one that vanished, or that this user cannot read. */
async function* groupsOf(folder: string): AsyncGenerator<string[]> {
  const entries = await ifThere(opendir(folder, { bufferSize: GROUP }))
  if (entries === null) return
  try {
    let isLast = false
    while (!isLast) {
      const group: string[] = []
      while (group.length < GROUP && !isLast) {
        const entry = await ifThere(entries.read())
        if (entry === null) isLast = true
        else group.push(join(folder, entry.name))
      }
      yield group
    }
  } finally {
    await entries.close()
  }
}

async function ifThere<Found>(look: Promise<Found>): Promise<Found | null> {
  try {
    return await look
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return null
    throw error
  }
}

function isOfAnother(found: Stats): boolean {
  return process.geteuid !== undefined && found.uid !== process.geteuid()
}
