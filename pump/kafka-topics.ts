/**
 * The topics of the log: made where there are none, and refused in a plain sentence where they cannot keep [G1].
 *
 * An acknowledgement must mean that the batch survives: with one replica it is on the disk (`flush.messages=1`; Kafka
 * otherwise acknowledges from memory), with several at least two have it (`min.insync.replicas`), and no replica that lacks
 * it may become the leader. Kafka deletes nothing by itself: the writers remove what is in ClickHouse (`kafka-trim.ts`).
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { hasFate, SurgetankError } from '../errors.ts'
import type { KafkaClient } from './kafka-client.ts'
import { kafkaErrorType, onceLoaded, translateKafkaError, unavailable } from './kafka-errors.ts'
import { topicIdOf } from './kafka-topic-id.ts'

export interface TopicNames {
  readonly log: string
  readonly quarantine: string
  readonly letters: string
  /** The list of repetitions; null where it could not be made: nothing but the list needs it. */
  readonly repeated: string | null
  /** The consumer group of the writers: where their positions and plans stand. */
  readonly group: string
}

/** The topics of a log, and the id of the one that holds its chunks. */
export interface LogTopic extends TopicNames {
  /** No topic that is made anew under the same name has it. */
  readonly id: string
}

export interface TopicOptions {
  readonly topic: string
  /** Of the log, when it is made. */
  readonly partitions: number
  /** 0: three, or as many as there are brokers. */
  readonly replication: number
  readonly quarantineBytesMax: number
  readonly log: Logger
}

function topicNames(topic: string): TopicNames & { readonly repeated: string } {
  return {
    log: topic,
    quarantine: `${topic}.quarantine`,
    letters: `${topic}.dead-letters`,
    repeated: `${topic}.repeated`,
    group: `${topic}.writers`,
  }
}

/** The largest batch that ingest makes, a message beyond it, and what surrounds them. */
const MESSAGE_BYTES = 8 << 20
const MESSAGE_BYTES_MIN = 5 << 20
/** Room that the writers make is given back by the segment. */
const SEGMENT_BYTES = 128 << 20
/** Of the list of repetitions: the newest 4 MB, and the segment that is being written. */
const REPEATED_BYTES = 4 << 20
const REPEATED_SEGMENT_BYTES = 2 << 20
const TOPIC_RESOURCE = 2
const POSITIONS_TOPIC = '__consumer_offsets'
/** Values of compression.type; what is sent is not compressed. kafkajs knows no other. */
const READABLE = new Set(['producer', 'uncompressed', 'gzip'])
const VISIBLE_MS_MAX = 10_000
const LOOK_MS = 50
const RETENTION_MS_MIN = 24 * 3_600_000

/** Makes what is missing, and examines all. Rejects with `log_misconfigured` (stop) or `log_unavailable`. */
export async function ensureTopics(client: KafkaClient, options: TopicOptions): Promise<LogTopic> {
  const names = topicNames(options.topic)
  await ensureTopic(client, names.log, { ...options, retentionBytes: -1 })
  for (const topic of [names.quarantine, names.letters]) {
    await ensureTopic(client, topic, { ...options, partitions: 1, retentionBytes: options.quarantineBytesMax })
  }
  const found = { ...names, repeated: await ensureRepeated(client, names.repeated, options) }
  for (const advice of await examineTopics(client, found)) options.log.warn({ topic: names.log }, advice)
  return { ...found, id: await topicIdOf(client, names.log) }
}

/**
 * Null, and a warning, when it cannot be used, whatever the reason: it may not be made, too few brokers are there, nobody leads
 * it. The log works without, as that of a version before did, and a later start makes it.
 */
async function ensureRepeated(client: KafkaClient, topic: string, options: TopicOptions): Promise<string | null> {
  const bounds = { partitions: 1, retentionBytes: REPEATED_BYTES, segmentBytes: REPEATED_SEGMENT_BYTES }
  try {
    await ensureTopic(client, topic, { ...options, ...bounds })
    return topic
  } catch (error) {
    if (!(error instanceof SurgetankError)) throw error
    options.log.warn(
      { err: error, topic },
      'repetitions are counted, and not listed: the topic for them cannot be used; the next start tries again',
    )
    return null
  }
}

/** The topics that somebody else made. Rejects with `log_missing` when nobody has. */
export async function findTopics(client: KafkaClient, { topic }: Pick<TopicOptions, 'topic'>): Promise<LogTopic> {
  const names = topicNames(topic)
  for (const name of [names.log, names.quarantine, names.letters]) {
    if ((await client.knowTopic(name)) === 'missing') {
      throw new SurgetankError(
        'log_missing',
        `Kafka has no topic ${name}; a broker or a writer makes it when it starts.`,
      )
    }
  }
  return { ...names, repeated: await findRepeated(client, names.repeated), id: await topicIdOf(client, names.log) }
}

