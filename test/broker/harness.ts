/**
 * What the tests of this folder share: a broker on a free port over an ingest that the test drives by hand, so that it says
 * when a message is durable, a space that only keeps presence, and a client that speaks raw MQTT.
 */
import { once } from 'node:events'
import { connect as connectSocket, type Socket } from 'node:net'
import * as mqtt from 'mqtt-packet'
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import { type Broker, type Held, openBroker } from '../../broker/broker.ts'
import type { FoundMark, Ingest, IngestEvents, Publish } from '../../ingest/ingest.ts'
import type { DeviceState, Presence } from '../../model/device-state.ts'
import type { SessionStore } from '../../sessions/sessions.ts'
import type { Sessions } from '../../space/space.ts'

type Offered = Publish<Held | null> & { readonly reason?: string; readonly detail?: string }

/** An ingest whose commits the test makes: nothing is durable before `settle`. */
export interface HandIngest extends Ingest<Held | null> {
  readonly offered: Offered[]
  /** Messages that the broker let go, by reason. */
  readonly gone: Record<string, number>
  /** QoS 2 messages that came again while they were open. */
  readonly repeated: Offered[]
  /** What the log was found to hold. */
  marks: FoundMark[]
  /** Called with each message when it is offered. */
  onOffer: (publish: Offered) => void
  /** Makes the oldest `count` held messages durable; all when not given. */
  settle(count?: number): void
  /** Acknowledges the oldest held message this often, and keeps it. */
  settleOverAndOver(times: number): void
  press(pressure: boolean): void
  /** As if the log took nothing. */
  stalled: boolean
  /** How often the broker asked what others made durable; `catchingUp` is what it got. */
  catchUps: number
  catchingUp: () => Promise<void>
}

export interface HandSpace {
  readonly known: Set<string>
  /** Set to an error to make the space be away. */
  away: Error | null
  readonly changes: Presence[]
  /** What the space would hold: the newest change, by `at`; at the same `at`, offline. */
  online(device: string): boolean | undefined
  get(device: string): Promise<DeviceState | null>
  mergePresence(changes: readonly Presence[]): Promise<void>
}

export interface Bench {
  readonly broker: Broker
  readonly ingest: HandIngest
  readonly space: HandSpace
  /** Log lines written so far. */
  readonly lines: string[]
  /** Sets the clock; it moves with the real one until the first call. */
  setClock(ms: number): void
}

export interface BenchOptions {
  readonly inFlightPerClient?: number
  readonly connectionsMax?: number
  readonly devicesMax?: number
  readonly port?: number
  readonly listen?: string
  readonly sessions?: Sessions
  readonly sessionStore?: SessionStore
  /** Shared by brokers of one test. */
  readonly space?: HandSpace
  /** Takes the lines of the log, for a broker that does not open. */
  readonly lines?: string[]
}

/** Opens a broker that is closed when the test ends. */
export async function openBench(options: BenchOptions = {}): Promise<Bench> {
  const ingest = openHandIngest()
  const space = options.space ?? openHandSpace()
  const lines = options.lines ?? []
  let fixed: number | null = null
  const broker = await openBroker({
    openIngest: events => ingest.connect(events),
    space,
    sessions: options.sessions ?? null,
    sessionStore: options.sessionStore ?? null,
    settings: {
      SURGETANK_LISTEN: options.listen ?? '127.0.0.1',
      SURGETANK_MQTT_PORT: options.port ?? 0,
      SURGETANK_INFLIGHT_PER_CLIENT: options.inFlightPerClient ?? 256,
      SURGETANK_CONNECTIONS_MAX: options.connectionsMax ?? 10_000,
      SURGETANK_DEVICES_MAX: options.devicesMax ?? 100_000,
    },
    clock: () => fixed ?? Date.now(),
    log: pino({ level: 'debug' }, { write: line => void lines.push(line) }),
  })
  onTestFinished(() => broker.close())
  return {
    broker,
    ingest,
    space,
    lines,
    setClock: ms => {
      fixed = ms
    },
  }
}

