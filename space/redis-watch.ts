/**
 * Live changes across processes: the ids of devices that changed, published by shard, and only while somebody watches.
 *
 * A process that watches says so with its heartbeat; a flush of any process learns it from its reply, and publishes what it
 * changed, gathered, at most every 50 ms. A watcher in the same process is told directly.
 *
 * A publication can be lost. Each process numbers its own by shard; a number left out, or a pause of the subscription, makes
 * the watcher tell all devices of the shard once more, as changed. Until the first subscription stands, what is read
 * meanwhile is remembered, and told then: it may have changed in between.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { RedisConnection } from './redis-connection.ts'
import { ALL_SHARDS, type RedisKeys } from './redis-keys.ts'
import type { RedisSubscriber } from './redis-subscriber.ts'
import type { Space } from './space.ts'
import { openWatchers } from './watchers.ts'

export interface RedisWatch {
  /** True while somebody in this process watches. */
  readonly any: boolean
  /** For how long this process watches from now on, ms: told with each heartbeat; 0 when nobody does. */
  readonly watchMs: number
  readonly watch: Space['watch']
  /** Devices that this process changed; `watched`: others want to know. */
  changed(shard: number, devices: readonly string[], watched: boolean): void
  /** Devices that are being read. */
  reading(devices: readonly string[]): void
  /** A heartbeat has told that this process watches. */
  announced(): void
  /** Nobody was known to watch a shard until now: what this process asked for went with an emptied Redis, say. */
  lapsed(shard: number): void
  close(): void
}

export interface WatchOptions {
  readonly connection: RedisConnection
  readonly subscriber: RedisSubscriber
  readonly keys: RedisKeys
  /** Names this process among those that publish. */
  readonly process: string
  readonly log: Logger
  /** A heartbeat is wanted now. */
  announce(): void
}

const PUBLISH_EVERY_MS = 50
const PUBLISHED_AT_ONCE = 500
/** Heartbeats tell it anew every second. */
const WATCH_MS = 10_000
/** The next watcher often comes soon, as when a page is reloaded. */
const LINGER_MS = 5_000
const READ_MEANWHILE_MAX = 20_000
const SLICE = 1_000
/** What could not be read or published. */
const AGAIN_MS = 1_000
const PUBLISHERS_MAX = 1_000

interface Publication {
  /** Who published, and the how manieth of its publications of this shard it is. */
  readonly p: string
  readonly n: number
  readonly d: readonly string[]
}

