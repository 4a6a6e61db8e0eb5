/**
 * Reading a topic by partition and offset, without a consumer group: whoever asks says where. Fetches do not wait at the
 * broker: one that waits would hold up all others on its connection.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { type FetchedRecord, ISOLATION, type KafkaClient } from './kafka-client.ts'
import { isNamed, kafkaErrorType, translateKafkaError, UNREADABLE, unavailable } from './kafka-errors.ts'
import { type KafkaChunk, toChunk } from './kafka-record.ts'
import type { ReadLimits } from './pump.ts'

/** Special times of a ListOffsets request. */
const LATEST = -1
const EARLIEST = -2

/** Of one fetch: what a reader may hold in memory beside what it asked for. */
const FETCH_BYTES_MAX = 16 << 20
const FETCH_BYTES_MIN = 64 << 10
const TRIES = 3
const LOOK_MS = 100
const LOOKS_MAX = 50

/** Answers that tell of a leader elsewhere. */
const ASK_AGAIN = new Set([
  'NOT_LEADER_FOR_PARTITION',
  'LEADER_NOT_AVAILABLE',
  'UNKNOWN_TOPIC_OR_PARTITION',
  'FENCED_LEADER_EPOCH',
  'REPLICA_NOT_AVAILABLE',
  'OFFSET_NOT_AVAILABLE',
])

export interface KafkaReader {
  /** All of the topic; it may be given more while it is in use. */
  partitions(): number[]
  /** The offset that the next record of each partition will have. */
  ends(partitions: readonly number[]): Promise<Map<number, number>>
  /** The oldest offset that each partition still holds. */
  firsts(partitions: readonly number[]): Promise<Map<number, number>>
  /** The same of one partition; 0 where the answer does not tell. */
  endOf(partition: number): Promise<number>
  firstOf(partition: number): Promise<number>
  /** The oldest offset of a record that was appended at or after a time, ms; the end when there is none. */
  since(partition: number, at: number): Promise<number>
  /**
   * Records from `from` on, in order; the first may lie after `from` when older ones are gone. Empty at the end. At least one
   * when there is any, whatever its size. Rejects with `log_misconfigured` at a batch that is compressed otherwise than by gzip.
   */
  records(partition: number, from: number, bytesMax: number): Promise<FetchedRecord[]>
  /** The same, as chunks within the limits but for the first. */
  chunks(partition: number, from: number, limits: ReadLimits): Promise<KafkaChunk[]>
}

/** `foreign` is told of records that are not ours. */
export function openKafkaReader(
  client: KafkaClient,
  topic: string,
  foreign: (partition: number, position: number) => void = () => {},
): KafkaReader {
  return {
    partitions: () => client.partitions(topic).map(({ partitionId }) => partitionId),
    ends: partitions => offsets(partitions, LATEST),
    firsts: partitions => offsets(partitions, EARLIEST),
    endOf: partition => offsetOf(partition, LATEST),
    firstOf: partition => offsetOf(partition, EARLIEST),
    since,
    records,
    chunks,
  }

  async function offsets(partitions: readonly number[], timestamp: number): Promise<Map<number, number>> {
    return again(`asking for offsets of ${topic}`, async () => {
      const byLeader = new Map<string, number[]>()
      for (const partition of partitions) {
        const { nodeId } = await client.leader(topic, partition)
        byLeader.set(nodeId, [...(byLeader.get(nodeId) ?? []), partition])
      }
      const found = new Map<number, number>()
      for (const own of byLeader.values()) {
        const node = await client.leader(topic, own[0] as number)
        const { responses } = await node.listOffsets({
          replicaId: -1,
          isolationLevel: ISOLATION,
          topics: [{ topic, partitions: own.map(partition => ({ partition, timestamp })) }],
        })
        for (const { partition, offset } of responses[0]?.partitions ?? []) found.set(partition, Number(offset))
      }
      return found
    })
  }

  async function since(partition: number, at: number): Promise<number> {
    const found = (await offsets([partition], at)).get(partition) ?? -1
    return found >= 0 ? found : offsetOf(partition, LATEST)
  }

  async function offsetOf(partition: number, timestamp: number): Promise<number> {
    return (await offsets([partition], timestamp)).get(partition) ?? 0
  }

  /**
   * An answer without records is the end only when it says so: a client that is throttled gets an answer about no partition,
   * and a new leader knows later than the old one how far the log was acknowledged.
   */
  async function records(partition: number, from: number, bytesMax: number): Promise<FetchedRecord[]> {
    for (let tries = 1; tries <= LOOKS_MAX; tries++) {
      const found = await fetchOnce(partition, from, bytesMax)
      if (found !== null) return found
      await pause(LOOK_MS)
    }
    throw unavailable(`Kafka does not hand out ${topic}/${partition} from ${from} at the moment.`)
  }

  /** Null when the answer does not tell whether there is anything. */
  async function fetchOnce(partition: number, from: number, bytesMax: number): Promise<FetchedRecord[] | null> {
    return again(`reading ${topic}/${partition} from ${from}`, async () => {
      const node = await client.leader(topic, partition)
      const fetchFrom = async (start: number, maxBytes: number) => {
        const { responses } = await node.fetch({
          replicaId: -1,
          isolationLevel: ISOLATION,
          maxWaitTime: 0,
          minBytes: 0,
          maxBytes,
          topics: [{ topic, partitions: [{ partition, fetchOffset: String(start), maxBytes }] }],
        })
        const answer = responses[0]?.partitions[0]
        if (answer === undefined) return null
        // Kafka answers with whole batches: the first may begin before what was asked for.
        const found = answer.messages.filter(({ offset }) => Number(offset) >= start)
        return found.length > 0 || Number(answer.highWatermark) <= start ? found : null
      }
      const bytes = Math.min(FETCH_BYTES_MAX, Math.max(FETCH_BYTES_MIN, bytesMax))
      return fetchFrom(from, bytes).catch(async error => {
        // Of several batches: those before it are handed out, the first of them whatever its size.
        if (isNamed(error, UNREADABLE)) return fetchFrom(from, 1)
        if (kafkaErrorType(error) !== 'OFFSET_OUT_OF_RANGE') throw error
        const first = await offsetOf(partition, EARLIEST)
        // Otherwise beyond the end, which is for the caller to judge.
        return from < first ? fetchFrom(first, bytes) : []
      })
    })
  }

  async function chunks(partition: number, from: number, { chunksMax, bytesMax }: ReadLimits): Promise<KafkaChunk[]> {
    const taken: KafkaChunk[] = []
    let bytes = 0
    for (const record of await records(partition, from, bytesMax)) {
      const chunk = toChunk(partition, record)
      if (chunk.unit === null) foreign(partition, chunk.position)
      bytes += chunk.lines.length
      if (taken.length > 0 && (taken.length >= chunksMax || bytes > bytesMax)) break
      taken.push(chunk)
    }
    return taken
  }

  /** Twice more with fresh metadata; then it is for the caller to wait. */
  async function again<Result>(doing: string, work: () => Promise<Result>): Promise<Result> {
    for (let tries = 1; ; tries++) {
      try {
        return await work()
      } catch (error) {
        const type = kafkaErrorType(error)
        const isElsewhere = type === null ? !isNamed(error, UNREADABLE) : ASK_AGAIN.has(type)
        if (!isElsewhere || tries === TRIES) throw translateKafkaError(error, doing)
        await client.refresh()
      }
    }
  }
}
