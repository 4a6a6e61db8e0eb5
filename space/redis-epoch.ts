/**
 * Whether the state in Redis is whole: the epoch, and the right to rebuild.
 *
 * A rebuild gives all shards one epoch, a field that lies beside their data and goes with them. The state is warm while
 * every shard has the same, in the same run of the same Redis. A heartbeat asks each second and right after a
 * connection broke, until when nothing is believed; each flush and each read tells it too. What makes a shard cold takes its epoch away for
 * everybody: emptied, started again or taken over, a flush lost that was answered, readings let go, or not taken for seconds.
 */
import { randomBytes } from 'node:crypto'
import { SurgetankError } from '../errors.ts'
import type { RedisConnection } from './redis-connection.ts'
import type { RedisFlush } from './redis-flush.ts'
import { ALL_SHARDS, type RedisKeys } from './redis-keys.ts'
import type { Rebuild } from './space.ts'

export interface RedisEpoch {
  readonly warm: boolean
  /** What a flush or a read found in a shard. True when it is another epoch than was known. */
  note(shard: number, epoch: string): boolean
  /** Readings of a shard were let go. */
  owe(shard: number): void
  /** True until Redis was told of all that was let go. */
  readonly owes: boolean
  /** Nothing is believed until the next heartbeat. */
  doubt(): void
  beat(): Promise<void>
  claimRebuild(): Promise<Rebuild | null>
  /** Gives up a rebuild that is under way. */
  close(): Promise<void>
}

export interface EpochOptions {
  readonly connection: RedisConnection
  readonly keys: RedisKeys
  readonly flush: RedisFlush
  tag(): string
  watchMs(): number
  /** Until this heartbeat nothing of the shard was published, though this process watches. */
  unwatched(shard: number): void
  /** Flushes were lost of the unit with this tag. */
  rolledBack(tag: string): void
}

/** A process that rebuilds and dies holds up the next one for so long. */
const LOCK_MS = 5_000

interface UnderWay {
  readonly token: string
  readonly lost: AbortController
}

export function openRedisEpoch(options: EpochOptions): RedisEpoch {
  const { connection, keys, flush, tag, watchMs, unwatched, rolledBack } = options
  const epochs: string[] = ALL_SHARDS.map(() => '')
  /** Shards whose readings were let go, and how often: until Redis was told of the last time. */
  const owed = new Map<number, number>()
  let believed = false
  let doubts = 0
  let underWay: UnderWay | null = null

  return {
    get warm() {
      return isWarm()
    },
    note,
    owe: shard => owed.set(shard, (owed.get(shard) ?? 0) + 1),
    get owes() {
      return owed.size > 0
    },
    doubt,
    beat,
    claimRebuild,
    close,
  }

  function isWarm(): boolean {
    if (!believed || !connection.up || owed.size > 0) return false
    const [first] = epochs
    return first !== '' && epochs.every(epoch => epoch === first)
  }

  function note(shard: number, epoch: string): boolean {
    const isOther = epochs[shard] !== epoch
    epochs[shard] = epoch
    return isOther
  }

  function doubt(): void {
    believed = false
    doubts++
  }

  async function beat(): Promise<void> {
    const doubtsBefore = doubts
    const rebuilding = underWay
    try {
      const markers = await Promise.all(ALL_SHARDS.map(beatShard))
      if (doubts === doubtsBefore) believed = true
      if (rebuilding !== null) await keep(rebuilding, markers)
    } catch (error) {
      believed = false
      throw error
    }
  }

  async function beatShard(shard: number): Promise<string> {
    const [unitTag, owes] = [tag(), owed.get(shard)]
    // To every shard: the one that lacks something may be one that this process alone does not reach.
    const isLacking = owed.size > 0 || flush.isRefused
    const args = [unitTag, flush.acked(shard), isLacking ? '1' : '0', watchMs()]
    const reply = await connection.run('beat', [keys.meta(shard)], args)
    const [epoch, marker, isRolledBack, isUnwatched] = reply as [string, string, number, number]
    epochs[shard] = epoch
    if (owes !== undefined && owed.get(shard) === owes) owed.delete(shard)
    if (isRolledBack === 1) rolledBack(unitTag)
    if (isUnwatched === 1) unwatched(shard)
    return marker
  }

  async function keep({ token, lost }: UnderWay, markers: readonly string[]): Promise<void> {
    if (underWay?.token !== token) return
    const held = await connection.run('lock', [keys.rebuild], [token, LOCK_MS])
    if (underWay?.token !== token) return
    if (held !== 1 || markers.some(marker => marker !== token)) lose(lost)
  }

  function lose(lost: AbortController): void {
    lost.abort()
    if (underWay?.lost === lost) underWay = null
  }

  async function claimRebuild(): Promise<Rebuild | null> {
    if (isWarm()) return null
    await beat()
    if (isWarm() || underWay !== null) return null
    const token = randomBytes(12).toString('hex')
    const taken = await connection.command('SET', [keys.rebuild, token, 'NX', 'PX', LOCK_MS])
    if (taken === null) return null
    try {
      await Promise.all(ALL_SHARDS.map(shard => connection.run('rebuild', [keys.meta(shard)], ['begin', token])))
    } catch (error) {
      await release(token)
      throw error
    }
    const lost = new AbortController()
    underWay = { token, lost }
    return { lost: lost.signal, finish: () => finish(token, lost), release: () => release(token) }
  }

  async function finish(token: string, lost: AbortController): Promise<void> {
    await flush.settled()
    // Let go since: the marker goes with it.
    if (owed.size > 0) await beat()
    if (lost.signal.aborted) throw lostRight()
    const done = await Promise.all(
      ALL_SHARDS.map(shard => connection.run('rebuild', [keys.meta(shard)], ['finish', token])),
    )
    if (done.some(answer => answer !== 1)) {
      lose(lost)
      throw lostRight()
    }
    epochs.fill(token)
    await release(token)
  }

  async function release(token: string): Promise<void> {
    if (underWay?.token === token) underWay = null
    // If it fails, the lock runs out.
    await connection.run('lock', [keys.rebuild], [token, 0]).catch(() => {})
  }

  async function close(): Promise<void> {
    if (underWay !== null) await release(underWay.token)
  }
}

function lostRight(): SurgetankError {
  return new SurgetankError('space_unavailable', 'The state was emptied, or another process rebuilds it: begin anew.')
}
