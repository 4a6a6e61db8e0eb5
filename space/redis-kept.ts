/**
 * What clients hold, in Redis: beside who serves them, and shared by all brokers. See `open-kept.lua` for what lies there.
 *
 * A connection has a token, and since when it has the session, by the clock of Redis; the script lets nobody change what a
 * later one has. Redis is not believed to keep anything: each broker knows the records of its connected clients, looks every
 * second whether one of each shard is still there, and brings all back that are not, as it does when a connection to Redis broke. Of
 * a client that is away nothing is left then, and it hears that it has no session.
 *
 * A client that heard of no session, because Redis did not answer in time, must not find an old one later: it is owed that
 * this one goes, until Redis has done so.
 *
 * Bounds: the brokers' `sessionsMax`, a sixteenth in each shard; each call a second.
 */
import type { Logger } from 'pino'
import {
  type Commits,
  encodeRecord,
  nameOf,
  newRecord,
  openCommits,
  openCounted,
  openStored,
  type ParsedRecord,
  parseRecord,
  type SessionKey,
  type SessionStore,
  type StoredSession,
} from '../sessions/sessions.ts'
import { type RedisConnection, within } from './redis-connection.ts'
import { ALL_SHARDS, type RedisKeys, SHARDS, shardOf } from './redis-keys.ts'

export interface RedisKept extends SessionStore {
  /** Redis may have lost what connected clients hold. */
  bringBack(): void
}

export interface KeptOptions {
  readonly connection: RedisConnection
  readonly keys: RedisKeys
  /** Names this process. */
  readonly unit: string
  readonly sessionsMax: number
  readonly expiryMs: number
  readonly log: Logger
  /** ms since 1970 UTC. */
  readonly clock?: () => number
}

const CALL_MS_MAX = 1_000
const CLOSE_MS_MAX = 2_000
const PUTS_OF_A_CALL = 200
const LOOK_EVERY_MS = 1_000
/** A client is taken to be connected for so long after its broker said so last: then it may make room for others. */
const CONNECTED_MS = 30 * 60_000
const CONFIRM_EVERY_MS = 10 * 60_000
/** Of one look: a fleet that connected at once is spread over some minutes. */
const CONFIRMED_AT_ONCE = 500
/** A broker that knows nothing of it does not bring back what was discarded meanwhile. */
const DISCARDED_MS = 60 * 60_000
const OWED_MAX = 100_000
const PAID_AT_ONCE = 500

/** What `open-kept.lua` answers. */
const [NOT_KEPT, PRESENT] = [0, 1]

/** The session of a connection. */
interface Mine {
  readonly name: string
  readonly token: string
  since: string
  toldAt: number
  /** It is not to be brought back any more. */
  dropped: boolean
  make: (() => Put) | null
}

interface Put {
  readonly mine: Mine
  readonly text: string
  readonly connected: boolean
}

interface Owed {
  readonly token: string
  /** Whoever opened it after this has it; ms since 1970 UTC by the clock of Redis, as far as it is known. */
  readonly until: number
}

