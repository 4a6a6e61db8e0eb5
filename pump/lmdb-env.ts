/**
 * One LMDB environment, as this process holds it: snapshots to read, whole durable transactions to write.
 *
 * What lmdb 3.5.6 was found to do decides every rule here:
 * - `overlappingSync` shows a commit to readers before it is on disk: a writer could bring a chunk into ClickHouse that a
 *   power cut then takes out of the log, and its position would be given to other readings. So it is off: a commit shows
 *   when it is durable.
 * - Opening an environment while another process commits can set the shared transaction number back, and the next commit
 *   would then replace the last one (2 of 17,000 acknowledged commits lost with 30,000 openings beside them). So each
 *   transaction first compares its number with the newest one in the file; on a difference nothing is written, the
 *   environment is opened anew, which sets the number right, and the transaction runs again [G1].
 * - An error inside a plain transaction commits what came before it. So each transaction runs as a child, which is undone.
 * - A failed commit rejects a second promise that nobody holds, which would end the process. It is taken here.
 * - A full disk can end the process: lmdb words that error into a buffer that is too small. So nothing is written to a disk
 *   that has not a few MB left.
 * - After a commit that the disk refused, LMDB's list of free pages is not what the file says, and after a refused write of
 *   the first pages the next commit never ends. So the environment is opened anew after each commit that failed.
 * - One process may open an environment once: all handles to a path share it, and one that writes turns it writable.
 * - A cursor or a read transaction that is kept pins pages, and the file grows. So reads are one turn long, by key.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, realpathSync, statfsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { open, type RootDatabase } from 'lmdb'
import { SurgetankError } from '../errors.ts'

export type Db = RootDatabase<Buffer, Uint8Array>

export interface Env {
  /** Runs `work` at once on one snapshot, the newest. Null while the environment was never made. */
  read<T>(work: (db: Db) => T): Promise<T | null>
  /**
   * Runs `work` as one transaction: durable when it resolves, and when it rejects, as if it had never run. `work` may run
   * more than once, so it changes nothing but `db`; `bytes` is what it writes, about, when that is much. Rejects with
   * `log_unavailable` (retry) when the disk does not take it.
   */
  write<T>(work: (db: Db, txn: number) => T, bytes?: number): Promise<T>
  close(): Promise<void>
}

export interface EnvOptions {
  readonly path: string
  /** A handle that does not write never makes the environment. */
  readonly writable: boolean
  /** Address space, not disk: well over what the environment will ever hold. */
  readonly mapBytes: number
}

interface Held {
  readonly path: string
  mapBytes: number
  writable: boolean
  users: number
  db: Db | null
  opening: Promise<void> | null
  lastWrite: Promise<unknown>
  broken: SurgetankError | null
  staleSince: { readonly txn: number; readonly at: number } | null
}

const TXN_KEY = Buffer.from('t')
const HEADER_BYTES = 8192
const DISK_BYTES_MIN = 4 * 1024 * 1024
const STALE_TRIES = 5
const STALE_MS = 2_000
const COMMIT_TICK_MS = 1_000
const COMMIT_TICKS_MAX = 120
const CORRUPT_CODES = [-30797, -30796, -30793]

/** All environments of this process by path: LMDB forbids to open one twice in a process. */
const environments = new Map<string, Held>()

/** Throws `data_dir_unusable` when a writable environment cannot be made or opened. */
export function openEnv(options: EnvOptions): Env {
  const held = hold(options)
  let closed = false

  return { read, write, close }

  async function read<T>(work: (db: Db) => T): Promise<T | null> {
    while (held.opening !== null) await held.opening
    if (closed) throw new SurgetankError('log_unavailable', `${held.path} was closed.`)
    const db = openedForReading(held)
    if (db === null) return null
    if (isStale(held, db)) {
      await openAnew(held)
      return read(work)
    }
    db.resetReadTxn()
    try {
      return work(db)
    } catch (error) {
      throw translate(error, held.path)
    } finally {
      db.resetReadTxn()
    }
  }

  function write<T>(work: (db: Db, txn: number) => T, bytes = 0): Promise<T> {
    if (closed || !options.writable) throw new Error(`${held.path} is not open for writing.`)
    const written = held.lastWrite.then(() => {
      checkDisk(held.path, bytes)
      return commit(held, work, 0)
    })
    held.lastWrite = written.catch(() => {})
    return written
  }

  async function close(): Promise<void> {
    if (closed) return
    closed = true
    await held.lastWrite
    if (--held.users > 0) return
    environments.delete(held.path)
    await held.db?.close()
    held.db = null
  }
}

function hold({ path, writable, mapBytes }: EnvOptions): Held {
  if (writable) makeDirectory(path)
  const key = realPath(path)
  const held = environments.get(key) ?? {
    path: key,
    mapBytes,
    writable: false,
    users: 0,
    db: null,
    opening: null,
    lastWrite: Promise.resolve(),
    broken: null,
    staleSince: null,
  }
  held.mapBytes = Math.max(held.mapBytes, mapBytes)
  if (writable && !held.writable) {
    // Closing one that only reads has no part that waits.
    void held.db?.close()
    held.db = null
    held.writable = true
    held.db = openDb(held)
  }
  held.users++
  environments.set(key, held)
  return held
}

function makeDirectory(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (error) {
    throw new SurgetankError('data_dir_unusable', `${path} cannot be made.`, error)
  }
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    // Not there yet; whoever makes it will find the same name.
    return path
  }
}

