/**
 * Which unit serves which MQTT client: a key for each client, and a channel for each unit on which it is told that another
 * one has taken a client over.
 *
 * The key says since when, so of two units that both believe to serve a client, because Redis was away, stalled or emptied
 * when it moved, the one with the newer CONNECT has it, whoever asks first. What may not be in Redis, not have been told to
 * the unit before, or been told by another one and not looked up, is in doubt, and is said again every second until it is
 * through or the client has gone.
 *
 * Bounds: a take-over and a release wait a second at most. A key lasts while its client is connected, which is confirmed
 * every ten minutes, and five minutes more, so that a client that comes back within them is known to have moved or not; one
 * that is not known any more is taken as moved.
 */
import type { Logger } from 'pino'
import { type RedisConnection, within } from './redis-connection.ts'
import { type RedisKeys, shardOf } from './redis-keys.ts'
import type { RedisSubscriber } from './redis-subscriber.ts'
import type { RedisUnits } from './redis-units.ts'
import { parseTold, type TakenTold, type Told } from './session-told.ts'
import type { Sessions, Taken, Whose } from './space.ts'

export interface RedisSessions extends Sessions {
  /** Redis may have lost what this unit said of its clients, or others may have said more. */
  doubtAll(): void
  close(): void
}

export interface SessionsOptions {
  readonly connection: RedisConnection
  readonly subscriber: RedisSubscriber
  readonly keys: RedisKeys
  readonly units: Pick<RedisUnits, 'unit' | 'fresh' | 'isLiveUnit' | 'disown'>
  /** False for a process that takes no clients, which nobody need tell anything. */
  readonly isUnit: boolean
  readonly log: Logger
}

const CALL_MS_MAX = 1_000
const HELD_MS = 30 * 60_000
const RELEASED_MS = 5 * 60_000
const DOUBT_EVERY_MS = 10 * 60_000
const AGAIN_MS = 1_000
const KEPT_AT_ONCE = 200

/** What `keep-sessions.lua` and `release-session.lua` answer. */
const NOW_OURS = 1
const ANOTHERS = 2
const RELEASED: Record<number, Whose> = { 1: 'ours', 0: 'theirs' }

/** A client that is served here. */
interface Session {
  /** When it connected, ms since 1970 UTC. */
  since: number
  /** The unit that had it before knows, as far as one can tell. */
  told: boolean
}

