/**
 * Reading states. Each read first sees to it that what this process merged is in Redis, and that it knows who lives.
 *
 * Nothing here keeps Redis busy for more than a few ms at a time: devices are read by the script `read.lua` up to some
 * fields a call, ids in slices of their sorted sets.
 */
import type { DeviceState } from '../model/device-state.ts'
import { compareBytewise } from './bytewise.ts'
import { endOfMembers, parseMember } from './online-member.ts'
import type { RedisConnection } from './redis-connection.ts'
import type { RedisFlush } from './redis-flush.ts'
import { ALL_SHARDS, type RedisKeys, shardOf } from './redis-keys.ts'
import { decodeState } from './redis-state.ts'
import type { RedisUnits } from './redis-units.ts'
import { patternOf } from './search-pattern.ts'
import type { PageQuery, Space } from './space.ts'

export interface ReadsOptions {
  readonly connection: RedisConnection
  readonly keys: RedisKeys
  readonly flush: RedisFlush
  readonly units: RedisUnits
  /** Devices that are about to be read. */
  reading(devices: readonly string[]): void
  /** The epoch of what was read: the reader of a state asks right after it whether the space is warm. */
  found(shard: number, epoch: string): void
}

const READ_MS_MAX = 1_000
/** For states, who lives is known this freshly; and when a state names a unit that is not known. Counts and pages always ask. */
const LEASES_MS = 250
const LEASES_MS_NEW_UNIT = 50
const DEVICES_AT_ONCE = 64
const FIELDS_AT_ONCE = 4_000
const SLICE_MAX = 1_000

