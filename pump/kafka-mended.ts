/**
 * Faults of kafkajs 2.2.4, mended once for the process: its maintainers have not released since 2023. What is mended are its
 * internals, so another version is refused.
 */
import { createRequire } from 'node:module'
import type { Socket } from 'node:net'

const require = createRequire(import.meta.url)
const { version } = require('kafkajs/package.json') as { version: string }
const RequestQueue = require('kafkajs/src/network/requestQueue') as { prototype: RequestQueueInside }
const ConnectionPool = require('kafkajs/src/network/connectionPool') as { prototype: ConnectionPoolInside }
const SaslAuthenticator = require('kafkajs/src/broker/saslAuthenticator') as { prototype: SaslAuthenticatorInside }

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
  socket?: Socket
  chunks: Buffer[]
  bytesBuffered: number
  bytesNeeded: number
}

interface ConnectionPoolInside {
  readonly pool: readonly ConnectionInside[]
  getConnection(index?: number): Promise<ConnectionInside>
}

interface SaslAuthenticatorInside {
  connection: { send(request: unknown): Promise<unknown> }
  authenticate(): Promise<void>
}

let isMended = false

export function mendKafkajs(): void {
  if (isMended) return
  isMended = true
  if (version !== '2.2.4') throw new Error(`kafkajs ${version} is here, and these internals are those of 2.2.4.`)
  RequestQueue.prototype.scheduleCheckPendingRequests = checkWhenThrottled
  ConnectionPool.prototype.getConnection = connectOnce
  SaslAuthenticator.prototype.authenticate = authenticateOrSayWhyNot
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
  const underWay = connecting.get(connection) ?? connectAfresh(connection).finally(() => connecting.delete(connection))
  connecting.set(connection, underWay)
  await underWay
  return connection
}

/** The length that an answer begins with. */
const LENGTH_BYTES = 4

/**
 * What the last socket left of an answer, or still brings, would be taken for the beginning of the next one's: the connection
 * would be out of step for ever, and hold more and more of what it takes for one answer.
 */
function connectAfresh(connection: ConnectionInside): Promise<unknown> {
  connection.socket?.destroy()
  connection.chunks = []
  connection.bytesBuffered = 0
  connection.bytesNeeded = LENGTH_BYTES
  return connection.connect()
}

const { authenticate } = SaslAuthenticator.prototype

/**
 * Whatever goes wrong while a user is proved is the same error, with no cause: a connection that breaks looks like a wrong
 * password. Rejects with what the request itself rejected with.
 */
async function authenticateOrSayWhyNot(this: SaslAuthenticatorInside): Promise<void> {
  const { connection } = this
  let why: unknown
  const send = (request: unknown) =>
    connection.send(request).catch((error: unknown) => {
      why = error
      throw error
    })
  this.connection = Object.create(connection, { send: { value: send } }) as typeof connection
  await authenticate.call(this).catch((error: unknown) => {
    throw why ?? error
  })
}
