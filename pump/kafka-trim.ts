/**
 * Retention of the log in Kafka, by its writers: what is in ClickHouse goes when it is old, or when the log is larger than it may be.
 * Kafka itself deletes nothing, so that what is not in ClickHouse stays whatever its age [G5].
 */
import type { Logger } from 'pino'
import type { KafkaClient } from './kafka-client.ts'
import type { KafkaReader } from './kafka-reader.ts'

export interface TrimOptions {
  readonly client: KafkaClient
  readonly reader: KafkaReader
  readonly topic: string
  readonly keepHours: number
  /** Of one partition. */
  readonly bytesMax: number
  /** How often a partition is looked at, ms. */
  readonly everyMs: number
  readonly clock: () => number
  readonly log: Logger
}

export interface Trimmer {
  /** All before `position` is in ClickHouse. At once; never rejects: a trim that fails is tried at the next turn. */
  committed(partition: number, position: number): void
  /** Resolves when no trim is under way any more. */
  close(): Promise<void>
}

const HOUR_MS = 3_600_000
/** How many records are looked at to learn how large one is. */
const SAMPLE_BYTES = 1 << 20

export function openTrimmer(options: TrimOptions): Trimmer {
  const { reader, topic, keepHours, bytesMax, everyMs, clock, log } = options
  const lookedAt = new Map<number, number>()
  const underWay = new Set<Promise<void>>()

  return { committed, close }

  function committed(partition: number, position: number): void {
    const now = performance.now()
    if (now - (lookedAt.get(partition) ?? Number.NEGATIVE_INFINITY) < everyMs) return
    lookedAt.set(partition, now)
    const work = trim(partition, position)
      .catch(error => log.warn({ err: error, partition }, 'the log could not be trimmed; it is tried again'))
      .finally(() => underWay.delete(work))
    underWay.add(work)
  }

  async function trim(partition: number, position: number): Promise<void> {
    const first = await reader.firstOf(partition)
    const old = await reader.since(partition, clock() - keepHours * HOUR_MS)
    const before = Math.min(position, Math.max(old, first + (await recordsOver(partition, first))))
    if (before <= first) return
    const node = await options.client.leader(topic, partition)
    await node.deleteRecords({ topics: [{ topic, partitions: [{ partition, offset: String(before) }] }] })
    log.debug({ partition, first: before }, 'the log was trimmed')
  }

  /** How many records are more than there may be, by the size of the oldest ones. */
  async function recordsOver(partition: number, first: number): Promise<number> {
    const end = await reader.endOf(partition)
    const sample = await reader.records(partition, first, SAMPLE_BYTES)
    const bytes = sample.reduce((sum, { value }) => sum + (value?.length ?? 0), 0)
    return bytes === 0 ? 0 : end - first - Math.floor((bytesMax * sample.length) / bytes)
  }

  async function close(): Promise<void> {
    await Promise.all(underWay)
  }
}