export function openHandIngest(): HandIngest & { connect(events: IngestEvents<Held | null>): HandIngest } {
  const waiting: (Held | null)[] = []
  let events: IngestEvents<Held | null> | null = null
  let pressed = false
  const ingest = {
    offered: [] as Offered[],
    gone: {} as Record<string, number>,
    repeated: [] as Offered[],
    marks: [] as FoundMark[],
    marksOf: (life: string) => ingest.marks.filter(mark => mark.before === life || mark.life === life),
    offerRepeated(publish: Offered) {
      ingest.repeated.push(publish)
      waiting.push(publish.held)
    },
    letGo(reason: string, messages: number) {
      ingest.gone[reason] = (ingest.gone[reason] ?? 0) + messages
    },
    onOffer: (_publish: Offered): void => undefined,
    stalled: false,
    get pressure() {
      return pressed
    },
    oldestHeldAt: null,
    heldBytes: 0,
    get held() {
      return waiting.length
    },
    offer(publish: Offered) {
      ingest.offered.push(publish)
      waiting.push(publish.held)
      ingest.onOffer(publish)
    },
    offerRefused: (publish: Offered, reason: string, detail: string) => ingest.offer({ ...publish, reason, detail }),
    settle: (count = waiting.length) => events?.settled(waiting.splice(0, count)),
    settleOverAndOver: (times: number) => events?.settled(new Array(times).fill(waiting[0] ?? null)),
    press(pressure: boolean) {
      pressed = pressure
      events?.pressureChanged(pressure)
    },
    catchUps: 0,
    catchingUp: async (): Promise<void> => {},
    catchUp() {
      ingest.catchUps++
      return ingest.catchingUp()
    },
    drain: async () => ingest.settle(),
    connect(broker: IngestEvents<Held | null>) {
      events = broker
      return ingest
    },
  }
  return ingest
}

/** Sessions of several brokers; the test says when a take is through. */
export interface HandSessions {
  /** Of one more broker. */
  broker(): Sessions
  /** Each take waits for it, after the broker that had the session was told. */
  gate: Promise<void>
  /** True: the broker that had the session is not told. */
  isUnheard: boolean
  /** Client and broker, by the order in which the brokers were opened; null: nobody serves it. */
  holder(client: string): number | null
  readonly takes: string[]
  readonly releases: string[]
  /** As if the space was emptied. */
  forget(client: string): void
  /** Devices that a broker was to say no more of. */
  readonly disowned: string[]
}

export function openHandSessions(): HandSessions {
  const holders = new Map<string, number>()
  const told: ((client: string) => Promise<boolean>)[] = []
  const sessions: HandSessions = {
    gate: Promise.resolve(),
    isUnheard: false,
    takes: [],
    releases: [],
    disowned: [],
    holder: client => holders.get(client) ?? null,
    forget: client => void holders.delete(client),
    broker() {
      const own = told.push(async () => true) - 1
      return {
        async take(client) {
          sessions.takes.push(client)
          const before = holders.get(client)
          holders.set(client, own)
          const moved = before !== undefined && before !== own
          const settled = !moved || (!sessions.isUnheard && (await told[before]?.(client)) === true)
          await sessions.gate
          return { moved, settled }
        },
        async release(client) {
          sessions.releases.push(client)
          const holder = holders.get(client)
          if (holder === own) holders.delete(client)
          return holder === undefined ? 'unknown' : holder === own ? 'ours' : 'theirs'
        },
        disown: device => void sessions.disowned.push(device),
        onTaken(taken) {
          told[own] = taken
        },
      }
    },
  }
  return sessions
}

