/**
 * Units: the processes with a broker, of which each device that is online names one.
 *
 * A unit holds a lease of 5 s that its heartbeat renews. A device whose unit has none is offline for every reader, at once,
 * whatever its hash says. What names the unit in Redis is its tag, `<unit>.<round>`: a unit that Redis has forgotten, or whose
 * flushes it has lost, goes on under the next round and tells all its devices anew. So presence that was taken back,
 * and that an older copy of the data shows again, is nobody's.
 *
 * A lease that ran out without a word makes its tag lost. Its unit may have ended, or go on and be cut off from Redis alone:
 * it is given out for repair until it is back under its next tag, for an hour at most.
 */
import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import type { Presence } from '../model/device-state.ts'
import { LINE_FORMAT } from '../model/message.ts'
import { parseMember } from './online-member.ts'
import type { RedisConnection } from './redis-connection.ts'
import type { RedisFlush } from './redis-flush.ts'
import { ALL_SHARDS, type RedisKeys } from './redis-keys.ts'
import { type Older, olderOf } from './redis-marks.ts'
import type { LostUnits } from './space.ts'

export interface RedisUnits {
  readonly unit: string
  /** What names it in Redis now; '' for a process without a broker. */
  readonly tag: string
  /** True while the unit of a tag lives, as far as was last heard. */
  isLive(tag: string): boolean
  isLiveUnit(unit: string): boolean
  /** Resolves when leases are known that are at most `msMax` old. */
  fresh(msMax: number): Promise<void>
  liveTags(): readonly string[]
  /** Renews the lease. */
  beat(): Promise<void>
  /** Presence that this process reports is its own from here on. */
  note(change: Presence): void
  /** Another unit speaks for the device from here on. */
  disown(device: string): void
  /** Redis has lost what this unit told: tells it anew, under the next tag. `tag`: the one that was found lost. */
  startAnew(tag: string): void
  claimLostUnits(): Promise<LostUnits | null>
  /** Processes that live and cannot read what this one writes, as far as they leave a trace. */
  older(): Promise<Older>
  /** Ends the lease, unless something must be read again from the log. All must be settled before. */
  leave(): Promise<void>
}

export interface UnitsOptions {
  readonly connection: RedisConnection
  readonly keys: RedisKeys
  readonly flush: RedisFlush
  readonly log: Logger
  /** Whether this process has a broker. */
  readonly isUnit: boolean
  /** True while readings were let go and Redis does not know it. */
  owes(): boolean
  /** The receipt of the oldest message that may be in the log and was not merged; null for none. */
  oldestUnmergedAt(): number | null
  /** True for a device that was claimed here. */
  isClaimed(device: string): boolean
  /** Redis has lost what this unit said, of whatever kind. */
  startedAnew(): void
  /** A heartbeat is wanted now. */
  renewSoon(): void
  /** Devices that went offline with a lost unit. */
  changed(shard: number, devices: readonly string[], watched: boolean): void
}

const LEASE_MS = 5_000
const LEASE_CALL_MS_MAX = 1_000
/** Lost units are this process's own for so long after its last heartbeat. */
const REPAIR_MS = 10_000
/** A lost unit that does not come back is looked after for so long; of more than so many at one time each is once. */
const LOST_MS_MAX = 3_600_000
const LOST_MAX = 200
const SLICE = 128
/** Of units that were repaired, the flush numbers are kept of so many: 16 fields each. */
const REPAIRED_MAX = 200

