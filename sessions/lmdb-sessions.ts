/**
 * Sessions on this disk: an environment of their own (`lmdb-value.ts`), written by one process. It is not the log's on
 * purpose: a PUBACK never waits for a fleet that connects.
 *
 * In memory there is of each session its name, its size and when its client was last seen; the records of connected clients
 * are there, too, and those of the others are read when they connect.
 *
 * Bounds: `sessionsMax`, and 2 KiB for each of them in all. At the bound the client that has been away longest makes room,
 * never one that is connected. Expired ones are removed a few at a time.
 */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import { openEnv } from '../pump/lmdb-env.ts'
import { within } from '../within.ts'
import { openCommits } from './commits.ts'
import { openRoom, type Seat } from './lmdb-room.ts'
import { bytesOf, keyOf, packValue, readHeads, unpackValue, writeValues } from './lmdb-value.ts'
import { encodeRecord, nameOf, newRecord, type ParsedRecord, parseRecord } from './record.ts'
import type { SessionKey, SessionStore, StoredSession } from './sessions.ts'
import { openCounted, openStored } from './stored-session.ts'

export interface LmdbSessionsOptions {
  /** The folder; made where it is missing. */
  readonly dir: string
  readonly sessionsMax: number
  /** From when the client left. */
  readonly expiryMs: number
  readonly log: Logger
  /** ms since 1970 UTC. */
  readonly clock?: () => number
}

export interface LmdbSessions extends SessionStore {
  /** Removes what has expired, and tells the disk who is still connected: as happens every minute by itself. */
  sweep(): Promise<void>
}

/** One turn of the event loop writes them. */
const PUTS_OF_A_COMMIT = 500
/** Address space, not disk. */
const MAP_BYTES_MIN = 2 ** 30
const BYTES_EACH = 2_048
const BYTES_MIN = 2 ** 20
const READ_MS_MAX = 1_000
const SWEEP_EVERY_MS = 60_000
/** The disk knows of a client that is connected within the hour, sweeps included: a kill takes no more from its expiry. */
const SEEN_EVERY_MS = 40 * 60_000
/** Of a sweep each: a fleet that connected at once is spread over some minutes. */
const SEEN_AT_ONCE = 5_000
const REMOVED_AT_ONCE = 1_000

