/**
 * The modes of what is in the data directory: folders 0700, files 0600. What a process makes has them by its umask
 * (private-files.ts); this corrects what is there from before: of an older version, restored from a backup, made by hand.
 *
 * The directory itself comes first, which closes all of it at once. The rest is corrected from the top down, so that nobody
 * else can put another thing under a name between the look and the change. Links are never followed, except that the
 * directory itself may be one. Files may come and go meanwhile. What cannot be corrected or looked at, such as a volume of
 * another owner, is told and never stops a start.
 */
import { chmodSync, lstatSync, opendirSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
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
  /** To whom the directory must belong; null where nobody can say. */
  readonly owner: number | null
  /** Looks at so many at most. */
  readonly seenMax: number
  /** After so many ms it goes slowly, beside everything else. */
  readonly atOnceMsMax: number
  readonly signal?: AbortSignal
}

/** A start waits so long at most; the rest is corrected beside what runs. */
const START_MS_MAX = 1_000
/**
 * One look takes a few µs by a call that waits, and ten times as much by one that does not. So this waits, in turns that are
 * too short to be noticed, however slow the disk is.
 */
const TURN_MS = 1
/** After each turn: a sixth of one core at most. */
const PAUSE_MS = 5

/** Corrects the modes at a start. Resolves when all are, or when that goes on beside everything else; never rejects. */
export async function closeDataFiles(dir: string, log: Logger, signal: AbortSignal): Promise<void> {
  const owner = process.geteuid?.() ?? null
  const options = { correct: true, owner, seenMax: Number.POSITIVE_INFINITY, atOnceMsMax: START_MS_MAX, signal }
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
  const report: Writable<FilesReport> = { seen: 0, corrected: 0, exposed: 0, first: null, whole: true }
  const since = performance.now()
  const looks = lookAround(dir, options, report)
  try {
    for (let turnEnds = since + TURN_MS; !looks.next().done; ) {
      if (report.seen >= options.seenMax || options.signal?.aborted) return { ...report, whole: false }
      if (performance.now() < turnEnds) continue
      await pause(turnEnds - since > options.atOnceMsMax ? PAUSE_MS : 0)
      turnEnds = performance.now() + TURN_MS
    }
    return report
  } finally {
    looks.return()
  }
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] }

/** One thing at each step, from the top down. */
function* lookAround(dir: string, options: FilesOptions, report: Writable<FilesReport>): Generator<undefined, void> {
  const { correct: correcting, owner } = options
  const top = ifThere(dir, () => statSync(dir))
  if (top === null) return
  judge(dir, top)
  if (report.exposed === 0 && owner !== null && top.uid !== owner) expose(dir, `it belongs to user ${top.uid}`)
  const folders = [dir]
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    yield
    for (const name of namesIn(folder, ifThere)) {
      const path = join(folder, name)
      const found = ifThere(path, () => lstatSync(path))
      if (found === null) continue
      if (!found.isSymbolicLink()) judge(path, found)
      else if (folder === dir) judgeLink(path)
      if (found.isDirectory()) folders.push(path)
      yield
    }
  }

  function judge(path: string, found: Stats): void {
    report.seen++
    if (!isOpen(found)) return
    const why = correcting ? correct(path, found) : null
    if (why === undefined) report.corrected++
    else expose(path, why)
  }

  /** In the directory itself, made by an operator: the log on a disk of its own, say. */
  function judgeLink(path: string): void {
    const target = ifThere(path, () => statSync(path))
    if (target !== null && isOpen(target)) expose(path, 'it is a link, and what it leads to is left as it is')
  }

  /** Null of what vanished, or is closed to this user. A disk that fails at one thing does not end the look at the rest. */
  function ifThere<Found>(path: string, look: () => Found): Found | null {
    try {
      return look()
    } catch (error) {
      const { code = '' } = error as NodeJS.ErrnoException
      if (!['ENOENT', 'ENOTDIR', 'EACCES'].includes(code)) expose(path, `it cannot be looked at: ${code}`)
      return null
    }
  }

  function expose(path: string, why: string | null): void {
    report.exposed++
    report.first ??= { path, why }
  }
}

/** Undefined when nobody else reaches it any more; otherwise what is in the way. */
function correct(path: string, found: Stats): string | undefined {
  try {
    chmodSync(path, wantedMode(found))
    return isOpen(statSync(path)) ? 'its disk keeps no modes' : undefined
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

function isOfAnother(found: Stats): boolean {
  return process.geteuid !== undefined && found.uid !== process.geteuid()
}

/** What is in a folder; nothing of one that vanished, or that this user cannot read. */
function* namesIn(
  folder: string,
  ifThere: <Found>(path: string, look: () => Found) => Found | null,
): Generator<string, void> {
  const entries = ifThere(folder, () => opendirSync(folder, { bufferSize: 256 }))
  if (entries === null) return
  try {
    for (;;) {
      const entry = ifThere(folder, () => entries.readSync())
      if (entry === null) return
      yield entry.name
    }
  } finally {
    entries.closeSync()
  }
}
