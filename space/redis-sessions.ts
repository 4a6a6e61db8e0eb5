/**
 * Which unit serves which MQTT client: a key for each client, and a channel for each unit on which it is told that another
 * one has taken a client over.
 *
 * A key outlives its connection by an hour, so that a client that comes back to another unit is known to have moved. A unit
 * that missed a message on its channel looks up all its clients once more. Bounds: a take-over waits a second at most.
 */
import type { Logger } from 'pino'
import { type RedisConnection, within } from './redis-connection.ts'
import { type RedisKeys, shardOf } from './redis-keys.ts'
import type { RedisSubscriber } from './redis-subscriber.ts'
import type { RedisUnits } from './redis-units.ts'
import type { Sessions } from './space.ts'

export interface RedisSessions extends Sessions {
  close(): void
}

export interface SessionsOptions {
  readonly connection: RedisConnection
  readonly subscriber: RedisSubscriber
  readonly keys: RedisKeys
  readonly units: Pick<RedisUnits, 'unit' | 'fresh' | 'isLiveUnit'>
  /** False for a process that takes no clients, which nobody need tell anything. */
  readonly isUnit: boolean
  readonly log: Logger
}

const TAKE_MS_MAX = 1_000
const HELD_MS = 24 * 3_600_000
const RELEASED_MS = 3_600_000
const KEEP_EVERY_MS = 600_000
const KEPT_AT_ONCE = 200

type Told = { readonly take: string; readonly from: string; readonly id: number } | { readonly done: number }

export function openRedisSessions(options: SessionsOptions): RedisSessions {
  const { connection, subscriber, keys, units, isUnit, log } = options
  const { unit } = units
  /** Connections of each client here: for a moment two, when it comes back before the old one has ended. */
  const mine = new Map<string, number>()
  const asked = new Map<number, () => void>()
  let lastAsked = 0
  let taken: (client: string) => Promise<void> = async () => {}
  let keeping = false
  const channel = { message: hear, missed: () => void keepAll() }
  const unsubscribe = isUnit ? subscriber.subscribe(keys.unit(unit), channel) : () => {}
  const timer = setInterval(() => void keepAll(), KEEP_EVERY_MS)
  timer.unref()

  return {
    take,
    release,
    onTaken: handler => {
      taken = handler
    },
    close,
  }

  async function take(client: string): Promise<{ moved: boolean }> {
    mine.set(client, (mine.get(client) ?? 0) + 1)
    try {
      return { moved: await within(takeOver(client), TAKE_MS_MAX) }
    } catch {
      return { moved: true }
    }
  }

  async function takeOver(client: string): Promise<boolean> {
    const had = await connection.run('take-session', [keys.session(client)], [unit, HELD_MS], TAKE_MS_MAX)
    if (had === unit) return false
    if (typeof had === 'string' && had !== '') await tell(had, client)
    return true
  }

  /** Resolves when the other unit has let go of the client, or cannot be asked. */
  async function tell(other: string, client: string): Promise<void> {
    await units.fresh(0)
    if (!units.isLiveUnit(other)) return
    const id = ++lastAsked
    const done = new Promise<void>(resolve => asked.set(id, resolve))
    try {
      const heard = await say(other, { take: client, from: unit, id })
      if (heard > 0) await within(done, TAKE_MS_MAX)
    } finally {
      asked.delete(id)
    }
  }

  /** Returns how many hear it. */
  async function say(other: string, told: Told): Promise<number> {
    return Number(await connection.command('SPUBLISH', [keys.unit(other), JSON.stringify(told)], TAKE_MS_MAX))
  }

  function hear(text: string): void {
    const told = JSON.parse(text) as Told
    if ('done' in told) asked.get(told.done)?.()
    else void letGo(told)
  }

  async function letGo({ take: client, from, id }: Extract<Told, { take: string }>): Promise<void> {
    try {
      // It may have come back here since.
      if ((await connection.command('GET', [keys.session(client)])) !== unit) await closeHere(client)
      await say(from, { done: id })
    } catch (error) {
      log.debug({ err: error }, 'a unit that took over a client could not be answered')
    }
  }

  async function closeHere(client: string): Promise<void> {
    if (!mine.delete(client)) return
    try {
      await taken(client)
    } catch (error) {
      log.warn({ err: error }, 'a client that another broker serves now could not be let go')
    }
  }

  function release(client: string): void {
    const connections = mine.get(client)
    if (connections === undefined) return
    if (connections > 1) {
      mine.set(client, connections - 1)
      return
    }
    mine.delete(client)
    connection.run('lock', [keys.session(client)], [unit, RELEASED_MS]).catch(() => {})
  }

  /** Refreshes the keys, brings back those that went with an emptied Redis, and finds clients that were taken unheard. */
  async function keepAll(): Promise<void> {
    if (keeping || mine.size === 0) return
    keeping = true
    try {
      for (const clients of batches([...mine.keys()])) await keep(clients)
    } catch (error) {
      log.debug({ err: error }, 'sessions could not be refreshed yet')
    } finally {
      keeping = false
    }
  }

  async function keep(clients: readonly string[]): Promise<void> {
    const numbers = await connection.run('keep-sessions', clients.map(keys.session), [unit, HELD_MS])
    for (const at of numbers as number[]) {
      const client = clients[at - 1]
      if (client !== undefined) await closeHere(client)
    }
  }

  function close(): void {
    clearInterval(timer)
    unsubscribe()
  }
}

/** By shard, and not many at once. */
function batches(clients: readonly string[]): string[][] {
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