/** Null when nobody has made it, or it cannot be asked for. */
async function findRepeated(client: KafkaClient, topic: string): Promise<string | null> {
  try {
    return (await client.knowTopic(topic)) === 'known' ? topic : null
  } catch (error) {
    if (error instanceof SurgetankError) return null
    throw error
  }
}

/** How a topic is made. */
interface OneTopic {
  readonly partitions: number
  readonly replication: number
  readonly retentionBytes: number
  readonly segmentBytes?: number
  readonly log: Logger
}

async function ensureTopic(client: KafkaClient, topic: string, options: OneTopic): Promise<void> {
  const until = performance.now() + VISIBLE_MS_MAX
  let found = await client.knowTopic(topic)
  if (found === 'missing') await createTopic(client, topic, options)
  // The brokers learn of a topic, and of its leaders, one after the other.
  while (found === 'missing' || client.partitions(topic).some(({ leader }) => leader < 0)) {
    if (performance.now() > until) throw unavailable(`Topic ${topic} has no leader for each of its partitions.`)
    await pause(LOOK_MS)
    await client.refresh()
    found = await client.knowTopic(topic)
  }
}

async function createTopic(client: KafkaClient, topic: string, options: OneTopic): Promise<void> {
  // Brokers that are named and not there yet are waited for: a topic keeps the replicas that it was made with.
  const replication =
    options.replication === 0 ? Math.min(3, Math.max(client.nodes, client.named)) : options.replication
  const config = {
    'cleanup.policy': 'delete',
    'retention.ms': '-1',
    'retention.bytes': String(options.retentionBytes),
    'max.message.bytes': String(MESSAGE_BYTES),
    'segment.bytes': String(options.segmentBytes ?? SEGMENT_BYTES),
    'compression.type': 'producer',
    'message.timestamp.type': 'LogAppendTime',
    'unclean.leader.election.enable': 'false',
    'min.insync.replicas': String(Math.min(2, replication)),
    ...(replication === 1 ? { 'flush.messages': '1' } : {}),
  }
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
  const { partitions: numPartitions, log } = options
  try {
    const controller = await client.controller()
    await controller.createTopics({ topics: [{ topic, numPartitions, replicationFactor: replication, configEntries }] })
    log.info({ topic, partitions: numPartitions, replication }, 'a topic was made')
  } catch (error) {
    // Another process made it at the same moment.
    if (kafkaErrorType(error) === 'TOPIC_ALREADY_EXISTS') return
    if (kafkaErrorType(error) === 'INVALID_REPLICATION_FACTOR') {
      throw unavailable(`Topic ${topic} is to have ${replication} replicas, and fewer brokers are there.`, error)
    }
    throw translateKafkaError(error, `making topic ${topic}`)
  }
}

/**
 * What an operator should mend of topics that are there, a sentence each. Rejects with `log_misconfigured` for what an operator
 * must, the rights of this user among it.
 */
export async function examineTopics(client: KafkaClient, names: TopicNames): Promise<string[]> {
  const advice: string[] = []
  for (const topic of [names.log, names.quarantine, names.letters]) {
    const replicas = Math.min(...client.partitions(topic).map(partition => partition.replicas.length))
    const { refusal, warnings } = judgeTopic(await configOf(client, topic), { replicas, isLog: topic === names.log })
    if (refusal !== null) throw new SurgetankError('log_misconfigured', `Topic ${topic}: ${refusal}`)
    const isThin = replicas < Math.min(3, client.nodes)
    const thin = isThin ? [`it has ${replicas} replicas of each partition, fewer than it could have.`] : []
    advice.push(...[...warnings, ...thin].map(sentence => `Topic ${topic}: ${sentence}`))
  }
  return [
    ...advice,
    ...(await examineRepeated(client, names.repeated)),
    ...(await examinePositions(client, names.group)),
  ]
}

/** Nothing but the list needs it, so nothing that is wrong with it stops anybody. */
async function examineRepeated(client: KafkaClient, topic: string | null): Promise<string[]> {
  if (topic === null) return []
  const advice = (sentence: string) => [`Topic ${topic}, the list of repetitions: ${sentence}`]
  try {
    const replicas = Math.min(...client.partitions(topic).map(partition => partition.replicas.length))
    const { refusal } = judgeTopic(await configOf(client, topic), { replicas, isLog: false })
    return refusal === null ? [] : advice(refusal)
  } catch (error) {
    if (error instanceof SurgetankError) return advice(error.message)
    throw error
  }
}

