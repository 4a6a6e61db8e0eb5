/**
 * The flushes: what this process has gathered is brought to Redis, one script per batch of devices of one shard.
 *
 * At most one flush of a shard is under way; what comes meanwhile merges in the buffer. So there is no timer when idle, and
 * under load a batch grows by itself, a hot device costs one write per flush, and memory stays flat. A flush that failed
 * goes back into the buffer and is tried again, for as long as Redis is away; to apply one twice changes nothing [G4].
 *
 * Flushes of a unit are numbered by shard. Redis keeps the last number beside the data: when it knows less than it has
 * answered, it has lost data, and the state is cold (`apply.lua`).
 */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { Message } from '../model/message.ts'
import { type Entry, encodeEntries, openRedisBuffer, type RedisBuffer } from './redis-buffer.ts'
import type { RedisConnection } from './redis-connection.ts'
import { asksToWait } from './redis-errors.ts'
import { ALL_SHARDS, type RedisKeys, SHARDS, shardOf } from './redis-keys.ts'

export interface RedisFlush {
  merge(messages: readonly Message[]): void
  /** False when there was no room; tell it again. */
  mergePresence(device: string, online: boolean, at: number, claimed: boolean): boolean
  /** The device was claimed: what is remembered of it as a stranger counts from now on. */
  claim(device: string): void
  /** Resolves when all that was taken before is in Redis, of some shards or of all; rejects when Redis did not take it now. */
  settled(shards?: Iterable<number>): Promise<void>
  /** All that was taken before this time is in Redis; ms since 1970 UTC. */
  readonly mergedThrough: number
  /**
   * True when Redis answers and has not taken what waits of any shard for two seconds, as when it is out of memory, or when
   * this process alone does not reach a node of a Cluster.
   */
  readonly isRefused: boolean
  /** The number of the last flush of a shard that was answered. */
  acked(shard: number): number
  /** Numbers the flushes anew, under another tag. */
  begin(tag: string): void
  /** Redis is back: what waited for it is tried at once. */
  wake(): void
  close(): void
}

export interface FlushOptions {
  readonly connection: RedisConnection
  readonly keys: RedisKeys
  readonly log: Logger
  /** What a flush under this tag found. */
  replied(shard: number, tag: string, reply: FlushReply): void
  /** Readings of a shard were let go: the state lacks them. */
  letGo(shard: number): void
  /** True while somebody in this process wants to know what changed. */
  watching(): boolean
}

export interface FlushReply {
  /** The epoch of the shard's data; '' when they are cold. */
  readonly epoch: string
  readonly rolledBack: boolean
  /** True when another process watches. */
  readonly watched: boolean
  /** Told only when someone watches, or when it may have changed earlier. */
  readonly changed: readonly string[]
}

/** Of one script: under 2 ms of Redis. */
const BATCH = { devicesMax: 128, readingsMax: 2_000 }
/** Flushes of a shard begin so far apart under load; one after a pause begins at once. */
const FLUSH_EVERY_MS = 5
const RETRY_MS = 250
/** A shard of which nothing is taken for so long lacks readings that others believe it has. */
const REFUSED_MS_MAX = 2_000
/** Of all shards together. */
const BUFFER_DEVICES_MAX = 400_000
const BUFFER_BYTES_MAX = 256 << 20
const STRANGERS_MAX = 100_000
const WARN_EVERY_MS = 10_000

interface Lane {
  readonly shard: number
  readonly buffer: RedisBuffer
  underWay: readonly Entry[]
  numbers: { tag: string; acked: number; last: number }
  beganAt: number
  /** Since when Redis, which answers, has not taken what waits; null while it does, and while it is away. */
  refusedSince: number | null
  timer: NodeJS.Timeout | null
  /** Entries that left the buffer for good; with those that are in it, a place in the queue. */
  done: number
  readonly waiting: Waiting[]
}

interface Waiting {
  readonly place: number
  resolve(): void
  reject(error: SurgetankError): void
}