function openDb({ path, writable, mapBytes }: Held): Db {
  const fresh = writable && !exists(path)
  const options = {
    readOnly: !writable,
    encoding: 'binary',
    keyEncoding: 'binary',
    overlappingSync: false,
    // Without effect while commits do not overlap; should that ever change, a crash still never opens an unsynced commit.
    safeRestore: true,
    mapSize: mapBytes,
    // Batching by event turn makes one more promise that nobody holds. A transaction is a batch of its own anyway.
    eventTurnBatching: false,
  } as const
  try {
    const db = open<Buffer, Uint8Array>(path, options)
    if (fresh) syncDirectories(path)
    return db
  } catch (error) {
    throw new SurgetankError('data_dir_unusable', `${path} cannot be opened.`, error)
  }
}

/** LMDB syncs the file but not its name: without this a power cut could take a new environment whole. */
function syncDirectories(path: string): void {
  for (const directory of [path, dirname(path)]) {
    const fd = openSync(directory, 'r')
    try {
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  }
}

/** Whether the environment was made: its first pages are written at once. */
function exists(path: string): boolean {
  return (statSync(join(path, 'data.mdb'), { throwIfNoEntry: false })?.size ?? 0) >= HEADER_BYTES
}

function openedForReading(held: Held): Db | null {
  if (held.db === null && exists(held.path)) held.db = openDb(held)
  return held.db
}

/**
 * True when the file has held a newer commit than this process can see for STALE_MS: another process's opening has set
 * the number back, and no commit came since to set it right. Opening anew does.
 */
function isStale(held: Held, db: Db): boolean {
  if (held.writable) return false
  db.resetReadTxn()
  const newest = newestTxn(db)
  const seen = db.getBinary(TXN_KEY)?.readDoubleBE(0) ?? newest
  if (seen >= newest) held.staleSince = null
  else if (held.staleSince?.txn !== newest) held.staleSince = { txn: newest, at: performance.now() }
  return held.staleSince !== null && performance.now() - held.staleSince.at > STALE_MS
}

function newestTxn(db: Db): number {
  return (db.getStats() as { lastTxnId: number }).lastTxnId
}

async function openAnew(held: Held): Promise<void> {
  held.staleSince = null
  // What only reads is closed at once; what writes waits for its last commit, and reads wait for it.
  const closing = held.db?.close()
  held.db = null
  if (held.writable) {
    held.opening = Promise.resolve(closing)
    await held.opening
    held.opening = null
  }
  held.db = openDb(held)
}

function checkDisk(path: string, bytes: number): void {
  const { bavail, bsize } = statfsSync(path)
  if (bavail * bsize >= DISK_BYTES_MIN + 2 * bytes) return
  throw new SurgetankError('log_unavailable', `The disk of ${path} is full. Free some of it.`)
}

const STALE = new Error('The shared transaction number was set back.')

async function commit<T>(held: Held, work: (db: Db, txn: number) => T, tries: number): Promise<T> {
  if (held.broken !== null) throw held.broken
  while (held.opening !== null) await held.opening
  held.db ??= openDb(held)
  const { db } = held
  try {
    const result = await inTime(
      held,
      db.childTransaction(() => {
        const txn = db.getWriteTxnId()
        if (newestTxn(db) !== txn - 1) throw STALE
        const done = work(db, txn)
        const number = Buffer.allocUnsafe(8)
        number.writeDoubleBE(txn)
        db.putSync(TXN_KEY, number)
        return done
      }),
    )
    await db.flushed
    return result
  } catch (error) {
    if (error !== STALE) {
      const translated = translate(error, held.path)
      if (translated !== error && held.broken === null) await openAnew(held)
      throw translated
    }
    if (tries === STALE_TRIES) throw new SurgetankError('log_unavailable', `${held.path}: ${STALE.message}`)
    await openAnew(held)
    return commit(held, work, tries + 1)
  }
}

/**
 * A commit that does not end is given up, and no other begins; whether it is durable shows at the next start. Ticks and
 * not the time count, so that a process that was stopped and goes on does not give up a commit that was stopped with it.
 */
async function inTime<T>(held: Held, committed: Promise<T>): Promise<T> {
  let ticks = 0
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setInterval(() => {
      if (++ticks < COMMIT_TICKS_MAX) return
      const detail = `A commit in ${held.path} has not ended for ${(COMMIT_TICKS_MAX * COMMIT_TICK_MS) / 1000} s. Check the disk, then start again.`
      held.broken = new SurgetankError('data_dir_unusable', detail)
      reject(held.broken)
    }, COMMIT_TICK_MS)
  })
  try {
    return await Promise.race([committed, late])
  } finally {
    clearInterval(timer)
  }
}

/** LMDB's errors as ours; others are left as they are. */
function translate(error: unknown, path: string): unknown {
  if (!(error instanceof Error) || error instanceof SurgetankError) return error
  const { code, commitError } = error as Error & { code?: unknown; commitError?: Promise<unknown> }
  // The promise that nobody holds, see above.
  commitError?.catch(() => {})
  if (typeof code === 'number' && CORRUPT_CODES.includes(code)) {
    return new SurgetankError('log_corrupt', `${path} cannot be read: ${error.message}`, error)
  }
  if (typeof code !== 'number' && commitError === undefined) return error
  return new SurgetankError('log_unavailable', `${path}: ${error.message}.`, error)
}