export function openRedisKept(options: KeptOptions): RedisKept {
  const { connection, keys, unit, sessionsMax, expiryMs, log, clock = Date.now } = options
  const mostOfShard = Math.ceil(sessionsMax / SHARDS)
  const held = new Map<string, Mine>()
  const owed = new Map<string, Owed>()
  /** Of each shard, one that must be there; null when there is none. */
  const canaries: (string | null)[] = ALL_SHARDS.map(() => null)
  const commits = ALL_SHARDS.map(shard =>
    openCommits<Put>({ write: puts => keep(shard, puts), atOnce: PUTS_OF_A_CALL }),
  )
  let opened = 0
  /** How far the clock of Redis is ahead. */
  let aheadMs = 0
  let looking = false
  const timer = setInterval(() => void look(), LOOK_EVERY_MS)
  timer.unref()

  return { open: openCounted(openNamed), discard, count, bringBack: () => bringBack(() => true), close }

  async function openNamed(name: string): Promise<StoredSession | null> {
    const token = `${unit}-${++opened}`
    const mine: Mine = { name, token, since: '0', toldAt: clock(), dropped: false, make: null }
    held.set(name, mine)
    try {
      // What the connection before it has not brought there yet would be refused afterwards.
      const unwritten = commitsOf(name).newest(name)
      if (unwritten !== undefined) await commitsOf(name).put(name, unwritten)
      if (owed.has(name)) await pay(name)
      const fresh = newRecord()
      const args = [name, token, encodeRecord(fresh.record, null), expiryMs, CONNECTED_MS, mostOfShard]
      const reply = await connection.run('open-kept', keysOf(name), args, CALL_MS_MAX)
      const [found, since, text] = reply as [number, string, string]
      if (found === NOT_KEPT) return letGo(mine)
      mine.since = since
      aheadMs = Number(since) - clock()
      if (found !== PRESENT) return holdSession(mine, fresh, false)
      return await openFound(mine, text)
    } catch (error) {
      log.debug({ err: error }, 'the session of a client could not be opened')
      letGo(mine)
      // Whoever has opened it here since has it.
      if (!held.has(name)) owe(name, token)
      return null
    }
  }

  async function openFound(mine: Mine, text: string): Promise<StoredSession | null> {
    const parsed = parseRecord(text)
    if (parsed !== null) return holdSession(mine, parsed, true)
    log.warn('a session could not be read; its client begins a new one')
    const session = holdSession(mine, newRecord(), false)
    await session.save(session.record)
    return session
  }

  function letGo(mine: Mine): null {
    if (held.get(mine.name) === mine) held.delete(mine.name)
    return null
  }

  function holdSession(mine: Mine, from: ParsedRecord, isPresent: boolean): StoredSession {
    const { name } = mine
    const isHolder = () => held.get(name) === mine
    const { session, text } = openStored({
      from,
      isPresent,
      isHolder,
      checkRoom: () => {},
      save: () => commitsOf(name).put(name, make),
      saveSoon: () => commitsOf(name).putSoon(name, make),
      leave,
    })
    mine.make = make
    if (isHolder()) canaries[shardOf(name)] = name
    return session

    function make(): Put {
      return { mine, text: text(), connected: isHolder() }
    }

    async function leave(): Promise<void> {
      letGo(mine)
      await commitsOf(name)
        .put(name, make, true)
        .catch(() => {})
    }
  }

  async function keep(shard: number, puts: readonly (readonly [string, Put])[]): Promise<void> {
    const wanted = puts.map(([, put]) => put).filter(({ mine }) => !mine.dropped)
    if (wanted.length === 0) return
    const kept = wanted.map(({ mine }) => keys.kept(mine.name))
    const args = wanted.flatMap(({ mine, text, connected }) => {
      mine.toldAt = clock()
      return [mine.name, mine.since, mine.token, text, connected ? 1 : 0]
    })
    const own = [expiryMs, CONNECTED_MS, mostOfShard]
    const reply = await connection.run('keep-kept', [keys.keptSeen(shard), ...kept], [...own, ...args], CALL_MS_MAX)
    // Another connection has it, at this broker or at another one.
    for (const [at, isKept] of (reply as number[]).entries()) if (isKept === 0) letGo((wanted[at] as Put).mine)
  }

  async function discard(key: SessionKey): Promise<boolean> {
    const name = nameOf(key)
    if (name === null) return true
    const mine = held.get(name)
    if (mine !== undefined) mine.dropped = true
    held.delete(name)
    commitsOf(name).forget(name)
    const token = `${unit}-${++opened}`
    try {
      await connection.run('discard-kept', keysOf(name), [name, token, DISCARDED_MS, ''], CALL_MS_MAX)
      owed.delete(name)
      return true
    } catch {
      owe(name, token)
      return false
    }
  }

  function owe(name: string, token: string): void {
    if (owed.size < OWED_MAX || owed.has(name)) owed.set(name, { token, until: clock() + aheadMs })
  }

  /** Rejects as a call does. */
  async function pay(name: string): Promise<void> {
    const owing = owed.get(name)
    if (owing === undefined) return
    const args = [name, owing.token, DISCARDED_MS, Math.round(owing.until)]
    await connection.run('discard-kept', keysOf(name), args, CALL_MS_MAX)
    if (owed.get(name) === owing) owed.delete(name)
  }

  /** Every second. */
  async function look(): Promise<void> {
    if (looking || !connection.up) return
    looking = true
    try {
      // One that Redis does not take must not keep the others from being looked for.
      await Promise.allSettled(firstOf(owed.keys(), PAID_AT_ONCE).map(pay))
      await Promise.all(ALL_SHARDS.map(lookAt))
      confirm(clock() - CONFIRM_EVERY_MS)
    } catch (error) {
      log.debug({ err: error }, 'what clients hold could not be looked for in Redis yet')
    } finally {
      looking = false
    }
  }

  async function lookAt(shard: number): Promise<void> {
    const canary = canaries[shard] ?? null
    if (canary === null) return
    const seen = await connection.command('ZSCORE', [keys.keptSeen(shard), canary], CALL_MS_MAX)
    if (seen === null && canaries[shard] === canary) bringBack(name => shardOf(name) === shard)
  }

  function bringBack(isLost: (name: string) => boolean): void {
    for (const shard of ALL_SHARDS) {
      const canary = canaries[shard] ?? null
      if (canary !== null && isLost(canary)) canaries[shard] = null
    }
    for (const [name, { make }] of held) {
      if (make === null || !isLost(name)) continue
      canaries[shardOf(name)] = name
      commitsOf(name).putSoon(name, make)
    }
  }

  function confirm(before: number): void {
    let told = 0
    for (const [name, { toldAt, make }] of held) {
      if (toldAt >= before || make === null) continue
      commitsOf(name).putSoon(name, make)
      if (++told === CONFIRMED_AT_ONCE) return
    }
  }

  async function count(): Promise<number> {
    const counts = await Promise.all(ALL_SHARDS.map(shard => connection.command('ZCARD', [keys.keptSeen(shard)])))
    return counts.reduce<number>((sum, one) => sum + Number(one), 0)
  }

  function commitsOf(name: string): Commits<Put> {
    return commits[shardOf(name)] as Commits<Put>
  }

  function keysOf(name: string): [string, string] {
    return [keys.kept(name), keys.keptSeen(shardOf(name))]
  }

  async function close(): Promise<void> {
    clearInterval(timer)
    const ended = Promise.all(commits.map(one => one.close()))
    await within(ended, CLOSE_MS_MAX).catch(error =>
      log.warn({ err: error }, 'Redis did not take all that clients hold'),
    )
  }
}

function firstOf(names: Iterable<string>, most: number): string[] {
  const first: string[] = []
  for (const name of names) {
    if (first.length === most) break
    first.push(name)
  }
  return first
}
