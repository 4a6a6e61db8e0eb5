/**
 * kafkajs 2.2.4 as far as the pump uses it: its protocol, its connections and its metadata, and none of its producer,
 * consumer or retries. These lose acknowledged data in ways that were reproduced, and decide by themselves when to start
 * anew (docs/decisions/010-kafka-by-its-protocol.md), so lanes, group membership and reads are ours, on its `Cluster`.
 *
 * `Cluster` and `Broker` are internals, hence the exact version, which is checked.
 * Every error that leaves this file is one of ours.
 */
import { createRequire } from 'node:module'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Logger } from 'pino'
import { within } from '../within.ts'
import { isNamed, kafkaErrorType, translateKafkaError, unavailable } from './kafka-errors.ts'
import { mendKafkajs } from './kafka-mended.ts'

export interface KafkaAccess {
  /** host:port of some brokers of the cluster; the others are asked for. */
  readonly brokers: readonly string[]
  /** `ca`: certificates in PEM; null for those of the system. */
  readonly tls: { readonly ca: string | null } | null
  readonly sasl: {
    readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
    readonly user: string
    readonly password: string
  } | null
  /** After how long it is asked again who leads what, and how many partitions there are, ms. */
  readonly metadataMs?: number
  readonly log: Logger
}

/** A 64-bit number as kafkajs holds it; only handed back to it. */
export type Long = object

export interface KafkaRecord {
  readonly value: Buffer
  readonly headers: Readonly<Record<string, Buffer | string>>
}

export interface FetchedRecord {
  /** Null when somebody else wrote it so. */
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, Buffer | string>>
  readonly offset: string
  readonly timestamp: string
}

/** A node of the cluster. What is sent to it is answered, or rejects with kafkajs' error. */
export interface KafkaNode {
  readonly nodeId: string
  fetch(request: object): Promise<{
    responses: { partitions: { partition: number; highWatermark: string; messages: FetchedRecord[] }[] }[]
  }>
  listOffsets(request: object): Promise<{ responses: { partitions: { partition: number; offset: string }[] }[] }>
  deleteRecords(request: object): Promise<unknown>
  initProducerId(request: object): Promise<{ producerId: Long; producerEpoch: number }>
  joinGroup(request: object): Promise<{
    generationId: number
    leaderId: string
    memberId: string
    members: { memberId: string; memberMetadata: Buffer }[]
  }>
  syncGroup(request: object): Promise<{ memberAssignment: Buffer }>
  heartbeat(request: object): Promise<unknown>
  leaveGroup(request: object): Promise<unknown>
  describeGroups(request: object): Promise<{ groups: GroupDescribed[] }>
  findGroupCoordinator(request: object): Promise<unknown>
  offsetCommit(request: object): Promise<unknown>
  offsetFetch(request: object): Promise<{
    responses: { partitions: { partition: number; offset: string; metadata: string | null }[] }[]
  }>
  /** Of topics that need not be known to the client. */
  metadata(topics: readonly string[]): Promise<{
    topicMetadata: { partitionMetadata: PartitionMetadata[] }[]
  }>
  createTopics(request: object): Promise<unknown>
  describeConfigs(request: object): Promise<{
    resources: { resourceName: string; configEntries: { configName: string; configValue: string | null }[] }[]
  }>
  readonly connectionPool: { send(request: object): Promise<unknown> }
  disconnect(): Promise<void>
}

/** The members' metadata is only there while the state is Stable. */
export interface GroupDescribed {
  readonly state: string
  readonly members: readonly { readonly clientHost: string; readonly memberMetadata: Buffer }[]
}

interface RawCluster {
  connect(): Promise<void>
  disconnect(): Promise<void>
  refreshMetadata(): Promise<void>
  refreshMetadataIfNecessary(): Promise<void>
  addTargetTopic(topic: string): Promise<void>
  findBroker(options: { nodeId: string }): Promise<KafkaNode>
  findControllerBroker(): Promise<KafkaNode>
  findGroupCoordinator(options: { groupId: string }): Promise<KafkaNode>
  findTopicPartitionMetadata(topic: string): PartitionMetadata[]
  getNodeIds(): string[]
}

