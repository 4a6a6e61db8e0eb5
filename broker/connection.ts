/**
 * One connection, from accept to close, and one message of it that is not acknowledged yet. Hot value shapes: one object per
 * socket and one per message, plain fields, no closures.
 */
import type { Socket } from 'node:net'
import type { AuthErrorCode, Client } from 'aedes'
import { shownName } from '../shown-text.ts'
import type { ClientSession } from './client-sessions.ts'
import type { FrameGate } from './frame-gate.ts'
import type { Opened } from './open-messages.ts'
import { KnownTopics } from './publish-frame.ts'

/** A message handed to ingest, and what it takes to acknowledge it. */
export class Held {
  readonly connection: Connection
  /** PUBACK 0x40 or PUBREC 0x50: the first byte of the acknowledgement. */
  readonly answer: number
  readonly messageId: number
  readonly receivedAt: number
  /** A message after this one that needs no ingest but must not be acknowledged before it [MQTT-4.6.0-2]. */
  follower: Held | null = null
  /** Of a QoS 2 message that was not open before. */
  opened: Opened | null = null

  constructor(connection: Connection, answer: number, messageId: number, receivedAt: number) {
    this.connection = connection
    this.answer = answer
    this.messageId = messageId
    this.receivedAt = receivedAt
  }
}

/** The client id for a log line; null while there is none. */
export function shownClient(connection: Connection | null): string | null {
  const id = connection?.client?.id ?? connection?.claimedId ?? null
  return id === null ? null : shownName(id)
}

const NUMBER_MAX = 0xffff
let lastNumber = 0

/** Connections are numbered in turn, so that ingest can tell them apart: 1 to 65,535, and from 1 again. */
function nextNumber(): number {
  lastNumber = (lastNumber % NUMBER_MAX) + 1
  return lastNumber
}

export class Connection {
  readonly number: number = nextNumber()
  readonly socket: Socket
  /** Set once, right after the socket was handed to Aedes and the gate was put before it. */
  client: Client | null = null
  gate: FrameGate | null = null
  /** The client id that its CONNECT gives, as the client wrote it; null before. */
  claimedId: string | null = null
  /** The return code that refuses this CONNECT; 0 lets it in [MQTT 3.1.1, 3.2.2.3]. */
  refusal: 0 | AuthErrorCode = 0
  /** Its CONNECT says clean=1: nothing is kept of it [MQTT-3.1.2-6]. */
  clean = true
  /** The server made up its client id: nobody else can have the same. */
  anonymous = false
  /** What its will takes of the sum that all wills share, bytes. */
  willBytesShared = 0
  /** True when a guard of ours closed it, so that what Aedes says about that is not counted again. */
  refused = false
  /** True from CONNACK on. */
  connected = false
  /** Answers that Aedes owes it: CONNACK, SUBACK, UNSUBACK. */
  answersOwed = 0
  /** True when the peer has ended its half, and everything that it sent was read. */
  peerEnded = false

  /** The client id whose session this broker took for it; null while, or where, there is none to take. */
  session: string | null = null
  /** Another broker serves the client now. */
  taken = false
  /**
   * Leaves what is kept of the client, once nothing of the connection is on its way into the log any more. Called once when it
   * ends or is taken over, here or by another broker, and awaited for a second at most before the client is served anew. Must
   * be set no later than in the turn of the event loop in which `admit` said `serve`. Must not reject.
   */
  leaving: (() => Promise<void>) | null = null
  /** Resolves when it has settled and left, with false when something of it may still become durable. */
  left: Promise<boolean> | null = null
  /** When it ended, ms since 1970 UTC. */
  endedAt = 0
  /** Called once nothing of it is on its way into the log any more; set by whoever waits for that. */
  settled: (() => void) | null = null

  /** It has sent a message with DUP=1. */
  marksDup = false
  /** Telemetry topics that it published to, and what they mean. */
  readonly topics = new KnownTopics()
  /** The newest message that is not acknowledged. */
  newest: Held | null = null

  /** Of the commit at hand: how many acknowledgements are due, and their bytes. */
  due = 0
  acks: Buffer | null = null
  acksLength = 0

  /** Devices that this connection holds online; true once the space was known to have the device. */
  readonly devices = new Map<string, boolean>()
  /** The newest time at which it said of any device that it is online, ms since 1970 UTC. */
  onlineAt = 0
  /** Filters granted, with their QoS; those of a session that was kept, too. */
  readonly subscriptions = new Map<string, 0 | 1 | 2>()
  /** Its QoS 2 messages and what is kept of its client; null while there is nothing to say. */
  own: ClientSession | null = null

  constructor(socket: Socket) {
    this.socket = socket
  }
}
