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
import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'

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
  offsetCommit(request: object): Promise<unknown>
  offsetFetch(request: object): Promise<{
    responses: { partitions: { partition: number; offset: string; metadata: string | null }[] }[]
  }>
  createTopics(request: object): Promise<unknown>
  describeConfigs(request: object): Promise<{
    resources: { resourceName: string; configEntries: { configName: string; configValue: string | null }[] }[]
  }>
  readonly connectionPool: { send(request: object): Promise<unknown> }
  disconnect(): Promise<void>
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
  readonly targetTopics: Set<string>
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
const { version } = require('kafkajs/package.json') as { version: string }
const Cluster = require('kafkajs/src/cluster') as new (options: object) => RawCluster
const { createLogger, LEVELS } = require('kafkajs/src/loggers') as {
  createLogger(options: object): object
  LEVELS: { NOTHING: number; WARN: number }
}
const RequestQueue = require('kafkajs/src/network/requestQueue') as { prototype: RequestQueueInside }
const ConnectionPool = require('kafkajs/src/network/connectionPool') as { prototype: ConnectionPoolInside }

const CONNECT_MS_MAX = 3_000
const REQUEST_MS_MAX = 10_000
const METADATA_MS = 60_000
const CLOSE_MS_MAX = 1_000
/** Of a node that hangs, or an answer that says nothing. */
const REFRESH_MS_MAX = 5_000
/** Read uncommitted: nothing here is written in transactions. */
export const ISOLATION = 0

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
    coordinator: group => translated('finding the coordinator', () => cluster.findGroupCoordinator({ groupId: group })),
    controller: () => translated('finding the controller', () => cluster.findControllerBroker()),
    get nodes() {
      return cluster.getNodeIds().length
    },
    named: brokers.length,
    refresh: () => within(REFRESH_MS_MAX, cluster.refreshMetadata()),
    refreshWhenOld: () => within(REFRESH_MS_MAX, cluster.refreshMetadataIfNecessary()),
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
      await within(REFRESH_MS_MAX, cluster.refreshMetadataIfNecessary())
      const found = partitions(topic).find(({ partitionId }) => partitionId === partition)
      if (found === undefined || found.leader < 0) throw unavailable(`Nobody leads ${topic}/${partition}.`)
      return cluster.findBroker({ nodeId: String(found.leader) })
    })
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
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, CLOSE_MS_MAX)
    })
    await Promise.race([cluster.disconnect().catch(() => {}), late])
    clearTimeout(timer)
    for (const socket of sockets) socket.destroy()
  }
}

/** Resolves when the work has ended, however, or after so long. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const over = new AbortController()
  const late = pause(ms, undefined, { signal: over.signal }).catch(() => {})
  await Promise.race([work.catch(() => {}), late])
  over.abort()
}

async function translated<Result>(doing: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    throw translateKafkaError(error, doing)
  }
}

const LOADING = new Set(['GROUP_LOAD_IN_PROGRESS', 'GROUP_COORDINATOR_NOT_AVAILABLE', 'NOT_COORDINATOR_FOR_GROUP'])
const LOADING_MS_MAX = 5_000
const LOADING_PAUSE_MS = 100

/** Asks again for a while whom a broker that was just started has not made its coordinator yet. */
export async function onceLoaded<Result>(ask: () => Promise<Result>): Promise<Result> {
  const until = performance.now() + LOADING_MS_MAX
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!LOADING.has(kafkaErrorType(error) ?? '') || performance.now() > until) throw error
      await pause(LOADING_PAUSE_MS)
    }
  }
}

/** Kafka's own name of an error, such as NOT_LEADER_FOR_PARTITION; null when it is not Kafka that answered. */
export function kafkaErrorType(error: unknown): string | null {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('type' in at && typeof at.type === 'string') return at.type
  }
  return null
}

/** What no retry mends: an operator must act. */
const OPERATOR_MUST_ACT: Readonly<Record<string, string>> = {
  TOPIC_AUTHORIZATION_FAILED:
    'Kafka does not let this user use the topic; grant it READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS and DELETE.',
  GROUP_AUTHORIZATION_FAILED: 'Kafka does not let this user use the consumer group; grant it READ.',
  CLUSTER_AUTHORIZATION_FAILED: 'Kafka does not let this user write idempotently or create topics; grant it.',
  SASL_AUTHENTICATION_FAILED: 'Kafka refuses SURGETANK_KAFKA_USER or its password.',
  UNSUPPORTED_SASL_MECHANISM: 'Kafka does not offer the mechanism of SURGETANK_KAFKA_SASL.',
  MESSAGE_TOO_LARGE: "A batch is larger than the topic's max.message.bytes; raise it to 8388608.",
  RECORD_LIST_TOO_LARGE: "A batch is larger than the topic's segment.bytes; raise it.",
  INVALID_TOPIC_EXCEPTION: 'SURGETANK_KAFKA_TOPIC is no name of a topic.',
  POLICY_VIOLATION: 'A policy of the Kafka cluster forbids it.',
  UNSUPPORTED_VERSION: 'This Kafka is too old; run 3.0 or newer.',
}