export function openRedisUnits(options: UnitsOptions): RedisUnits {
  const { connection, keys, flush, log, isUnit, owes, oldestUnmergedAt, isClaimed } = options
  const { startedAnew, renewSoon, changed } = options
  const unit = randomBytes(8).toString('hex')
  /** Devices that are online through this unit, with the time from which on: at most one for each that it serves. */
  const own = new Map<string, number>()
  let round = 0
  let tag = isUnit ? `${unit}.0` : ''
  let tagBefore = ''
  let begins = true
  let untold = false
  /** Lost units whose devices this process has marked. */
  let marked = new Set<string>()
  let mergedThrough = Date.now()
  let live = new Set<string>()
  let askedAt = Number.NEGATIVE_INFINITY
  let asking: Promise<void> | null = null
  flush.begin(tag)

  return {
    unit,
    get tag() {
      return tag
    },
    isLive,
    isLiveUnit: other => other === unit || [...live].some(held => held.startsWith(`${other}.`)),
    fresh,
    liveTags: () => [...live],
    beat,
    note,
    disown: device => void own.delete(device),
    startAnew,
    claimLostUnits,
    older,
    leave,
  }

  function isLive(other: string): boolean {
    return (other === tag && tag !== '') || live.has(other)
  }

  async function fresh(msMax: number): Promise<void> {
    if (performance.now() - askedAt <= msMax) return
    await beat()
  }

  function beat(): Promise<void> {
    asking ??= renew().finally(() => {
      asking = null
    })
    return asking
  }

  async function renew(): Promise<void> {
    // What was let go is not merged: were this unit to end now, it must be read again from before that. And the log may
    // have what it did not answer for yet.
    if (!owes()) mergedThrough = Math.min(flush.mergedThrough, oldestUnmergedAt() ?? Number.POSITIVE_INFINITY)
    const asked = performance.now()
    const [now, before, isFirst] = [tag, tagBefore, begins]
    const mark = `${unit} ${LINE_FORMAT}`
    const args = [now, LEASE_MS, mergedThrough, isFirst ? '1' : '0', before, unit, REPAIR_MS, mark]
    const own = [keys.leases, keys.mergedThrough, keys.lost, keys.marks]
    const reply = await connection.run('lease', own, args, LEASE_CALL_MS_MAX)
    const [renewed, ...living] = reply as [number, ...string[]]
    live = new Set(living)
    askedAt = asked
    if (now !== tag) return
    begins = false
    tagBefore = ''
    if (isUnit && renewed === 0) {
      log.warn({ unit }, 'Redis has forgotten this unit; it tells its devices anew')
      startAnew(now)
    } else if (untold) {
      tellAll()
    }
  }

  function note({ device, online, at }: Presence): void {
    if (!isUnit) return
    const before = own.get(device) ?? Number.NEGATIVE_INFINITY
    if (at < before) return
    if (online) own.set(device, at)
    else own.delete(device)
  }

  function startAnew(lost: string): void {
    if (!isUnit || lost !== tag) return
    // Not over one that is not registered yet: the older one is what must be repaired.
    if (!begins) tagBefore = tag
    tag = `${unit}.${++round}`
    begins = true
    flush.begin(tag)
    // First the lease, then the devices: under a tag that nobody knows yet they would show as offline.
    untold = true
    renewSoon()
    startedAnew()
  }

  function tellAll(): void {
    untold = false
    for (const [device, at] of own) {
      if (!flush.mergePresence(device, true, at, isClaimed(device))) untold = true
    }
  }

  async function claimLostUnits(): Promise<LostUnits | null> {
    const args = [unit, REPAIR_MS, LOST_MS_MAX, LOST_MAX]
    const reply = await connection.run('claim-lost', [keys.leases, keys.mergedThrough, keys.lost], args)
    const given = (reply as [string, string, number][]).map(([tag, through, last]) => ({
      tag,
      through,
      isLast: last === 1,
    }))
    marked = new Set(given.map(({ tag }) => tag).filter(tag => marked.has(tag)))
    for (const { tag, isLast } of given) {
      // Once more at last: one that was frozen may have told something before it knew.
      if (marked.has(tag) && !isLast) continue
      live.delete(tag)
      for (const shard of ALL_SHARDS) await markOffline(shard, tag)
      marked.add(tag)
    }
    if (given.length === 0) return null
    return {
      units: given.map(({ tag }) => tag.slice(0, tag.lastIndexOf('.'))),
      mergedThrough: Math.min(...given.map(({ through }) => Number(through))),
      merged,
    }

    async function merged(through: number): Promise<void> {
      await flush.settled()
      for (const { tag, isLast } of given) {
        if (isLast) await forget(tag)
        else await connection.command('HSET', [keys.mergedThrough, tag, through])
      }
    }
  }

  async function markOffline(shard: number, lost: string): Promise<void> {
    let from = '-'
    for (;;) {
      const args = [keys.online(shard), from, '+', 'BYLEX', 'LIMIT', 0, 4 * SLICE]
      const members = (await connection.command('ZRANGE', args)) as string[]
      const found = members.map(parseMember)
      const ids = found.filter(({ tag }) => tag === lost).map(({ id }) => id)
      for (let at = 0; at < ids.length; at += SLICE) await markSlice(shard, lost, ids.slice(at, at + SLICE))
      const last = members.at(-1)
      if (last === undefined || members.length < 4 * SLICE) return
      from = `(${last}`
    }
  }

  async function markSlice(shard: number, lost: string, ids: readonly string[]): Promise<void> {
    const own = [keys.meta(shard), keys.online(shard), ...ids.map(id => keys.device(shard, id))]
    const reply = await connection.run('offline', own, [lost, JSON.stringify(ids)])
    const [watched, numbers] = reply as [number, number[]]
    changed(
      shard,
      numbers.flatMap(at => ids[at - 1] ?? []),
      watched === 1,
    )
  }

  /** Its numbers stay for now: one that only slept, and wakes to find none, must take it that Redis lost its flushes. */
  async function forget(lost: string): Promise<void> {
    await connection.command('ZADD', [keys.repaired, Date.now(), lost])
    const older = (await connection.command('ZRANGE', [keys.repaired, 0, -1 - REPAIRED_MAX])) as string[]
    for (const tag of older) {
      await dropNumbers(tag)
      await connection.command('ZREM', [keys.repaired, tag])
    }
    await connection.command('HDEL', [keys.lost, lost])
    await connection.command('HDEL', [keys.mergedThrough, lost])
  }

  async function dropNumbers(of: string): Promise<void> {
    await Promise.all(ALL_SHARDS.map(shard => connection.command('HDEL', [keys.meta(shard), `f:${of}`, `n:${of}`])))
  }

  async function older(): Promise<Older> {
    await beat()
    const marks = (await connection.command('ZRANGE', [keys.marks, 0, -1])) as string[]
    const lost = (await connection.command('HVALS', [keys.lost])) as string[]
    const [seconds] = (await connection.command('TIME', [])) as [string]
    return olderOf({ marks, tags: [...live], lost, now: Number(seconds) * 1_000, lines: LINE_FORMAT })
  }

  async function leave(): Promise<void> {
    await connection.command('ZREM', [keys.marks, `${unit} ${LINE_FORMAT}`]).catch(() => {})
    if (!isUnit) return
    for (const [device, at] of own) flush.mergePresence(device, false, at, isClaimed(device))
    own.clear()
    await flush.settled()
    if (owes() || oldestUnmergedAt() !== null) return
    await dropNumbers(tag)
    await connection.command('ZREM', [keys.leases, tag])
    await connection.command('HDEL', [keys.mergedThrough, tag])
  }
}