/** Throws `data_dir_unusable` when the folder cannot be made or opened. */
export async function openLmdbSessions(options: LmdbSessionsOptions): Promise<LmdbSessions> {
  const { dir, sessionsMax, expiryMs, log, clock = Date.now } = options
  const bytesMax = Math.max(BYTES_MIN, sessionsMax * BYTES_EACH)
  const env = openEnv({ path: dir, writable: true, mapBytes: Math.max(MAP_BYTES_MIN, 8 * bytesMax) })
  const commits = openCommits<Uint8Array | null>({ write: puts => writeValues(env, puts), atOnce: PUTS_OF_A_COMMIT })
  const room = openRoom({ sessionsMax, bytesMax })
  /** A client that leaves without a write takes as much from its expiry, at most. */
  const unseenMsMax = Math.min(SEEN_EVERY_MS, expiryMs / 24)
  let sweeping: Promise<void> | null = null
  try {
    for await (const heads of readHeads(env))
      for (const { name, seenAt, bytes } of heads) room.add(name, seenAt, bytes).isKept = true
  } catch (error) {
    await env.close()
    throw error
  }
  room.sort()
  const timer = setInterval(() => void sweep(), SWEEP_EVERY_MS)
  timer.unref()
  void sweep()

  return { open: openCounted(openNamed), discard, count: async () => room.count, sweep, close }

  async function openNamed(name: string): Promise<StoredSession | null> {
    const seat = room.find(name)
    if (seat === undefined || isExpired(seat)) return begin(name, seat)
    const seenAt = seat.seenAt
    const holder = Symbol(name)
    room.sit(name, seat, holder)
    const unwritten = commits.newest(name)
    const found = await readKept(name, unwritten?.() ?? null)
    const isOurs = seat.holder === holder
    if (found === null) return isOurs ? begin(name, seat) : null
    const { session, make } = hold({ name, seat, holder, from: found, isPresent: true })
    // To be seen on disk late only shortens the expiry.
    if (!isOurs || (unwritten === undefined && clock() - seenAt < SEEN_EVERY_MS)) return session
    const isWritten = await isDone(commits.put(name, make, true))
    if (isWritten) seat.isKept = true
    // An older record is on disk, of which all that the client was told holds: better than that it gives up what it has sent. A
    // kill before this one is there may cost a message stored twice.
    return seat.isKept ? session : giveUp(name, seat, holder)
  }

  /** Null when it cannot be read. */
  async function readKept(name: string, unwritten: Uint8Array | null): Promise<ParsedRecord | null> {
    try {
      const value = unwritten ?? (await within(READ_MS_MAX, readValue(name)))
      const parsed = parseRecord(unpackValue(value ?? Buffer.alloc(0)))
      if (parsed === null) log.warn('a session could not be read; its client begins a new one')
      return parsed
    } catch (error) {
      log.warn({ err: error }, 'a session could not be read; its client begins a new one')
      return null
    }
  }

  async function readValue(name: string): Promise<Uint8Array | null> {
    return env.read(db => db.getBinary(keyOf(name)) ?? null)
  }

  async function begin(name: string, before: Seat | undefined): Promise<StoredSession | null> {
    const from = newRecord()
    const bytes = bytesOf(name, packValue(clock(), encodeRecord(from.record, null)))
    if (before === undefined && !makeRoom(1, bytes)) return null
    const seat = before ?? room.add(name, clock(), bytes)
    const holder = Symbol(name)
    room.sit(name, seat, holder)
    const { session, make } = hold({ name, seat, holder, from, isPresent: false })
    if (!(await isDone(commits.put(name, make)))) return giveUp(name, seat, holder)
    seat.isKept = true
    return session
  }

  /** The client hears that nothing is kept, so nothing may be found later. */
  function giveUp(name: string, seat: Seat, holder: symbol): null {
    if (seat.holder === holder) void isDone(remove(name, seat))
    return null
  }

  function makeRoom(sessions: number, bytes: number): boolean {
    while (!room.fits(sessions, bytes)) {
      // While the disk takes nothing, nobody has to go for whoever could not stay anyway.
      const [oldest] = commits.healthy ? room.away(1) : []
      if (oldest === undefined) return false
      void isDone(remove(...oldest))
    }
    return true
  }

  function remove(name: string, seat: Seat): Promise<void> {
    room.remove(name, seat)
    return commits.put(name, () => null, true)
  }

  async function discard(key: SessionKey): Promise<boolean> {
    const name = nameOf(key)
    if (name === null) return true
    const seat = room.find(name)
    if (seat !== undefined) return isDone(remove(name, seat))
    // It may be on its way out.
    return commits.newest(name) === undefined || isDone(commits.put(name, () => null, true))
  }

  interface Holding {
    readonly name: string
    readonly seat: Seat
    readonly holder: symbol
    readonly from: ParsedRecord
    readonly isPresent: boolean
  }

  function hold({ name, seat, holder, from, isPresent }: Holding) {
    const isHolder = () => seat.holder === holder
    let isSaved = false
    const { session, text } = openStored({
      from,
      isPresent,
      isHolder,
      checkRoom,
      save: () => {
        isSaved = true
        return commits.put(name, make)
      },
      saveSoon: () => {
        isSaved = true
        commits.putSoon(name, make)
      },
      leave,
    })
    if (isHolder()) seat.make = make
    return { session, make }

    function make(): Buffer {
      if (isHolder()) seat.seenAt = clock()
      const value = packValue(seat.seenAt, text())
      if (room.find(name) === seat) room.resize(seat, bytesOf(name, value))
      return value
    }

    function checkRoom(next: string): void {
      const grows = bytesOf(name, packValue(0, next)) - seat.bytes
      if (grows > 0 && !makeRoom(0, grows))
        throw new SurgetankError('sessions_unavailable', 'There is no room for more.')
    }

    /** Most clients change nothing while they are connected, and many connect again soon: they cost no write. */
    async function leave(): Promise<void> {
      const isOnDisk = !isSaved && commits.newest(name) === undefined && clock() - seat.seenAt < unseenMsMax
      if (!isOnDisk) seat.seenAt = clock()
      room.leave(name, seat)
      if (!isOnDisk) await isDone(commits.put(name, make, true))
    }
  }

  function isExpired({ seenAt, holder }: Seat): boolean {
    return holder === null && clock() - seenAt > expiryMs
  }

  function sweep(): Promise<void> {
    sweeping ??= sweepOnce().finally(() => {
      sweeping = null
    })
    return sweeping
  }

  async function sweepOnce(): Promise<void> {
    tellSeen(clock() - SEEN_EVERY_MS, SEEN_AT_ONCE)
    for (;;) {
      const gone = room.away(REMOVED_AT_ONCE).filter(([, seat], at) => isExpired(seat) || at < room.excess)
      if (gone.length === 0 || !commits.healthy) return
      await Promise.all(gone.map(entry => isDone(remove(...entry))))
    }
  }

  function tellSeen(before: number, most: number): void {
    for (const [name, { make }] of room.connectedBefore(before, most)) if (make !== null) commits.putSoon(name, make)
  }

  async function close(): Promise<void> {
    clearInterval(timer)
    await sweeping
    tellSeen(Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY)
    await commits.close()
    await env.close()
  }
}

function isDone(work: Promise<void>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  )
}