export function translateKafkaError(error: unknown, doing: string): SurgetankError {
  if (error instanceof SurgetankError) return error
  const type = kafkaErrorType(error)
  const message = error instanceof Error ? error.message : String(error)
  const act = type === null ? undefined : OPERATOR_MUST_ACT[type]
  if (act !== undefined) return new SurgetankError('log_misconfigured', `${act} (${doing}: ${type})`, error)
  if (isNamed(error, 'KafkaJSSASLAuthenticationError')) {
    const advice = 'Kafka refuses SURGETANK_KAFKA_SASL, SURGETANK_KAFKA_USER or its password.'
    return new SurgetankError('log_misconfigured', `${advice} (${message})`, error)
  }
  const code = systemCodeOf(error)
  if (UNTRUSTED.has(code ?? '')) {
    const advice = "Kafka's certificate is not trusted; set SURGETANK_KAFKA_CA to the one that vouches for it."
    return new SurgetankError('log_misconfigured', `${advice} (${code})`, error)
  }
  return unavailable(`Kafka, ${doing}: ${type ?? message}.`, error)
}

const UNTRUSTED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'CERT_HAS_EXPIRED',
])

function systemCodeOf(error: unknown): string | null {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') return at.code
  }
  return null
}

function isNamed(error: unknown, name: string): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (at.name === name) return true
  return false
}

export function unavailable(detail: string, cause?: unknown): SurgetankError {
  return new SurgetankError('log_unavailable', detail, cause)
}

interface RequestQueueInside {
  scheduleCheckPendingRequests(): void
  readonly pending: readonly unknown[]
  throttleCheckTimeoutId: NodeJS.Timeout | null
  readonly throttledUntil: number
  checkPendingRequests(): void
}

interface ConnectionInside {
  isConnected(): boolean
  connect(): Promise<unknown>
}

interface ConnectionPoolInside {
  readonly pool: readonly ConnectionInside[]
  getConnection(index?: number): Promise<ConnectionInside>
}

let isMended = false

/** Faults of kafkajs 2.2.4 that go by, once for the process. */
function mendKafkajs(): void {
  if (isMended) return
  isMended = true
  if (version !== '2.2.4') throw new Error(`kafkajs ${version} is here, and these internals are those of 2.2.4.`)
  RequestQueue.prototype.scheduleCheckPendingRequests = checkWhenThrottled
  ConnectionPool.prototype.getConnection = connectOnce
  for (const number of [0, 1, 2, 3, 4, 5, 6]) takePartitionsWithoutLeader(number)
}

/**
 * Each connection runs a timer of 1 ms for ever, a percent of a core each (kafkajs issues 1556, 1751). It is needed only while
 * something waits for a throttle to end.
 */
function checkWhenThrottled(this: RequestQueueInside): void {
  if (this.throttleCheckTimeoutId !== null) return
  const waitMs = this.throttledUntil - Date.now()
  if (waitMs <= 0 && this.pending.length === 0) return
  const check = () => {
    this.throttleCheckTimeoutId = null
    this.checkPendingRequests()
  }
  this.throttleCheckTimeoutId = setTimeout(check, waitMs > 0 ? waitMs : 10)
}

interface MetadataAnswer {
  readonly topicMetadata: readonly { readonly partitionMetadata: { partitionErrorCode: number; leader: number }[] }[]
}

const LEADER_NOT_AVAILABLE = 5
const REPLICA_NOT_AVAILABLE = 9

/**
 * A partition that nobody leads makes kafkajs throw the whole answer away, with what it says of all others. Taken as it is: a
 * partition whose leader is -1.
 */
function takePartitionsWithoutLeader(number: number): void {
  const response = require(`kafkajs/src/protocol/requests/metadata/v${number}/response`) as {
    parse(answer: MetadataAnswer): Promise<unknown>
  }
  const { parse } = response
  response.parse = answer => {
    for (const partition of answer.topicMetadata.flatMap(({ partitionMetadata }) => partitionMetadata)) {
      const { partitionErrorCode: code } = partition
      if (code === LEADER_NOT_AVAILABLE) partition.leader = -1
      if (code === LEADER_NOT_AVAILABLE || code === REPLICA_NOT_AVAILABLE) partition.partitionErrorCode = 0
    }
    return parse(answer)
  }
}

const connecting = new WeakMap<ConnectionInside, Promise<unknown>>()

/** Requests that meet while a connection is being made would open a socket each, of which all but the last are lost. */
async function connectOnce(this: ConnectionPoolInside, index = 0): Promise<ConnectionInside> {
  const connection = this.pool[index] as ConnectionInside
  if (connection.isConnected()) return connection
  const underWay = connecting.get(connection) ?? connection.connect().finally(() => connecting.delete(connection))
  connecting.set(connection, underWay)
  await underWay
  return connection
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