export function openRedisReads(options: ReadsOptions): Pick<Space, 'get' | 'getMany' | 'page' | 'counts'> {
  const { connection, keys, flush, units, reading, found } = options

  return { get, getMany, page, counts }

  async function get(device: string): Promise<DeviceState | null> {
    return (await getMany([device]))[0] ?? null
  }

  async function getMany(devices: readonly string[]): Promise<DeviceState[]> {
    reading(devices)
    const byShard = new Map<number, string[]>()
    for (const device of new Set(devices)) {
      const shard = shardOf(device)
      const others = byShard.get(shard)
      if (others === undefined) byShard.set(shard, [device])
      else others.push(device)
    }
    await Promise.all([flush.settled(byShard.keys()), units.fresh(LEASES_MS)])
    const hashes = new Map<string, string[]>()
    await Promise.all([...byShard].map(([shard, ids]) => readShard(shard, ids, hashes)))
    const { states, allLive } = decodeAll(hashes)
    if (allLive) return devices.flatMap(device => states.get(device) ?? [])
    // Online through a unit that is not known: lost, or one that has only just begun.
    await units.fresh(LEASES_MS_NEW_UNIT)
    const again = decodeAll(hashes)
    return devices.flatMap(device => again.states.get(device) ?? [])
  }

  function decodeAll(hashes: ReadonlyMap<string, string[]>): { states: Map<string, DeviceState>; allLive: boolean } {
    const states = new Map<string, DeviceState>()
    let allLive = true
    for (const [device, flat] of hashes) {
      const state = decodeState(device, flat, tag => {
        const isLive = units.isLive(tag)
        allLive &&= isLive
        return isLive
      })
      if (state !== null) states.set(device, state)
    }
    return { states, allLive }
  }

  async function readShard(shard: number, ids: readonly string[], hashes: Map<string, string[]>): Promise<void> {
    for (let from = 0; from < ids.length; ) {
      const asked = ids.slice(from, from + DEVICES_AT_ONCE)
      const deviceKeys = asked.map(id => keys.device(shard, id))
      const answer = await connection.run('read', [keys.meta(shard), ...deviceKeys], [FIELDS_AT_ONCE], READ_MS_MAX)
      const [epoch, ...read] = answer as [string, ...string[][]]
      found(shard, epoch)
      for (const [at, flat] of read.entries()) {
        hashes.set(asked[at] as string, flat)
      }
      from += read.length
    }
  }

  async function counts(): Promise<{ devices: number; online: number }> {
    await Promise.all([flush.settled(), units.fresh(0)])
    const tags = units.liveTags()
    const shards = await Promise.all(ALL_SHARDS.map(shard => countShard(shard, tags)))
    return {
      devices: shards.reduce((sum, { devices }) => sum + devices, 0),
      online: shards.reduce((sum, { online }) => sum + online, 0),
    }
  }

  async function countShard(shard: number, tags: readonly string[]): Promise<{ devices: number; online: number }> {
    const fields = ['e', ...tags.map(tag => `n:${tag}`)]
    const [devices, [, ...online]] = (await Promise.all([
      connection.command('ZCARD', [keys.ids(shard)], READ_MS_MAX),
      connection.command('HMGET', [keys.meta(shard), ...fields], READ_MS_MAX),
    ])) as [number, [unknown, ...(string | null)[]]]
    return { devices, online: online.reduce((sum, count) => sum + Number(count ?? 0), 0) }
  }

  /** Costs the ids it looks at: those of the page, unless `search` or `online` pass over many (about 1.5 s for a million). */
  async function page(query: PageQuery): Promise<DeviceState[]> {
    await Promise.all([flush.settled(), units.fresh(0)])
    const states: DeviceState[] = []
    const ids = mergeIds(ALL_SHARDS.map(shard => openSlices(shard, query)))
    for (let ended = query.limit <= 0; !ended; ) {
      const wanted: string[] = []
      while (wanted.length < query.limit - states.length) {
        const id = await ids.next()
        if (id === null) break
        wanted.push(id)
      }
      ended = wanted.length < query.limit - states.length
      // Between the two it may have come or gone.
      const read = await getMany(wanted)
      states.push(...read.filter(({ online }) => query.online === null || online === query.online))
      ended ||= states.length >= query.limit
    }
    return states
  }

  /** The ids of one shard that fit the query, slice by slice, in order; an empty slice is the end. */
  function openSlices(shard: number, { after, limit, search, online }: PageQuery): Slices {
    const isPlain = search === null && online === null
    const size = isPlain ? Math.min(SLICE_MAX, Math.ceil((1.3 * limit) / ALL_SHARDS.length) + 4) : SLICE_MAX
    const pattern = search === null ? null : patternOf(search)
    let from = after
    let ended = false
    return async () => {
      while (!ended) {
        const slice = online === true ? await onlineSlice(shard, from, size) : await idSlice(shard, from, size)
        ended = slice.length < size
        const before = from
        from = slice.at(-1)?.id ?? from
        const away = online === false ? await onlineAmong(shard, before, from) : null
        const fitting = slice.filter(
          ({ id, isLive }) => isLive && pattern?.test(id) !== false && away?.has(id) !== true,
        )
        if (fitting.length > 0) return fitting.map(({ id }) => id)
      }
      return []
    }
  }

  async function idSlice(shard: number, after: string | null, size: number): Promise<Member[]> {
    const ids = await range(keys.ids(shard), after === null ? '-' : `(${after}`, '+', size)
    return ids.map(id => ({ id, isLive: true }))
  }

  async function onlineSlice(shard: number, after: string | null, size: number): Promise<Member[]> {
    return (await range(keys.online(shard), afterMembersOf(after), '+', size)).map(memberOf)
  }

  async function onlineAmong(shard: number, after: string | null, last: string | null): Promise<Set<string>> {
    if (last === null) return new Set()
    const members = (await range(keys.online(shard), afterMembersOf(after), afterMembersOf(last), -1)).map(memberOf)
    return new Set(members.filter(({ isLive }) => isLive).map(({ id }) => id))
  }

  function afterMembersOf(id: string | null): string {
    return id === null ? '-' : `(${endOfMembers(id)}`
  }

  function memberOf(member: string): Member {
    const { id, tag } = parseMember(member)
    return { id, isLive: units.isLive(tag) }
  }

  async function range(key: string, from: string, to: string, size: number): Promise<string[]> {
    const args = [key, from, to, 'BYLEX', 'LIMIT', 0, size]
    return (await connection.command('ZRANGE', args, READ_MS_MAX)) as string[]
  }
}

interface Member {
  readonly id: string
  readonly isLive: boolean
}

type Slices = () => Promise<string[]>

/** All shards' ids in one order, bytewise. */
function mergeIds(shards: readonly Slices[]): { next(): Promise<string | null> } {
  const heads = shards.map(slices => ({ slices, ids: [] as string[], at: 0, ended: false }))

  return { next }

  async function next(): Promise<string | null> {
    const empty = heads.filter(({ ids, at, ended }) => !ended && at === ids.length)
    if (empty.length > 0) await Promise.all(empty.map(refill))
    let least: (typeof heads)[number] | null = null
    for (const head of heads) {
      if (head.ended) continue
      if (least === null || compareBytewise(head.ids[head.at] as string, least.ids[least.at] as string) < 0)
        least = head
    }
    if (least === null) return null
    return least.ids[least.at++] as string
  }

  async function refill(head: (typeof heads)[number]): Promise<void> {
    head.ids = await head.slices()
    head.at = 0
    head.ended = head.ids.length === 0
  }
}
