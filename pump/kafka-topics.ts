/**
 * The topics of the log: made where there are none, and refused in a plain sentence where they cannot keep [G1].
 *
 * An acknowledgement must mean that the batch survives: with one replica it is on the disk (`flush.messages=1`; Kafka
 * otherwise acknowledges from memory), with several at least two have it (`min.insync.replicas`), and no replica that lacks
 * it may become the leader. Kafka deletes nothing by itself: the writers remove what is in ClickHouse (`kafka-trim.ts`).
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import type { KafkaClient } from './kafka-client.ts'
import { kafkaErrorType, translateKafkaError, unavailable } from './kafka-errors.ts'
import { topicIdOf } from './kafka-topic-id.ts'

export interface TopicNames {
  readonly log: string
  readonly quarantine: string
  readonly letters: string
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

function topicNames(topic: string): TopicNames {
  return {
    log: topic,
    quarantine: `${topic}.quarantine`,
    letters: `${topic}.dead-letters`,
    group: `${topic}.writers`,
  }
}

/** The largest batch that ingest makes, a message beyond it, and what surrounds them. */
const MESSAGE_BYTES = 8 << 20
const MESSAGE_BYTES_MIN = 5 << 20
/** Room that the writers make is given back by the segment. */
const SEGMENT_BYTES = 128 << 20
const TOPIC_RESOURCE = 2
const VISIBLE_MS_MAX = 10_000
const LOOK_MS = 50
const RETENTION_MS_MIN = 24 * 3_600_000

/** Makes what is missing, and checks all. Rejects with `log_misconfigured` (stop) or `log_unavailable`. */
export async function ensureTopics(client: KafkaClient, options: TopicOptions): Promise<LogTopic> {
  const names = topicNames(options.topic)
  await ensureTopic(client, names.log, { ...options, retentionBytes: -1 })
  for (const topic of [names.quarantine, names.letters]) {
    await ensureTopic(client, topic, { ...options, partitions: 1, retentionBytes: options.quarantineBytesMax })
  }
  return { ...names, id: await topicIdOf(client, names.log) }
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
  return { ...names, id: await topicIdOf(client, names.log) }
}

interface OneTopic {
  readonly partitions: number
  readonly replication: number
  readonly retentionBytes: number
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
  await checkTopic(client, topic, options)
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
    'segment.bytes': String(SEGMENT_BYTES),
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
    if (isOf(error, 'TOPIC_ALREADY_EXISTS')) return
    if (isOf(error, 'INVALID_REPLICATION_FACTOR')) {
      throw unavailable(`Topic ${topic} is to have ${replication} replicas, and fewer brokers are there.`, error)
    }
    throw translateKafkaError(error, `making topic ${topic}`)
  }
}

function isOf(error: unknown, type: string): boolean {
  const inner = error instanceof Error && 'errors' in error ? (error.errors as unknown[]) : [error]
  return inner.some(one => kafkaErrorType(one) === type)
}

async function checkTopic(client: KafkaClient, topic: string, { retentionBytes, log }: OneTopic): Promise<void> {
  const controller = await client.controller()
  const { resources } = await controller
    .describeConfigs({ resources: [{ type: TOPIC_RESOURCE, name: topic }], includeSynonyms: false })
    .catch((error: unknown) => {
      throw translateKafkaError(error, `reading the settings of topic ${topic}`)
    })
  const entries = resources[0]?.configEntries.map(({ configName, configValue }) => [configName, configValue ?? ''])
  const replicas = Math.min(...client.partitions(topic).map(partition => partition.replicas.length))
  const isLog = retentionBytes < 0
  const { refusal, warning } = judgeTopic(Object.fromEntries(entries ?? []), { replicas, isLog })
  if (refusal !== null) throw new SurgetankError('log_misconfigured', `Topic ${topic}: ${refusal}`)
  if (warning !== null) log.warn({ topic }, warning)
  if (replicas < Math.min(3, client.nodes))
    log.warn({ topic, replicas }, 'a topic has fewer replicas than it could have')
}

/** What is wrong with a topic, as a sentence that says what to set. Pure. */
export function judgeTopic(
  config: Readonly<Record<string, string>>,
  { replicas, isLog }: { readonly replicas: number; readonly isLog: boolean },
): { refusal: string | null; warning: string | null } {
  const refusal = (sentence: string) => ({ refusal: sentence, warning: null })
  const flushes = Number(config['flush.messages']) === 1
  const inSync = Number(config['min.insync.replicas'])
  if (config['cleanup.policy'] !== 'delete') {
    return refusal(
      `cleanup.policy is ${config['cleanup.policy']}; set it to delete: compaction removes acknowledged readings.`,
    )
  }
  if (config['unclean.leader.election.enable'] === 'true') {
    return refusal('unclean.leader.election.enable is true; set it to false: it loses what was acknowledged.')
  }
  if (replicas === 1 && !flushes) {
    return refusal(
      'it has one replica and flush.messages is not 1; set it to 1, or give it more replicas: Kafka acknowledges from memory.',
    )
  }
  if (replicas > 1 && inSync < 2 && !flushes) {
    return refusal('min.insync.replicas is 1; set it to 2: Kafka would acknowledge what only one broker has in memory.')
  }
  if (Number(config['max.message.bytes']) < MESSAGE_BYTES_MIN) {
    return refusal(`max.message.bytes is ${config['max.message.bytes']}; set it to ${MESSAGE_BYTES}.`)
  }
  if (isLog && Number(config['retention.bytes']) >= 0) {
    return refusal(
      `retention.bytes is ${config['retention.bytes']}; set it to -1: Kafka would delete what is not in ClickHouse yet.`,
    )
  }
  const retentionMs = Number(config['retention.ms'])
  if (retentionMs >= 0 && retentionMs < RETENTION_MS_MIN) {
    return refusal(`retention.ms is ${retentionMs}; set it to -1: what is not in ClickHouse yet would be deleted.`)
  }
  const warning =
    'retention.ms is not -1: readings that stay out of ClickHouse for longer are deleted by Kafka; set it to -1'
  return { refusal: null, warning: retentionMs >= 0 ? warning : null }
}