export function openRedisWatch(options: WatchOptions): RedisWatch {
  const { connection, subscriber, keys, log, announce } = options
  const watchers = openWatchers<string>()
  const lanes = ALL_SHARDS.map(shard => ({
    shard,
    pending: new Set<string>(),
    number: 0,
    /** The last publication may not have been heard. */
    unheard: false,
    heard: new Map<string, number>(),
  }))
  let publishing: NodeJS.Timeout | null = null
  let watching = 0
  let unsubscribe: (() => void)[] = []
  let lingering: NodeJS.Timeout | null = null
  /** Shards that are subscribed, and whether others know that we watch. */
  const heard = new Set<number>()
  let isAnnounced = false
  /** Null once all stands. */
  let readMeanwhile: Set<string> | null = null
  const telling = new Map<number, { again: boolean }>()
  let closed = false

  return {
    get any() {
      return watchers.any
    },
    get watchMs() {
      return unsubscribe.length > 0 ? WATCH_MS : 0
    },
    watch,
    changed,
    reading,
    announced,
    lapsed: shard => {
      if (readMeanwhile === null) void tellAll(shard)
    },
    close,
  }

  function watch(everyMs: number, tell: (devices: readonly string[]) => void): () => void {
    const stopTelling = watchers.watch(everyMs, devices => tell([...devices]))
    watching++
    if (lingering !== null) clearTimeout(lingering)
    lingering = null
    if (unsubscribe.length === 0) start()
    let stopped = false
    return () => {
      stopTelling()
      if (stopped || closed) return
      stopped = true
      watching--
      if (watching === 0) lingering = setTimeout(end, LINGER_MS).unref()
    }
  }

  function start(): void {
    readMeanwhile = new Set()
    isAnnounced = false
    unsubscribe = lanes.map(({ shard }) =>
      subscriber.subscribe(keys.changes(shard), {
        message: text => take(shard, text),
        missed: () => missed(shard),
      }),
    )
    announce()
  }

  function end(): void {
    lingering = null
    for (const stop of unsubscribe) stop()
    unsubscribe = []
    heard.clear()
    for (const lane of lanes) lane.heard.clear()
  }

  function announced(): void {
    if (unsubscribe.length === 0) return
    isAnnounced = true
    stand()
  }

  function missed(shard: number): void {
    lanes[shard]?.heard.clear()
    if (readMeanwhile === null) void tellAll(shard)
    heard.add(shard)
    stand()
  }

  function stand(): void {
    if (readMeanwhile === null || !isAnnounced || heard.size < lanes.length) return
    const read = readMeanwhile
    readMeanwhile = null
    if (read.size < READ_MEANWHILE_MAX) for (const device of read) watchers.mark(device)
    else for (const { shard } of lanes) void tellAll(shard)
  }

  function reading(devices: readonly string[]): void {
    if (readMeanwhile === null || !watchers.any) return
    for (const device of devices) if (readMeanwhile.size < READ_MEANWHILE_MAX) readMeanwhile.add(device)
  }

  function take(shard: number, text: string): void {
    const publication = parsePublication(text)
    if (publication === null) {
      log.debug({ shard }, 'what was published for watchers is none of ours')
      return
    }
    const { p, n, d } = publication
    if (p === options.process) return
    const numbers = lanes[shard]?.heard ?? new Map<string, number>()
    const last = numbers.get(p)
    if (numbers.size >= PUBLISHERS_MAX) numbers.clear()
    numbers.set(p, n)
    if (last !== undefined && n !== last + 1) void tellAll(shard)
    for (const device of d) watchers.mark(device)
  }

  /** Slice by slice, so that Redis and this process have their turns; one walk of a shard at a time, while somebody watches. */
  async function tellAll(shard: number): Promise<void> {
    const underWay = telling.get(shard)
    if (underWay !== undefined) {
      underWay.again = true
      return
    }
    const walk = { again: false }
    telling.set(shard, walk)
    let from: string | null = '-'
    while (from !== null && watchers.any && !closed) {
      from = await tellSlice(shard, from)
      if (from !== null || !walk.again) continue
      walk.again = false
      from = '-'
    }
    telling.delete(shard)
  }

  /** Returns from where the next slice is, or this one once more; null after the last. */
  async function tellSlice(shard: number, from: string): Promise<string | null> {
    try {
      const args = [keys.ids(shard), from, '+', 'BYLEX', 'LIMIT', 0, SLICE]
      const ids = (await connection.command('ZRANGE', args)) as string[]
      for (const id of ids) watchers.mark(id)
      const last = ids.at(-1)
      return last === undefined || ids.length < SLICE ? null : `(${last}`
    } catch (error) {
      log.debug({ err: error }, 'watchers cannot be told of what they missed yet')
      await pause(AGAIN_MS, undefined, { ref: false })
      return from
    }
  }

  function changed(shard: number, devices: readonly string[], watched: boolean): void {
    if (watchers.any) for (const device of devices) watchers.mark(device)
    const lane = lanes[shard]
    if (!watched || lane === undefined) return
    for (const device of devices) lane.pending.add(device)
    publishing ??= setTimeout(publish, PUBLISH_EVERY_MS)
  }

  function publish(): void {
    publishing = null
    for (const lane of lanes) {
      const devices = [...lane.pending]
      lane.pending.clear()
      // One that fails leaves its number out, and watchers notice by the next one: one of no devices, if there is none.
      if (devices.length === 0 && lane.unheard) publishSlice(lane, [])
      for (let at = 0; at < devices.length; at += PUBLISHED_AT_ONCE) {
        publishSlice(lane, devices.slice(at, at + PUBLISHED_AT_ONCE))
      }
    }
  }

  function publishSlice(lane: (typeof lanes)[number], devices: readonly string[]): void {
    const publication: Publication = { p: options.process, n: ++lane.number, d: devices }
    lane.unheard = false
    connection.command('SPUBLISH', [keys.changes(lane.shard), JSON.stringify(publication)]).catch(() => {
      lane.unheard = true
      if (!closed) publishing ??= setTimeout(publish, AGAIN_MS)
    })
  }

  function close(): void {
    closed = true
    if (publishing !== null) {
      clearTimeout(publishing)
      publish()
    }
    if (lingering !== null) clearTimeout(lingering)
    end()
    watchers.close()
  }
}

/** Anything may be published in a Redis that is shared; null for what is no publication. */
function parsePublication(text: string): Publication | null {
  try {
    const { p, n, d } = JSON.parse(text) as Record<keyof Publication, unknown>
    if (typeof p !== 'string' || !Number.isSafeInteger(n) || !Array.isArray(d)) return null
    if (d.length > PUBLISHED_AT_ONCE || !d.every(device => typeof device === 'string')) return null
    return { p, n: n as number, d }
  } catch {
    return null
  }
}
