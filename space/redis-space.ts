/**
 * The space in Redis, 7 or newer, a single one or a Cluster: shared by any number of brokers, readers and APIs.
 *
 * Invariants: see `space.ts`. Redis is not believed to keep anything: the log is the truth. Whatever it lost, by whatever
 * cause, is noticed (`redis-epoch.ts`), and the state is not warm until a reader has rebuilt it.
 *
 * The parts: what was merged waits in a buffer by device (`redis-buffer.ts`) and goes to Redis in batches, one under way per
 * shard (`redis-flush.ts`, `apply.lua`); reads come after what this process merged (`redis-reads.ts`); who is online hangs
 * on the leases of units (`redis-units.ts`); changes travel by sharded pub/sub (`redis-watch.ts`).
 */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { Presence } from '../model/device-state.ts'
import type { Message } from '../model/message.ts'
import type { SessionStore } from '../sessions/sessions.ts'
import { openClaims } from './claims.ts'
import { openDeviceTable } from './device-table.ts'
import { openMetricNames } from './metric-names.ts'
import { openMetricSlots } from './metric-slots.ts'
import { openRedisConnection, within } from './redis-connection.ts'
import { openRedisEpoch, type RedisEpoch } from './redis-epoch.ts'
import { openRedisFlush } from './redis-flush.ts'
import { openRedisHeart } from './redis-heart.ts'
import { type KeptOptions, openRedisKept, type RedisKept } from './redis-kept.ts'
import { openRedisKeys } from './redis-keys.ts'
import type { Older } from './redis-marks.ts'
import { openRedisReads } from './redis-reads.ts'
import { openRedisSessions, type RedisSessions } from './redis-sessions.ts'
import { openRedisSubscriber } from './redis-subscriber.ts'
import { openRedisUnits, type RedisUnits } from './redis-units.ts'
import { openRedisWatch, type RedisWatch } from './redis-watch.ts'
import type { Sessions, Space } from './space.ts'

export interface RedisSpaceOptions {
  /** redis:// or rediss://, with user:password@; several, with commas between, name nodes of one Cluster. */
  readonly url: string
  /** Every key and channel begins with it. */
  readonly prefix: string
  /** PEM text of the authority that signed the server's certificate; null for those that Node knows. */
  readonly ca: string | null
  /** Devices that may be claimed by this process. */
  readonly devicesMax: number
  /** True for a process with a broker: it holds a lease, and presence it reports is its own. */
  readonly unit: boolean
  readonly log: Logger
}

export interface RedisSpace extends Space {
  readonly sessions: Sessions
  /** What clients hold, in the same Redis. Called once; the caller closes it before the space. */
  openSessionStore(bounds: Pick<KeptOptions, 'sessionsMax' | 'expiryMs' | 'clock'>): SessionStore
  /** Names this process among those that share the space. */
  readonly unit: string
  /** Processes that live and cannot read what this one writes, as far as they leave a trace here. */
  older(): Promise<Older>
}

const CLOSE_MS_MAX = 2_000

/**
 * Rejects with `space_misconfigured` when the server must not be used: too old, one that evicts, or that refuses the user.
 * Opens also while Redis is away, after three seconds: it is not warm then, and merges wait in memory, within bounds.
 */
