/**
 * The log in Kafka: the same promises as the log on a disk, for many ingest units and many writers. A topic holds the chunks, one
 * record each; two more hold refused messages and dead letters; the offsets of a consumer group are the writers' positions.
 *
 * kafkajs serves as the protocol; see `kafka-client.ts`. The parts: `kafka-lane.ts` (each batch once into the log), `kafka-group.ts` and
 * `kafka-claim.ts` (one writer of a partition, plans), `kafka-reader.ts`, `kafka-topics.ts`, `kafka-trim.ts`.
 */
import { metrics } from '../metrics.ts'
import { LINE_FORMAT } from '../model/message.ts'
import { type KafkaAccess, type KafkaClient, openKafkaClient } from './kafka-client.ts'
import { openInlet } from './kafka-inlet.ts'
import { fetchMembers, type Member } from './kafka-members.ts'
import { openOutlet } from './kafka-outlet.ts'
import { fetchPlaces, unwrittenIn } from './kafka-places.ts'
import { type KafkaReader, openKafkaReader } from './kafka-reader.ts'
import { ensureTopics, examineTopics, findTopics, type LogTopic } from './kafka-topics.ts'
import { openTrimmer } from './kafka-trim.ts'
import { openView } from './kafka-view.ts'
import type { PumpInlet, PumpOutlet, PumpView } from './pump.ts'

export interface KafkaOptions extends KafkaAccess {
  /** Of the chunks; the names of the other topics and of the group begin with it. */
  readonly topic: string
  /** Of the topic, when it is made. */
  readonly partitions: number
  /** 0: three, or as many as there are brokers. */
  readonly replication: number
  /** How long chunks are kept that the writers have committed. */
  readonly keepHours: number
  /** The most that chunks may take, about. */
  readonly bytesMax: number
  /** The most that quarantined messages may take, and as much again for dead letters. */
  readonly quarantineBytesMax: number
  /** ms since 1970 UTC. */
  readonly clock?: () => number
}

export interface KafkaOutletOptions extends KafkaOptions {
  /** The newest version of the schema that the writer knows; told to the other writers. */
  readonly schema?: number
  /** Told of each rejection of `work` that a new claim follows. */
  readonly failed?: (error: unknown) => void
  /** After which silence of a writer its partitions go to others, ms. */
  readonly sessionMs?: number
  /** How long a step under way may take when the group asks for its partitions, ms. */
  readonly revokeMsMax?: number
  /** How often a partition's retention is looked at, ms. */
  readonly trimMs?: number
}

const SESSION_MS = 15_000
const REVOKE_MS_MAX = 20_000
const TRIM_MS = 30_000

/** Makes the topics where there are none. Rejects with `log_unavailable` while Kafka is away, or with `log_misconfigured`. */
export function openKafkaInlet(options: KafkaOptions): Promise<PumpInlet> {
  const { bytesMax, log } = options
  return openOn(options, ensureTopics, ({ client, topic, reader }) => {
    const unwrittenChunks = async () => {
      const places = await fetchPlaces(client, reader, topic)
      return places.reduce((sum, place) => sum + unwrittenIn(place), 0)
    }
    return openInlet({ client, reader, topic, bytesMax, unwrittenChunks, log })
  })
}

/** As `openKafkaInlet`. */
export function openKafkaOutlet(options: KafkaOutletOptions): Promise<PumpOutlet> {
  const { keepHours, log, clock = Date.now, failed = () => {}, trimMs = TRIM_MS } = options
  const { schema = 0, sessionMs = SESSION_MS, revokeMsMax = REVOKE_MS_MAX } = options
  const knows = { lines: LINE_FORMAT, schema }
  return openOn(options, ensureTopics, ({ client, topic, reader }) =>
    openOn(options, findTopics, async ({ client: groupClient }) => {
      const bytesMax = options.bytesMax / reader.partitions().length
      const trim = { topic: topic.log, keepHours, bytesMax, everyMs: trimMs, clock, log }
      const trimmer = openTrimmer({ client, reader, ...trim })
      return openOutlet({ client, groupClient, reader, trimmer, topic, knows, sessionMs, revokeMsMax, failed, log })
    }),
  )
}

/** Makes no topics: rejects with `log_missing` when there are none yet, otherwise as `openKafkaInlet`. */
export function openKafkaView(options: KafkaOptions): Promise<PumpView> {
  const { bytesMax } = options
  return openOn(options, findTopics, async ({ client, topic, reader }) => openView({ client, reader, topic, bytesMax }))
}

/** What an operator should mend though the log works, a sentence each. Rejects as `openKafkaView`. */
export async function examineKafkaLog(options: KafkaOptions): Promise<string[]> {
  const client = openKafkaClient(options)
  try {
    return await examineTopics(client, await findTopics(client, options))
  } finally {
    await client.close()
  }
}

/** The writers that are members of their group now. Rejects with `log_unavailable`, also while they come and go; or as `openKafkaView`. */
export async function fetchWriters(options: KafkaOptions): Promise<Member[]> {
  const client = openKafkaClient(options)
  try {
    const { group } = await findTopics(client, options)
    return await fetchMembers(client, group)
  } finally {
    await client.close()
  }
}

interface OpenLog {
  readonly client: KafkaClient
  readonly topic: LogTopic
  readonly reader: KafkaReader
}

/** Opens a part on a client of its own, which is closed when the part does not open. */
async function openOn<Part>(
  options: KafkaOptions,
  topicsOf: (client: KafkaClient, options: KafkaOptions) => Promise<LogTopic>,
  open: (log: OpenLog) => Promise<Part>,
): Promise<Part> {
  const client = openKafkaClient(options)
  try {
    const topic = await topicsOf(client, options)
    return await open({ client, topic, reader: openKafkaReader(client, topic.log, foreign) })
  } catch (error) {
    await client.close()
    throw error
  }

  function foreign(partition: number, position: number): void {
    metrics.foreignRecords.inc()
    options.log.warn(
      { topic: options.topic, partition, position },
      'a record that no surgetank wrote stands in the log; it is passed over',
    )
  }
}