export interface PartitionMetadata {
  readonly partitionId: number
  readonly leader: number
  readonly replicas: readonly number[]
  readonly isr: readonly number[]
}

export interface KafkaClient {
  /** Connects and knows the topic from now on. Rejects with `log_unavailable` or `log_misconfigured`. */
  knowTopic(topic: string): Promise<'known' | 'missing'>
  /** Sorted by partition; as the metadata had it last. */
  partitions(topic: string): PartitionMetadata[]
  /** The node that leads a partition, connected. Rejects with `log_unavailable` when there is none at the moment. */
  leader(topic: string, partition: number): Promise<KafkaNode>
  coordinator(group: string): Promise<KafkaNode>
  controller(): Promise<KafkaNode>
  /** How many nodes the cluster has, as far as it is known, and how many brokers this client was named. */
  readonly nodes: number
  readonly named: number
  /** Asks who leads what: after an answer that says so, and after a lost connection. Never rejects. */
  refresh(): Promise<void>
  /** The same, when it was not asked for a minute: a topic may have got more partitions. Never rejects. */
  refreshWhenOld(): Promise<void>
  close(): Promise<void>
}

const require = createRequire(import.meta.url)
const Cluster = require('kafkajs/src/cluster') as new (options: object) => RawCluster
const { createLogger, LEVELS } = require('kafkajs/src/loggers') as {
  createLogger(options: object): object
  LEVELS: { WARN: number }
}

const CONNECT_MS_MAX = 3_000
const REQUEST_MS_MAX = 10_000
const METADATA_MS = 60_000
const CLOSE_MS_MAX = 1_000
/** Of a node that hangs, or an answer that says nothing. */
const REFRESH_MS_MAX = 5_000
/** Read uncommitted: nothing here is written in transactions. */
export const ISOLATION = 0
/** The kind of coordinator, in a FindCoordinator request. */
const GROUP = 0