export function openRedisFlush({ connection, keys, log, replied, letGo, watching }: FlushOptions): RedisFlush {
  const bounds = { devicesMax: BUFFER_DEVICES_MAX / SHARDS, bytesMax: BUFFER_BYTES_MAX / SHARDS }
  const lanes: readonly Lane[] = ALL_SHARDS.map(shard => ({
    shard,
    buffer: openRedisBuffer(bounds),
    underWay: [],
    numbers: { tag: '', acked: 0, last: 0 },
    beganAt: Number.NEGATIVE_INFINITY,
    refusedSince: null,
    timer: null,
    done: 0,
    waiting: [],
  }))
  let warnedAt = Number.NEGATIVE_INFINITY
  let closed = false

  return {
    merge,
    mergePresence,
    claim,
    settled,
    get mergedThrough() {
      return Math.min(Date.now(), ...lanes.map(lane => lane.underWay[0]?.since ?? lane.buffer.since ?? Date.now()))
    },
    get isRefused() {
      const now = performance.now()
      return lanes.some(({ refusedSince }) => refusedSince !== null && now - refusedSince > REFUSED_MS_MAX)
    },
    acked: shard => laneOf(shard).numbers.acked,
    begin,
    wake,
    close,
  }

  /** What was not taken until now, a Redis that broke may have been the reason. */
  function wake(): void {
    for (const lane of lanes) {
      lane.refusedSince = null
      schedule(lane)
    }
  }

  function merge(messages: readonly Message[]): void {
    for (const message of messages) {
      const lane = laneOf(shardOf(message.device))
      const lost = lane.buffer.merge(message)
      if (lost > 0) lose(lane, lost, 'more waits for Redis than may be held')
      schedule(lane)
    }
  }

  function mergePresence(device: string, online: boolean, at: number, claimed: boolean): boolean {
    const lane = laneOf(shardOf(device))
    if (!lane.buffer.mergePresence(device, online, at, claimed)) return false
    schedule(lane)
    return true
  }

  function claim(device: string): void {
    const lane = laneOf(shardOf(device))
    lane.buffer.claim(device)
    schedule(lane)
  }

  function schedule(lane: Lane): void {
    if (lane.timer !== null || lane.underWay.length > 0 || lane.buffer.size === 0 || closed) return
    const wait = connection.up ? Math.max(0, lane.beganAt + FLUSH_EVERY_MS - performance.now()) : RETRY_MS
    lane.timer = setTimeout(flush, wait, lane)
  }

  async function flush(lane: Lane): Promise<void> {
    if (lane.timer !== null) clearTimeout(lane.timer)
    lane.timer = null
    if (lane.underWay.length > 0 || closed) return
    const entries = lane.buffer.take(BATCH)
    if (entries.length === 0) return
    lane.underWay = entries
    lane.beganAt = performance.now()
    try {
      const { tag } = lane.numbers
      takeReply(lane, entries, tag, await send(lane, entries))
    } catch (error) {
      notTaken(lane, entries, error as SurgetankError)
    }
    // Somebody waits: no pause then.
    if (lane.waiting.length > 0 && lane.timer === null) void flush(lane)
    else schedule(lane)
  }

  async function send(lane: Lane, entries: readonly Entry[]): Promise<ApplyReply> {
    const { shard, numbers } = lane
    const number = numbers.last + 1
    const own = [
      keys.meta(shard),
      keys.ids(shard),
      keys.online(shard),
      keys.strangers(shard),
      keys.strangerTimes(shard),
    ]
    const devices = entries.map(({ device }) => keys.device(shard, device))
    const tell = watching() ? '1' : '0'
    const args = [numbers.tag, numbers.acked, number, tell, STRANGERS_MAX / SHARDS, encodeEntries(entries)]
    numbers.last = number
    const reply = (await connection.run('apply', [...own, ...devices], args)) as ApplyReply
    numbers.acked = number
    return reply
  }

  function takeReply(lane: Lane, entries: readonly Entry[], tag: string, reply: ApplyReply): void {
    const [epoch, rolledBack, watched, changed, failed, error] = reply
    const failing = failed.flatMap(at => entries[at - 1] ?? [])
    const news = new Set(changed)
    const told = entries.filter(({ untold }, at) => news.has(at + 1) || (untold && !failed.includes(at + 1)))
    lane.underWay = []
    lane.done += entries.length
    const wakes = { epoch, rolledBack: rolledBack === 1, watched: watched === 1 }
    replied(lane.shard, tag, { ...wakes, changed: told.map(({ device }) => device) })
    if (failing.length > 0 && asksToWait(error)) {
      lane.done -= failing.length
      putBack(lane, failing, new SurgetankError('space_unavailable', `merging: ${error}`))
      return
    }
    lane.refusedSince = null
    if (failing.length > 0) loseEntries(lane, failing, error)
    while (lane.waiting[0] !== undefined && lane.waiting[0].place <= lane.done) lane.waiting.shift()?.resolve()
  }

  function notTaken(lane: Lane, entries: readonly Entry[], error: SurgetankError): void {
    lane.underWay = []
    if (error.fate === 'reject') {
      lane.refusedSince = null
      // Not for now but for ever: a batch that stays would keep all that follows from being merged.
      lane.done += entries.length
      loseEntries(lane, entries, error.message)
      while (lane.waiting[0] !== undefined && lane.waiting[0].place <= lane.done) lane.waiting.shift()?.resolve()
      return
    }
    // It may have been applied without an answer: applied once more, it changes nothing.
    for (const entry of entries) entry.untold = true
    putBack(lane, entries, error)
  }

  function putBack(lane: Lane, entries: readonly Entry[], error: SurgetankError): void {
    lane.done += lane.buffer.putBack(entries)
    // One that is away serves nobody, and its return begins anew.
    lane.refusedSince = connection.up ? (lane.refusedSince ?? performance.now()) : null
    for (const waiting of lane.waiting.splice(0)) waiting.reject(error)
    if (lane.timer === null && !closed) lane.timer = setTimeout(flush, RETRY_MS, lane)
  }

  function loseEntries(lane: Lane, entries: readonly Entry[], why: string): void {
    lose(
      lane,
      entries.reduce((sum, { readings }) => sum + readings.size, 0),
      why,
    )
  }

  function lose(lane: Lane, readings: number, why: string): void {
    metrics.stateLetGo.inc(readings)
    letGo(lane.shard)
    if (performance.now() - warnedAt < WARN_EVERY_MS) return
    warnedAt = performance.now()
    log.warn({ why }, 'readings were let go; they are in the log, and the state will be rebuilt with them')
  }

  async function settled(shards: Iterable<number> = ALL_SHARDS): Promise<void> {
    await Promise.all(Array.from(new Set(shards), shard => settle(laneOf(shard))))
  }

  async function settle(lane: Lane): Promise<void> {
    const place = lane.done + lane.underWay.length + lane.buffer.size
    if (place === lane.done) return
    await new Promise<void>((resolve, reject) => {
      lane.waiting.push({ place, resolve, reject })
      if (lane.underWay.length === 0) void flush(lane)
    })
  }

  function begin(tag: string): void {
    for (const lane of lanes) lane.numbers = { tag, acked: 0, last: 0 }
  }

  function laneOf(shard: number): Lane {
    return lanes[shard] as Lane
  }

  function close(): void {
    closed = true
    for (const lane of lanes) {
      if (lane.timer !== null) clearTimeout(lane.timer)
      const error = new SurgetankError('space_unavailable', 'It was closed.')
      for (const waiting of lane.waiting.splice(0)) waiting.reject(error)
    }
  }
}

type ApplyReply = readonly [
  epoch: string,
  rolledBack: number,
  watched: number,
  changed: readonly number[],
  failed: readonly number[],
  error: string,
]