/** The writers' positions stand in a topic of Kafka's own, which Kafka makes when it is first asked for a group. */
async function examinePositions(client: KafkaClient, group: string): Promise<string[]> {
  await onceLoaded(() => client.coordinator(group)).catch((error: unknown) => {
    // A broker needs no group to begin with.
    if (hasFate(error, 'stop')) throw error
  })
  try {
    const node = await client.controller()
    const { topicMetadata } = await node.metadata([POSITIONS_TOPIC])
    const partitions = topicMetadata[0]?.partitionMetadata ?? []
    const replicas = Math.min(...partitions.map(partition => partition.replicas.length))
    const weakness = weaknessOf(await configOf(client, POSITIONS_TOPIC), replicas)
    return weakness === null ? [] : [`Topic ${POSITIONS_TOPIC}, which holds the writers' positions: ${weakness}`]
  } catch (error) {
    // Not made yet, or not shown to this user.
    if (kafkaErrorType(error) !== null) return []
    throw translateKafkaError(error, `asking for topic ${POSITIONS_TOPIC}`)
  }
}

async function configOf(client: KafkaClient, topic: string): Promise<Record<string, string>> {
  const controller = await client.controller()
  const { resources } = await controller
    .describeConfigs({ resources: [{ type: TOPIC_RESOURCE, name: topic }], includeSynonyms: false })
    .catch((error: unknown) => {
      throw translateKafkaError(error, `reading the settings of topic ${topic}`)
    })
  const entries = resources[0]?.configEntries.map(({ configName, configValue }) => [configName, configValue ?? ''])
  return Object.fromEntries(entries ?? [])
}

/** Why Kafka may lose what it has acknowledged, as a sentence that says what to set; null when it keeps it. */
function weaknessOf(config: Readonly<Record<string, string>>, replicas: number): string | null {
  const flushes = Number(config['flush.messages']) === 1
  if (config['unclean.leader.election.enable'] === 'true') {
    return 'unclean.leader.election.enable is true; set it to false: it loses what was acknowledged.'
  }
  if (replicas === 1 && !flushes) {
    return 'it has one replica and flush.messages is not 1; set it to 1, or give it more replicas: Kafka acknowledges from memory.'
  }
  if (replicas > 1 && Number(config['min.insync.replicas']) < 2 && !flushes) {
    return 'min.insync.replicas is 1; set it to 2: Kafka would acknowledge what only one broker has in memory.'
  }
  return null
}

/** What is wrong with a topic, as sentences that say what to set. Pure. */
export function judgeTopic(
  config: Readonly<Record<string, string>>,
  { replicas, isLog }: { readonly replicas: number; readonly isLog: boolean },
): { refusal: string | null; warnings: string[] } {
  const refusal = (sentence: string) => ({ refusal: sentence, warnings: [] })
  const weakness = weaknessOf(config, replicas)
  const retentionMs = Number(config['retention.ms'])
  const compression = config['compression.type']
  if (config['cleanup.policy'] !== 'delete') {
    return refusal(
      `cleanup.policy is ${config['cleanup.policy']}; set it to delete: compaction removes acknowledged readings.`,
    )
  }
  if (weakness !== null) return refusal(weakness)
  if (compression !== undefined && !READABLE.has(compression)) {
    return refusal(`compression.type is ${compression}; set it to producer: only gzip can be read here.`)
  }
  if (Number(config['max.message.bytes']) < MESSAGE_BYTES_MIN) {
    return refusal(`max.message.bytes is ${config['max.message.bytes']}; set it to ${MESSAGE_BYTES}.`)
  }
  if (isLog && Number(config['retention.bytes']) >= 0) {
    return refusal(
      `retention.bytes is ${config['retention.bytes']}; set it to -1: Kafka would delete what is not in ClickHouse yet.`,
    )
  }
  if (retentionMs >= 0 && retentionMs < RETENTION_MS_MIN) {
    return refusal(`retention.ms is ${retentionMs}; set it to -1: what is not in ClickHouse yet would be deleted.`)
  }
  const deletes =
    'retention.ms is not -1; set it to -1: readings that stay out of ClickHouse for longer are deleted by Kafka.'
  const guesses =
    'message.timestamp.type is CreateTime; set it to LogAppendTime: the log is looked up by time, and clocks of brokers differ.'
  const isDated = !isLog || config['message.timestamp.type'] !== 'CreateTime'
  return { refusal: null, warnings: [...(retentionMs >= 0 ? [deletes] : []), ...(isDated ? [] : [guesses])] }
}