export function openRedisSessions(options: SessionsOptions): RedisSessions {
  const { connection, subscriber, keys, units, isUnit, log } = options
  const { unit } = units
  const mine = new Map<string, Session>()
  /** Clients of `mine` of which Redis, or the unit before, may not know. */
  const doubted = new Set<string>()
  const asked = new Map<number, (settled: boolean) => void>()
  let lastAsked = 0
  let taken: (client: string) => Promise<boolean> = async () => true
  let keeping = false
  let again: NodeJS.Timeout | null = null
  let closed = false
  const unsubscribe = isUnit ? subscriber.subscribe(keys.unit(unit), { message: hear, missed: doubtAll }) : () => {}
  const timer = setInterval(doubtAll, DOUBT_EVERY_MS)
  timer.unref()

  return {
    take,
    release,
    onTaken: handler => {
      taken = handler
    },
    disown: units.disown,
    doubtAll,
    close,
  }

  async function take(client: string): Promise<Taken> {
    const session: Session = { since: Date.now(), told: false }
    const wasTold = mine.get(client)?.told ?? true
    mine.set(client, session)
    try {
      return await within(takeOver(client, session, wasTold), CALL_MS_MAX)
    } catch {
      if (mine.get(client) === session) doubted.add(client)
      keepSoon()
      return { moved: true, settled: false }
    }
  }

  async function takeOver(client: string, session: Session, wasTold: boolean): Promise<Taken> {
    const args = [unit, session.since, HELD_MS]
    const reply = await connection.run('take-session', [keys.session(client)], args, CALL_MS_MAX)
    const [had, since, before] = reply as [string, string, string]
    session.since = Number(since)
    const other = had !== unit || !wasTold ? before : ''
    const settled = other === '' || (await tell(other, client))
    session.told = true
    return { moved: had !== unit || other !== '', settled }
  }

  /** Resolves when the other unit has let go of the client, or cannot be asked; true when nothing of it is on its way there. */
  async function tell(other: string, client: string): Promise<boolean> {
    await units.fresh(0)
    const id = ++lastAsked
    const done = new Promise<boolean>(resolve => asked.set(id, resolve))
    try {
      // Told also without a lease, which one that was only slow may get back.
      const heard = await say(other, { take: client, from: unit, id })
      // It closed, and settled what it had; or its lease ran out, and what was on its way then has had seconds to arrive.
      if (!units.isLiveUnit(other)) return true
      // A unit that does not listen looks up all its clients once it does again.
      return heard > 0 && (await within(done, CALL_MS_MAX).catch(() => false))
    } finally {
      asked.delete(id)
    }
  }

  /** Returns how many hear it. */
  async function say(other: string, told: Told): Promise<number> {
    return Number(await connection.command('SPUBLISH', [keys.unit(other), JSON.stringify(told)], CALL_MS_MAX))
  }

  function hear(text: string): void {
    const told = parseTold(text)
    if (told === null) log.debug({ text: text.slice(0, 200) }, 'a message to this unit that no unit writes')
    else if ('done' in told) asked.get(told.done)?.(told.settled)
    else void letGo(told)
  }

  async function letGo({ take: client, from, id }: TakenTold): Promise<void> {
    try {
      const holder = String((await connection.command('GET', [keys.session(client)])) ?? '').split(' ', 1)[0]
      const session = mine.get(client)
      // It may have come back here since.
      const settled = holder === unit || session === undefined || (await closeHere(client, session))
      await say(from, { done: id, settled })
    } catch (error) {
      log.debug({ err: error }, 'a unit that took over a client could not be answered')
      if (mine.has(client)) doubted.add(client)
      keepSoon()
    }
  }

  /** True when nothing of the client is on its way any more. */
  async function closeHere(client: string, session: Session): Promise<boolean> {
    if (mine.get(client) !== session) return true
    mine.delete(client)
    doubted.delete(client)
    try {
      return await taken(client)
    } catch (error) {
      log.warn({ err: error }, 'a client that another broker serves now could not be let go')
      return false
    }
  }

  async function release(client: string): Promise<Whose> {
    const session = mine.get(client)
    if (session === undefined) return 'theirs'
    mine.delete(client)
    doubted.delete(client)
    try {
      const args = [unit, session.since, RELEASED_MS]
      const released = await connection.run('release-session', [keys.session(client)], args, CALL_MS_MAX)
      return RELEASED[Number(released)] ?? 'unknown'
    } catch {
      return 'unknown'
    }
  }

  function doubtAll(): void {
    for (const client of mine.keys()) doubted.add(client)
    void keepDoubted()
  }

  function keepSoon(): void {
    if (doubted.size === 0 || closed) return
    again ??= setTimeout(() => {
      again = null
      void keepDoubted()
    }, AGAIN_MS)
  }

  /** Brings sessions to Redis that are not there, keeps those that are, and lets go of clients that were taken unheard. */
  async function keepDoubted(): Promise<void> {
    if (keeping || closed) return
    keeping = true
    try {
      for (const clients of batches(doubted)) await keep(clients)
    } catch (error) {
      log.debug({ err: error }, 'sessions could not be refreshed yet')
    } finally {
      keeping = false
    }
    keepSoon()
  }

  async function keep(clients: readonly string[]): Promise<void> {
    const kept = clients.flatMap(client => {
      const session = mine.get(client)
      // Whoever doubts it from here on wants it to be asked once more.
      doubted.delete(client)
      return session === undefined ? [] : [{ client, session, since: session.since }]
    })
    if (kept.length === 0) return
    try {
      const sessions = kept.map(({ client }) => keys.session(client))
      const args = [unit, HELD_MS, ...kept.map(({ since }) => since)]
      const reply = (await connection.run('keep-sessions', sessions, args)) as (number | string)[]
      await Promise.all(
        kept.map(({ client, session }, at) => found(client, session, Number(reply[2 * at]), String(reply[2 * at + 1]))),
      )
    } catch (error) {
      for (const { client, session } of kept) if (mine.get(client) === session) doubted.add(client)
      throw error
    }
  }

  async function found(client: string, session: Session, fate: number, before: string): Promise<void> {
    if (fate === ANOTHERS) {
      await closeHere(client, session)
      return
    }
    if (fate === NOW_OURS) session.told = false
    if (before !== '' && !session.told) await tell(before, client)
    session.told = true
  }

  function close(): void {
    closed = true
    clearInterval(timer)
    if (again !== null) clearTimeout(again)
    unsubscribe()
  }
}

/** By shard, and not many at once. */
function batches(clients: Iterable<string>): string[][] {
  const byShard = new Map<number, string[][]>()
  for (const client of clients) {
    const shard = shardOf(client)
    const lists = byShard.get(shard) ?? [[]]
    byShard.set(shard, lists)
    const last = lists.at(-1) as string[]
    if (last.length < KEPT_AT_ONCE) last.push(client)
    else lists.push([client])
  }
  return [...byShard.values()].flat()
}