export async function openRedisSpace(options: RedisSpaceOptions): Promise<RedisSpace> {
  const { url, prefix, ca, devicesMax, log } = options
  if (/[{}]/.test(prefix)) throw new SurgetankError('space_misconfigured', 'The prefix of keys must hold no { or }.')
  const connection = await openRedisConnection({ url, ca, log })
  const keys = openRedisKeys(prefix)
  const heart = openRedisHeart(beat)
  const table = openDeviceTable()
  const slots = openMetricSlots()
  const claims = openClaims({
    table,
    slots,
    names: openMetricNames(),
    devicesMax,
    added: index => flush.claim(table.id(index)),
  })
  const flush = openRedisFlush({
    connection,
    keys,
    log,
    replied: (shard, tag, { epoch, rolledBack, watched, changed }) => {
      found(shard, epoch)
      if (rolledBack) units.startAnew(tag)
      watch.changed(shard, changed, watched)
    },
    letGo: shard => {
      epochs.owe(shard)
      heart.soon()
    },
    watching: () => watch.any,
  })
  let oldestUnmergedAt: () => number | null = () => null
  const units: RedisUnits = openRedisUnits({
    connection,
    keys,
    flush,
    log,
    isUnit: options.unit,
    owes: () => epochs.owes,
    oldestUnmergedAt: () => oldestUnmergedAt(),
    isClaimed: device => table.find(device) >= 0,
    startedAnew: () => {
      sessions.doubtAll()
      kept?.bringBack()
    },
    renewSoon: heart.soon,
    changed: (shard, devices, watched) => watch.changed(shard, devices, watched),
  })
  const epochs: RedisEpoch = openRedisEpoch({
    connection,
    keys,
    flush,
    tag: () => units.tag,
    watchMs: () => watch.watchMs,
    unwatched: shard => watch.lapsed(shard),
    rolledBack: tag => units.startAnew(tag),
  })
  const subscriber = openRedisSubscriber(connection, log)
  const watch: RedisWatch = openRedisWatch({
    connection,
    subscriber,
    keys,
    process: units.unit,
    log,
    announce: heart.soon,
  })
  const sessions: RedisSessions = openRedisSessions({
    connection,
    subscriber,
    keys,
    units,
    isUnit: options.unit,
    log,
  })
  const reads = openRedisReads({ connection, keys, flush, units, reading: watch.reading, found })
  let kept: RedisKept | null = null
  let wasUp = connection.up
  connection.onChange(changed)
  await heart.beat()

  return {
    merge,
    trackUnmerged: oldestAt => {
      oldestUnmergedAt = oldestAt
    },
    settled: () => flush.settled(),
    mergePresence,
    claimMetric: claims.claim,
    ...reads,
    watch: watch.watch,
    get warm() {
      return epochs.warm
    },
    claimRebuild: epochs.claimRebuild,
    claimLostUnits: units.claimLostUnits,
    sessions,
    openSessionStore: bounds => {
      kept = openRedisKept({ ...bounds, connection, keys, unit: units.unit, log })
      return kept
    },
    unit: units.unit,
    older: units.older,
    close,
  }

  async function merge(messages: readonly Message[]): Promise<void> {
    // Who accepts no readings needs no memory of who has which metric.
    if (options.unit) for (const message of messages) remember(message)
    flush.merge(messages)
  }

  function remember({ device, readings }: Message): void {
    const index = claims.findOrAdd(device)
    if (index < 0) return
    let hint = 0
    for (const { metric } of readings) {
      const slot = claims.slotOf(index, metric, hint)
      if (slot >= 0) hint = slot - table.firstSlot(index) + 1
    }
  }

  async function mergePresence(changes: readonly Presence[]): Promise<void> {
    let isFull = false
    for (const change of changes) {
      const { device, online, at } = change
      units.note(change)
      if (!flush.mergePresence(device, online, at, table.find(device) >= 0)) isFull = true
    }
    if (isFull) throw new SurgetankError('space_unavailable', 'More presence waits for Redis than may be held.')
  }

  function found(shard: number, epoch: string): void {
    if (epochs.note(shard, epoch)) heart.soon()
  }

  /** A connection that broke may come back to another Redis: nothing is believed until the heartbeat has asked. */
  function changed(up: boolean): void {
    epochs.doubt()
    // A node of a Cluster that broke is none that came back.
    if (up && !wasUp) flush.wake()
    wasUp = up
    if (!up) return
    heart.soon()
    kept?.bringBack()
  }

  async function beat(): Promise<boolean> {
    const isWatching = watch.watchMs > 0
    metrics.stateUnmergedSeconds.set((Date.now() - flush.mergedThrough) / 1_000)
    const [asked, renewed] = await Promise.allSettled([epochs.beat(), units.beat()])
    if (asked.status === 'fulfilled' && isWatching) watch.announced()
    return asked.status === 'fulfilled' && renewed.status === 'fulfilled'
  }

  /** What Redis does not take within two seconds is left to others to repair from the log: the lease is not given back then. */
  async function close(): Promise<void> {
    heart.stop()
    sessions.close()
    watch.close()
    await within(Promise.all([epochs.close(), flush.settled().then(units.leave)]), CLOSE_MS_MAX).catch(error =>
      log.warn(
        { err: error },
        'Redis did not take the last of the state; it is in the log, for a reader to repair or rebuild',
      ),
    )
    subscriber.close()
    flush.close()
    await connection.close()
  }
}