/** Opens no connection yet. */
export function openKafkaClient({ brokers, tls, sasl, metadataMs = METADATA_MS, log }: KafkaAccess): KafkaClient {
  mendKafkajs()
  const sockets = new Set<Socket>()
  let closed = false
  const cluster = new Cluster({
    brokers: [...brokers],
    clientId: 'surgetank',
    ssl: tls === null ? null : { ...(tls.ca === null ? {} : { ca: [tls.ca] }) },
    sasl: sasl === null ? null : { mechanism: sasl.mechanism, username: sasl.user, password: sasl.password },
    logger: createLogger({ level: LEVELS.WARN, logCreator: () => logInto(log) }),
    socketFactory: openOwnSocket,
    connectionTimeout: CONNECT_MS_MAX,
    authenticationTimeout: CONNECT_MS_MAX,
    reauthenticationThreshold: 10_000,
    requestTimeout: REQUEST_MS_MAX,
    enforceRequestTimeout: true,
    metadataMaxAge: metadataMs,
    allowAutoTopicCreation: false,
    isolationLevel: ISOLATION,
    retry: { retries: 1, initialRetryTime: 50, maxRetryTime: 200 },
  })

  return {
    knowTopic,
    partitions,
    leader,
    coordinator: group => translated(`finding the coordinator of ${group}`, () => findCoordinator(group)),
    controller: () => translated('finding the controller', () => cluster.findControllerBroker()),
    get nodes() {
      return cluster.getNodeIds().length
    },
    named: brokers.length,
    refresh: () => endedWithin(REFRESH_MS_MAX, cluster.refreshMetadata()),
    refreshWhenOld: () => endedWithin(REFRESH_MS_MAX, cluster.refreshMetadataIfNecessary()),
    close,
  }

  async function knowTopic(topic: string): Promise<'known' | 'missing'> {
    try {
      await cluster.connect()
      await cluster.addTargetTopic(topic)
      return 'known'
    } catch (error) {
      if (kafkaErrorType(error) !== 'UNKNOWN_TOPIC_OR_PARTITION') throw translateKafkaError(error, 'connecting')
      // Whoever makes the topic needs to know the nodes, which the answer about a topic that is missing has not brought.
      await cluster.refreshMetadata().catch(() => {})
      return 'missing'
    }
  }

  function partitions(topic: string): PartitionMetadata[] {
    return [...cluster.findTopicPartitionMetadata(topic)].sort((a, b) => a.partitionId - b.partitionId)
  }

  async function leader(topic: string, partition: number): Promise<KafkaNode> {
    return translated('finding a leader', async () => {
      // What is known goes on to hold when it cannot be asked anew: a request to a node that leads no more says so.
      await endedWithin(REFRESH_MS_MAX, cluster.refreshMetadataIfNecessary())
      const found = partitions(topic).find(({ partitionId }) => partitionId === partition)
      if (found === undefined || found.leader < 0) throw unavailable(`Nobody leads ${topic}/${partition}.`)
      return cluster.findBroker({ nodeId: String(found.leader) })
    })
  }

  async function findCoordinator(group: string): Promise<KafkaNode> {
    try {
      return await cluster.findGroupCoordinator({ groupId: group })
    } catch (error) {
      const [nodeId] = cluster.getNodeIds()
      if (nodeId === undefined || !isNamed(error, 'KafkaJSGroupCoordinatorNotFound')) throw error
      // No node has told, and kafkajs keeps to itself why: one of them is asked for that.
      await (await cluster.findBroker({ nodeId })).findGroupCoordinator({ groupId: group, coordinatorType: GROUP })
      throw error
    }
  }

  /** What asks while the client is being closed would be given a new connection, that nobody ends. */
  function openOwnSocket(options: SocketOptions): Socket {
    const socket = openSocket(options)
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    if (closed) socket.destroy(new Error('The client was closed.'))
    return socket
  }

  /** Requests under way are not waited for any longer than a moment: kafkajs would wait for each of them. */
  async function close(): Promise<void> {
    closed = true
    await endedWithin(CLOSE_MS_MAX, cluster.disconnect())
    for (const socket of sockets) socket.destroy()
  }
}

/** Resolves when the work has ended, however, or after so long. */
async function endedWithin(ms: number, work: Promise<unknown>): Promise<void> {
  await within(
    ms,
    work.catch(() => {}),
  )
}

async function translated<Result>(doing: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    throw translateKafkaError(error, doing)
  }
}

interface SocketOptions {
  readonly host: string
  readonly port: number
  readonly ssl: object | null
  readonly onConnect: () => void
}

/** Without Nagle's delay, which kafkajs leaves on. */
function openSocket({ host, port, ssl, onConnect }: SocketOptions): Socket {
  const named = isIP(host) ? {} : { servername: host }
  const socket =
    ssl === null || ssl === undefined
      ? connectTcp({ host, port }, onConnect)
      : connectTls({ host, port, ...named, ...ssl }, onConnect)
  // kafkajs ends a connection once for each request that failed on it, also while it is being made.
  socket.setMaxListeners(0)
  socket.setNoDelay(true)
  socket.setKeepAlive(true, 30_000)
  return socket
}

interface KafkaLogEntry {
  readonly namespace: string
  readonly log: { readonly message: string; readonly broker?: string }
}

/** What kafkajs calls an error is a connection that will be tried again: it is told when somebody asks for more. */
function logInto(log: Logger): (entry: KafkaLogEntry) => void {
  return ({ namespace, log: { message, broker } }) => log.debug({ kafka: namespace, broker }, message)
}