export function openHandSpace(): HandSpace {
  const newest = new Map<string, Presence>()
  const space: HandSpace = {
    known: new Set(),
    away: null,
    changes: [],
    online: device => newest.get(device)?.online,
    get: async device => (space.known.has(device) ? { device, online: false, lastSeen: 0, metrics: [] } : null),
    async mergePresence(changes) {
      if (space.away !== null) throw space.away
      space.changes.push(...changes)
      for (const change of changes) {
        const held = newest.get(change.device)
        const newer = held === undefined || change.at > held.at || (change.at === held.at && !change.online)
        if (newer) newest.set(change.device, change)
      }
    },
  }
  return space
}

/** A client on a raw socket: it sends what it is told and keeps what it gets. */
export interface RawClient {
  readonly socket: Socket
  readonly received: mqtt.Packet[]
  send(packet: mqtt.Packet): void
  /** Resolves with the next packet that was not yet asked for. Rejects when the socket closes first. */
  next(): Promise<mqtt.Packet>
  /** Resolves when `count` packets were received in all. */
  count(count: number): Promise<void>
  /** Resolves when the broker has closed the connection. */
  readonly closed: Promise<void>
  /** Ends its half: the broker still answers what it owes. */
  close(): Promise<void>
  /** The line is lost at once. */
  reset(): Promise<void>
}

export async function openRaw(port: number): Promise<RawClient> {
  const socket = connectSocket({ host: '127.0.0.1', port, noDelay: true })
  const received: mqtt.Packet[] = []
  const parser = mqtt.parser()
  let taken = 0
  parser.on('packet', packet => {
    received.push(packet)
    socket.emit('mqtt')
  })
  socket.on('data', bytes => parser.parse(bytes))
  socket.on('error', () => undefined)
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return {
    socket,
    received,
    closed,
    send: packet => void socket.write(mqtt.generate(packet)),
    async next() {
      await count(taken + 1)
      const packet = received[taken++]
      if (packet === undefined) throw new Error('unreachable')
      return packet
    },
    count,
    async close() {
      socket.destroy()
      await closed
    },
    async reset() {
      socket.resetAndDestroy()
      await closed
    },
  }

  async function count(wanted: number): Promise<void> {
    while (received.length < wanted) {
      if (socket.destroyed) throw new Error(`closed after ${received.length} packets of ${wanted}`)
      await Promise.race([once(socket, 'mqtt'), closed])
    }
  }
}

/** A raw client that is connected; its CONNACK is taken. */
export async function openClient(port: number, connect: Partial<mqtt.IConnectPacket> = {}): Promise<RawClient> {
  const client = await openRaw(port)
  client.send(connectPacket(connect))
  const connack = await client.next()
  if (connack.cmd !== 'connack' || connack.returnCode !== 0) throw new Error(`refused: ${JSON.stringify(connack)}`)
  return client
}

export function connectPacket(connect: Partial<mqtt.IConnectPacket> = {}): mqtt.IConnectPacket {
  return {
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clean: true,
    clientId: 'press-17',
    keepalive: 60,
    ...connect,
  }
}

/** A reading of press-17, as QoS 1 with this identifier unless said otherwise. */
export function publishPacket(messageId: number, packet: Partial<mqtt.IPublishPacket> = {}): mqtt.IPublishPacket {
  return {
    cmd: 'publish',
    topic: 'devices/press-17/telemetry',
    payload: `{"n":${messageId}}`,
    qos: 1,
    dup: false,
    retain: false,
    messageId,
    ...packet,
  }
}

/** A round trip: what was sent before it has been read, and what was answered before it has arrived. */
export async function ping(client: RawClient): Promise<void> {
  const before = client.received.filter(packet => packet.cmd === 'pingresp').length
  client.send({ cmd: 'pingreq' })
  while (client.received.filter(packet => packet.cmd === 'pingresp').length === before) {
    await client.count(client.received.length + 1)
  }
}

/** Identifiers of the acknowledgements of this kind, in order of arrival. */
export function acknowledged(client: RawClient, cmd: 'puback' | 'pubrec' | 'pubcomp' = 'puback'): number[] {
  return client.received.filter(packet => packet.cmd === cmd).map(packet => packet.messageId ?? -1)
}
