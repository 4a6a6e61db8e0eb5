/**
 * A lane: the way of one unit's records into Kafka, each batch of them once.
 *
 * The rule: one `send` at a time, each to one partition, under the lane's own producer id and with the partition's next
 * sequence number. What was not answered is sent again as it was, with the same number, until Kafka says that it has it:
 * the broker knows the number, and answers a repetition without storing it twice (KIP-98). So a send that failed must be
 * repeated by the caller before any other; where nothing of it can have reached a broker, it may take another partition.
 *
 * Once Kafka has forgotten the lane's numbers a repetition proves nothing: when it says so (OUT_OF_ORDER_SEQUENCE_NUMBER and the
 * like), and when it had the time to (`producer.id.expiration.ms`, a day). Then the partition is read from where the lane last
 * stood, and the records are sent only if they are not there.
 */
import type { KafkaClient, KafkaNode, KafkaRecord, Long } from './kafka-client.ts'
import { kafkaErrorType, onceLoaded, translateKafkaError, unavailable } from './kafka-errors.ts'
import { produce as produceTo } from './kafka-produce.ts'

export interface Lane {
  /**
   * Resolves when all in-sync replicas have the records. Rejects with `log_unavailable` when it is not known whether they do;
   * the same records must be sent next. `partitions` are those that may take them; a repetition may stay with the one it tried.
   */
  send(records: readonly KafkaRecord[], to: SendTo): Promise<void>
}

export interface SendTo {
  readonly topic: string
  /** In the order they should be tried. */
  readonly partitions: readonly number[]
  /** Reads whether the first of the records stands in the partition at or after an offset: asked only when Kafka has forgotten. */
  find(partition: number, from: number): Promise<boolean>
  /** Where the partition ends: asked before the first of this lane's records in it. */
  endOf(partition: number): Promise<number>
}

/** To a topic of one partition, of which a record that is kept twice does no harm. */
export function toSideTopic(topic: string): SendTo {
  return { topic, partitions: [0], find: async () => false, endOf: async () => 0 }
}

interface Producer {
  readonly id: Long
  readonly epoch: number
  /** The next sequence number by topic and partition. */
  readonly sequences: Map<string, number>
}

/** Records that are to be sent, until Kafka has them. */
interface Attempt {
  readonly records: readonly KafkaRecord[]
  readonly partition: number
  /** They do not stand before this offset. */
  readonly from: number
  /** Since when it is not known whether they are stored, ms: a try ended in no answer, or in one that does not say. */
  inDoubtSince: number | null
}

const PRODUCE_MS_MAX = 8_000
/** Far less than Kafka remembers a producer. */
const REMEMBERED_MS = 10 * 60_000
/** Sequence numbers go from 0 to 2^31 − 1 and begin again. */
const SEQUENCES = 2 ** 31

/**
 * Kafka stored nothing: said before it appends. NOT_LEADER_FOR_PARTITION and the like are none of these: a leader that gives its
 * partition up answers so to writes that it and its followers have appended (Kafka's DelayedProduce).
 */
const NOT_APPENDED = new Set([
  'NOT_ENOUGH_REPLICAS',
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'MESSAGE_TOO_LARGE',
  'RECORD_LIST_TOO_LARGE',
])
const FORGOTTEN = new Set([
  'OUT_OF_ORDER_SEQUENCE_NUMBER',
  'UNKNOWN_PRODUCER_ID',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
])

/** `now`: ms since 1970 UTC. */
export function openLane(client: KafkaClient, now: () => number = Date.now): Lane {
  /** By topic and partition, the offset after what this lane wrote last. */
  const ends = new Map<string, number>()
  let producer: Producer | null = null
  let attempt: Attempt | null = null
  let isSending = false

  return { send }

  async function send(records: readonly KafkaRecord[], to: SendTo): Promise<void> {
    if (isSending) throw new Error('One send at a time.')
    if (attempt !== null && attempt.records !== records) throw new Error('A send that failed must be repeated first.')
    isSending = true
    try {
      const { partition, node } = await choose(to)
      producer ??= await newProducer(node)
      attempt ??= { records, partition, from: await endOf(partition, to), inDoubtSince: null }
      if (!(await isStoredLongAgo(attempt, to))) await produce(node, producer, attempt, to)
      attempt = null
    } finally {
      isSending = false
    }
  }

  /** The partition that holds them perhaps, or the first that has a leader. */
  async function choose({ topic, partitions }: SendTo): Promise<{ partition: number; node: KafkaNode }> {
    let failure: unknown = unavailable(`Topic ${topic} has no partitions.`)
    for (const partition of attempt === null ? partitions : [attempt.partition]) {
      try {
        return { partition, node: await client.leader(topic, partition) }
      } catch (error) {
        failure = error
        await client.refresh()
      }
    }
    throw failure
  }

  /** A broker that was away for long may have forgotten the numbers meanwhile, and does not say so (KIP-360). */
  async function isStoredLongAgo({ inDoubtSince, partition, from }: Attempt, to: SendTo): Promise<boolean> {
    const isLong = inDoubtSince !== null && now() - inDoubtSince > REMEMBERED_MS
    if (!isLong || !(await to.find(partition, from))) return false
    // Whether its number counts for the producer is not known either.
    producer = null
    return true
  }

  async function endOf(partition: number, to: SendTo): Promise<number> {
    return ends.get(`${to.topic}/${partition}`) ?? to.endOf(partition)
  }

  async function produce(node: KafkaNode, { id, epoch, sequences }: Producer, current: Attempt, to: SendTo) {
    const { records, partition } = current
    const place = `${to.topic}/${partition}`
    const firstSequence = sequences.get(place) ?? 0
    try {
      const baseOffset = await produceTo(node, {
        ...{ topic: to.topic, partition, records, firstSequence, timeoutMs: PRODUCE_MS_MAX },
        ...{ producerId: id, producerEpoch: epoch },
      })
      ends.set(place, baseOffset + records.length)
    } catch (error) {
      const type = kafkaErrorType(error)
      // Kafka has them from an earlier try, and has had more than five batches since.
      if (type !== 'DUPLICATE_SEQUENCE_NUMBER') return failed(error, type, current, to)
    }
    sequences.set(place, (firstSequence + records.length) % SEQUENCES)
  }

  /** Resolves when they turn out to be stored. */
  async function failed(error: unknown, type: string | null, current: Attempt, to: SendTo): Promise<void> {
    if (type !== null && FORGOTTEN.has(type)) {
      const isStored = current.inDoubtSince !== null && (await to.find(current.partition, current.from))
      producer = null
      if (isStored) return
      attempt = null
    } else {
      if (type === null || !NOT_APPENDED.has(type)) current.inDoubtSince ??= now()
      else if (current.inDoubtSince === null) attempt = null
      await client.refresh()
    }
    throw translateKafkaError(error, `writing ${to.topic}/${current.partition}`)
  }
}

async function newProducer(node: KafkaNode): Promise<Producer> {
  try {
    const request = { transactionalId: null, transactionTimeout: 0 }
    const { producerId, producerEpoch } = await onceLoaded(() => node.initProducerId(request))
    return { id: producerId, epoch: producerEpoch, sequences: new Map() }
  } catch (error) {
    throw translateKafkaError(error, 'asking for a producer id')
  }
}
