/**
 * The broker, the messaging grid, and the door of this folder: who may connect, what they may publish, when they get their
 * PUBACK.
 *
 * What it promises:
 * - PUBACK and PUBREC are written only for messages that ingest called durable [G1], in order of arrival per connection.
 * - What was accepted is never shed [G5]. Bounded are: connections, connects per address, packet size, messages in flight per
 *   connection (to the message) and in all (ingest's pressure); at a bound a socket is read more slowly, and only peers that
 *   break MQTT, claim too much or never read are closed. QoS 0 never waits, and is dropped and counted under pressure.
 * - Bad topics and statuses are refused through ingest, kept with their reason, and acknowledged.
 * - It takes every user name: there is no authentication yet, so it listens on 127.0.0.1 unless the operator says that
 *   every peer is trusted [G6].
 * - A client is served by one connection at a time, also where several brokers share a space (`takeover.ts`).
 * - Of a client that connects with clean=0 its session is kept where there is a store for it (`client-sessions.ts`).
 *
 * Not promised: nothing is retained, queued or fanned out; MQTT 5 is refused with reason code 0x84, in a form that a client of
 * MQTT 5 can read.
 */
import { type EventEmitter, once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { Aedes, type Client } from 'aedes'
import type { Logger } from 'pino'
import { cannotListen } from '../errors.ts'
import type { Ingest, IngestEvents } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import { isDeviceId } from '../model/ids.ts'
import { LIMITS } from '../model/limits.ts'
import type { SessionStore } from '../sessions/sessions.ts'
import type { Settings } from '../settings.ts'
import type { Sessions, Space, Whose } from '../space/space.ts'
import { within } from '../within.ts'
import { openAcknowledger } from './acknowledge.ts'
import { type AdmissionOptions, openAdmission } from './admission.ts'
import {
  attach,
  connectionOf,
  judgeTopicsHere,
  keepAwake,
  keepHalfOpen,
  onFilterPackets,
  readOn,
} from './aedes-internals.ts'
import { openClientSessions } from './client-sessions.ts'
import { judgeConnect } from './connect-frame.ts'
import { openConnectRate } from './connect-rate.ts'
import { AEDES_CONNECT_MS, openConnectTime } from './connect-time.ts'
import { Connection, type Held, shownClient } from './connection.ts'
import { endConnection } from './end-connection.ts'
import { openFlow } from './flow.ts'
import { FrameGate } from './frame-gate.ts'
import { openHalfOpen } from './half-open.ts'
import { openPresence } from './presence.ts'
import { openPublishing, type Publishing } from './publish.ts'
import { openSampledLog } from './sampled-log.ts'
import { openTakeover } from './takeover.ts'
import { openWillMemory } from './will-memory.ts'

/** What ingest hands back to be acknowledged; null stands for a message of QoS 0. */
export type { Held } from './connection.ts'

export interface BrokerOptions {
  /**
   * Opens the ingest that this broker feeds. Called once, before the port is open. `settled` takes everything in order of
   * arrival; both events may be called at any time, also from within `offer`.
   */
  readonly openIngest: (events: IngestEvents<Held | null>) => Ingest<Held | null> | Promise<Ingest<Held | null>>
  readonly space: Pick<Space, 'mergePresence'>
  /** Null where this is the only broker. */
  readonly sessions: Sessions | null
  /** What is kept of clients that connect with clean=0; null where nothing is. */
  readonly sessionStore: SessionStore | null
  readonly settings: Pick<
    Settings,
    | 'SURGETANK_LISTEN'
    | 'SURGETANK_MQTT_PORT'
    | 'SURGETANK_INFLIGHT_PER_CLIENT'
    | 'SURGETANK_CONNECTIONS_MAX'
    | 'SURGETANK_DEVICES_MAX'
  >
  /** ms since 1970 UTC. */
  readonly clock: () => number
  readonly log: Logger
}

export interface Broker {
  /** The port that it listens on, also when the setting was 0. */
  readonly port: number
  /** Sockets open, connected or not yet. */
  readonly connections: number
  /**
   * The first half of the end: no new connection and no further message enters. Acknowledgements are still written, so the
   * caller drains ingest next. At once; calling it again is harmless.
   */
  stopReading(): void
  /**
   * The second half: writes out what is acknowledged, ends every connection, and tells the space that their devices are
   * offline. Within three seconds, whatever the peers and the space do.
   */
  close(): Promise<void>
}

/** A fleet that reconnects at once fills the accept queue; the kernel's own limit (somaxconn) may be lower. */
const BACKLOG = 4096
/** A peer that does not read what Aedes answers: PINGRESP, SUBACK. */
const UNREAD_MS_MAX = 10_000
const CLOSE_STEP_MS_MAX = 1_000

/** Opens the broker. Rejects as `cannotListen` says. */
export async function openBroker(options: BrokerOptions): Promise<Broker> {
  const { settings, clock, space } = options
  const log = openSampledLog(options.log, clock)
  const connections = new Set<Connection>()
  const flow = openFlow(settings.SURGETANK_INFLIGHT_PER_CLIENT)
  const rate = openConnectRate(settings.SURGETANK_CONNECTIONS_MAX, clock)
  const halfOpen = openHalfOpen()
  const disown = (device: string) => options.sessions?.disown(device)
  const presence = openPresence({ space, devicesMax: settings.SURGETANK_DEVICES_MAX, clock, disown, log })
  const acknowledger = openAcknowledger({
    clock,
    released,
    notReading: connection => refuse(connection, 'not_reading'),
  })
  const ingest = await options.openIngest({
    settled: acknowledger.settled,
    pressureChanged: flow.pressureChanged,
  })
  const clientSessions = openClientSessions({
    store: options.sessionStore,
    ingest,
    complete: acknowledger.complete,
    released: halfOpen.released,
    violated: refuse,
    log,
  })
  const publishing = openPublishing({
    ingest,
    sessions: clientSessions,
    acknowledger,
    presence,
    floodgate: flow.floodgate,
    clock,
    violated: refuse,
  })
  const { sessions } = options
  const takeover = openTakeover({ sessions, ingest, serves: holdOwn, lost, clock, log })
  /** Connections that have ended, until it is known whose their clients are: for a second or two. */
  const ending = new Set<Promise<void>>()
  const wills = openWillMemory()
  const admission = { takeover, sessions: clientSessions, wills, refused: refuseConnect, log }
  const aedes = await openAedes(publishing, admission)
  aedes.on('clientReady', welcome)
  aedes.on('subscribe', (_, client) => answered(connectionOf(client)))
  aedes.on('unsubscribe', (_, client) => answered(connectionOf(client)))
  aedes.on('clientError', failed)
  aedes.on('connectionError', failed)
  aedes.on('keepaliveTimeout', client => countRefusal(connectionOf(client), 'keepalive'))
  // A listener must be there: without one an error of Aedes' own, such as a will that it may not publish, would end the process.
  const emitter: EventEmitter = aedes
  emitter.on('error', error => log.warn('broker error', { err: error }))

  const server = createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000, allowHalfOpen: true },
    accept,
  )
  server.maxConnections = settings.SURGETANK_CONNECTIONS_MAX
  server.on('drop', () => countRefusal(null, 'too_many_connections'))
  const port = await listen(server, settings.SURGETANK_LISTEN, settings.SURGETANK_MQTT_PORT).catch(async error => {
    await closeAedes(aedes)
    throw error
  })
  // Without file descriptors a connection cannot be accepted; that must not end the process.
  server.on('error', error => log.warn('listener error', { err: error }))
  const ticking = setInterval(tick, 1_000)
  let closing: Promise<void> | null = null

  return {
    port,
    get connections() {
      return connections.size
    },
    stopReading,
    close: () => {
      closing ??= close()
      return closing
    },
  }

  function accept(socket: Socket): void {
    if (!rate.take(socket.remoteAddress ?? '')) {
      countRefusal(null, 'connect_rate')
      socket.destroy()
      return
    }
    const connection = new Connection(socket)
    connections.add(connection)
    const client = aedes.handle(socket)
    connection.client = client
    const connectIsHere = openConnectTime(() => refuse(connection, 'protocol', 'connect did not arrive in time'))
    connection.gate = new FrameGate(socket, flow.floodgate, connection.topics, {
      refuse: (fault, detail) => refuse(connection, fault, detail),
      connect: packet => {
        const mayPass = mayConnect(connection, packet)
        // One that is refused with an answer has as long to close.
        if (mayPass) connectIsHere()
        return mayPass
      },
      waits: () => flow.waits(connection),
      heard: () => keepAwake(client),
      take: (known, frame, payload) => publishing.takeKnown(connection, known, frame, payload),
      takeOversized: frame => publishing.takeOversized(connection, frame),
      release: packet => publishing.release(connection, packet),
      readAgain: () => queueMicrotask(() => readOn(client)),
    })
    attach(client, connection)
    onFilterPackets(client, {
      came: () => connection.answersOwed++,
      unsubscribed: filter => clientSessions.unsubscribe(connection, filter),
    })
    keepHalfOpen(client)
    socket.once('end', () => halfOpen.peerEnded(connection))
    socket.once('close', () => {
      connectIsHere()
      ended(connection)
    })
  }

  /** False: it is refused, with an answer where its client can read one, and closed. */
  function mayConnect(connection: Connection, packet: Buffer): boolean {
    const { clientId, refusal } = judgeConnect(packet)
    connection.claimedId = clientId
    connection.answersOwed++
    if (refusal === null) return true
    const { reason, detail, answer } = refusal
    if (answer === null) refuse(connection, reason, detail)
    else {
      countRefusal(connection, reason, detail)
      connection.socket.write(answer)
      // Never from within a read of the gate.
      setImmediate(() => void endConnection(connection))
    }
    return false
  }

  /** After CONNACK. */
  function welcome(client: Client): void {
    const connection = connectionOf(client)
    if (!connections.has(connection)) return
    connection.connected = true
    connection.gate?.connected()
    metrics.clients.inc()
    holdOwn(connection, client.id)
    answered(connection)
  }

  /** Aedes has written what it owed. */
  function answered(connection: Connection): void {
    connection.answersOwed--
    halfOpen.released(connection)
  }

  /** Of a device that the space does not know yet it remembers this until the first reading, or until it is rebuilt. */
  function holdOwn(connection: Connection, client: string): void {
    if (isDeviceId(client)) presence.hold(connection, client, false)
  }

  function lost(client: string, at: number): void {
    if (isDeviceId(client)) presence.lost(client, at)
  }

  function ended(connection: Connection): void {
    connections.delete(connection)
    connection.gate?.ended()
    connection.endedAt = clock()
    flow.ended(connection)
    clientSessions.ended(connection)
    wills.ended(connection)
    if (connection.connected) metrics.clients.dec()
    const tell = (whose: Whose) => presence.ended(connection, whose)
    const end = takeover.ended(connection, tell).then(() => void ending.delete(end))
    ending.add(end)
  }

  function released(connection: Connection): void {
    flow.released(connection)
    halfOpen.released(connection)
  }

  /** A guard of ours closes the connection. */
  function refuse(connection: Connection, reason: string, detail?: string): void {
    countRefusal(connection, reason, detail)
    connection.socket.destroy()
  }

  /** Aedes will answer the CONNECT with a return code, and close. */
  function refuseConnect(client: Client, reason: string): void {
    countRefusal(connectionOf(client), reason)
  }

  function failed(client: Client, error: Error): void {
    const connection = connectionOf(client)
    // A code is the system's: the peer went away, and nobody refused it.
    if ('code' in error) log.debug('connection lost', { client: shownClient(connection), error: error.message })
    else countRefusal(connection, 'protocol', error.message)
  }

  function countRefusal(connection: Connection | null, reason: string, detail?: string): void {
    if (connection?.refused) return
    if (connection !== null) connection.refused = true
    metrics.refusedConnections.inc({ reason })
    log.warn('connection refused', { reason, client: shownClient(connection), detail })
  }

  function tick(): void {
    flow.keepWaitingAwake(connections)
    publishing.count()
    rate.tick()
    log.tick()
    presence.tick()
  }

  function stopReading(): void {
    flow.stop()
    server.close()
  }

  async function close(): Promise<void> {
    stopReading()
    const ends = [...connections].map(endConnection)
    await within(CLOSE_STEP_MS_MAX, Promise.all(ends))
    for (const { socket } of connections) socket.destroy()
    await within(
      CLOSE_STEP_MS_MAX,
      closeAedes(aedes).then(() => Promise.all(ending)),
    )
    await within(CLOSE_STEP_MS_MAX, presence.flush())
    clearInterval(ticking)
    publishing.close()
  }
}

async function openAedes(publishing: Publishing, admission: AdmissionOptions): Promise<Aedes> {
  const aedes = await Aedes.createBroker({
    ...openAdmission(admission),
    authorizePublish: publishing.authorizePublish,
    connectTimeout: AEDES_CONNECT_MS,
    drainTimeout: UNREAD_MS_MAX,
    // MQTT 3.1 says 23 characters; ids of every version are bounded in `preConnect`.
    maxClientsIdLength: LIMITS.clientIdBytesMax,
  })
  judgeTopicsHere(aedes)
  return aedes
}

function closeAedes(aedes: Aedes): Promise<void> {
  return new Promise(resolve => aedes.close(resolve))
}

async function listen(server: Server, host: string, port: number): Promise<number> {
  server.listen({ host, port, backlog: BACKLOG })
  try {
    await once(server, 'listening')
  } catch (error) {
    throw cannotListen('MQTT', host, port, error)
  }
  return (server.address() as AddressInfo).port
}
