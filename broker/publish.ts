/**
 * What happens to a PUBLISH. The first to a topic comes by Aedes' `authorizePublish` hook and the topic is understood; those
 * that follow come straight from the gate (`takeKnown`), the hot path. The message goes to ingest, and its acknowledgement
 * waits for `settled` [G1].
 *
 * Nothing is ever fanned out or retained: a retain flag is left unread. Bad data never closes a connection, or the device
 * would send it again for ever; only what breaks MQTT itself does.
 */
import type { AedesOptions, Client, PublishPacket } from 'aedes'
import type { Ingest, Publish } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import { LIMITS } from '../model/limits.ts'
import type { Acknowledger } from './acknowledge.ts'
import { connectionOf, leaveToUs } from './aedes-internals.ts'
import type { ClientSessions } from './client-sessions.ts'
import { type Connection, Held } from './connection.ts'
import type { Floodgate } from './frame-gate.ts'
import type { OversizedFrame } from './oversized-frame.ts'
import type { PresenceKeeper } from './presence.ts'
import type { KnownTopic, PublishFrame } from './publish-frame.ts'
import { keptTopic, parseStatus, parseTopic, type ReservedReason, refuseStatus } from './topics.ts'
import { openWills } from './wills.ts'

/** The first byte of PUBACK and of PUBREC [MQTT 3.1.1, 3.4 and 3.5]. */
const PUBACK = 0x40
const PUBREC = 0x50

export interface Publishing {
  readonly authorizePublish: NonNullable<AedesOptions['authorizePublish']>
  /** A message to a topic that `authorizePublish` has seen on this connection. */
  takeKnown(connection: Connection, known: KnownTopic, frame: PublishFrame, payload: Buffer): void
  /** A message that is too large, of which only the beginning was kept: quarantined with its size, and acknowledged. */
  takeOversized(connection: Connection, frame: OversizedFrame): void
  /**
   * The client has let go of a packet identifier of QoS 2 (PUBREL), known or not: PUBCOMP is written, in the order of these calls
   * [MQTT-4.3.3-2].
   */
  release(connection: Connection, packet: number): void
  /**
   * Every second: adds what was counted since the last call to the metrics, because a labelled counter is too dear per message;
   * and offers the wills that wait for room.
   */
  count(): void
  /** After the last connection has ended: as `count`, and no will is left. */
  close(): void
}

export interface PublishingOptions {
  readonly ingest: Ingest<Held | null>
  readonly acknowledger: Acknowledger
  readonly sessions: Pick<ClientSessions, 'open' | 'release'>
  readonly presence: PresenceKeeper
  readonly floodgate: Pick<Floodgate, 'shut'>
  readonly clock: () => number
  /** The client broke MQTT: must destroy its socket. */
  readonly violated: (connection: Connection, reason: string) => void
}

export function openPublishing(options: PublishingOptions): Publishing {
  const { ingest, acknowledger, sessions, presence, floodgate, clock, violated } = options
  const received = [0, 0, 0]
  /** By reason, of which there are a few. */
  const gone = new Map<string, number>()
  const wills = openWills({ ingest, presence, clock, received: countReceived, letGo })

  return { authorizePublish, takeKnown, takeOversized, release: sessions.release, count, close }

  function authorizePublish(client: Client | null, packet: PublishPacket, done: (error?: Error | null) => void): void {
    // Aedes gives a will without a type, and one that it swept up without a client.
    if (client === null || packet.cmd !== 'publish') {
      wills.take(client, packet, done)
      return
    }
    leaveToUs(client)
    const connection = connectionOf(client)
    // What the same bytes held after a violation or a DISCONNECT is not looked at [MQTT-3.14.4-2].
    if (connection.socket.destroyed) return
    if (packet.qos > 0 && !hasMessageId(packet)) {
      violated(connection, 'message_id')
      return
    }
    const { topic } = packet
    const route = parseTopic(topic)
    if (route.kind === 'reserved') {
      takeReserved(connection, route.reason, packet)
      return
    }
    const state = route.kind === 'status' ? parseStatus(packet.payload) : null
    if (route.kind === 'status' && state !== null) {
      countReceived(packet.qos)
      letGo('presence')
      takeStatus(connection, packet, route.device, state)
      return
    }
    const receivedAt = clock()
    const { qos, dup } = packet
    const messageId = qos === 0 ? 0 : (packet.messageId ?? 0)
    const held = admit(connection, qos, messageId, receivedAt)
    if (held === undefined) return
    const payload = packet.payload as Buffer
    const isNew = isOpened(held, topic, payload)
    const came = originOf(connection, { messageId, dup, held })
    if (route.kind !== 'telemetry') {
      const { device, reason, detail } = route.kind === 'status' ? refuseStatus(route.device) : route
      const kept = { device, metric: null, topic: keptTopic(topic), payload, receivedAt, held, ...came }
      if (isNew) ingest.offerRefused(kept, reason, detail)
      else ingest.offerRepeated(kept)
      return
    }
    const publish = { device: route.device, metric: route.metric, topic, payload, receivedAt, held, ...came }
    if (isNew) ingest.offer(publish)
    else ingest.offerRepeated(publish)
    connection.topics.add(topic, route)
    // After the offer, so that the space knows the device by now.
    presence.hold(connection, route.device, true)
  }

  function takeKnown(connection: Connection, { topic, route }: KnownTopic, frame: PublishFrame, payload: Buffer): void {
    const receivedAt = clock()
    const held = admit(connection, frame.qos, frame.messageId, receivedAt)
    if (held === undefined) return
    const { device, metric } = route
    const { number, marksDup } = connection
    const { messageId: packet, dup } = frame
    if (dup) connection.marksDup = true
    const isNew = frame.qos !== 2 || isOpened(held, topic, payload)
    const mark = frame.qos === 2 ? (held?.opened?.mark ?? null) : null
    // One literal, and no spread: this is the hot path.
    const publish = {
      device,
      metric,
      topic,
      payload,
      receivedAt,
      held,
      connection: number,
      packet,
      dup,
      marksDup,
      mark,
    }
    if (isNew) ingest.offer(publish)
    else ingest.offerRepeated(publish)
  }

  function takeOversized(connection: Connection, frame: OversizedFrame): void {
    const { topic, qos, dup, messageId, payload, payloadBytes } = frame
    const broken = brokenByOversized(frame, topic)
    if (broken !== null) {
      violated(connection, broken)
      return
    }
    const route = parseTopic(topic)
    if (route.kind === 'reserved') {
      takeReserved(connection, route.reason, frame)
      return
    }
    const receivedAt = clock()
    const held = admit(connection, qos, messageId, receivedAt)
    if (held === undefined) return
    const device = frame.isTopicWhole ? route.device : ''
    const isNew = isOpened(held, `${topic} ${payloadBytes}`, payload)
    const came = originOf(connection, { messageId, dup, held })
    const kept = { device, metric: null, topic, payload, payloadBytes, receivedAt, held, ...came }
    if (isNew) ingest.offerRefused(kept, 'packet_too_large', describeOversized(frame))
    else ingest.offerRepeated(kept)
  }

  /**
   * False for a QoS 2 message that is open: it rides through ingest as a repetition, behind its original, which gives it its
   * PUBREC when both are durable [MQTT-4.3.3-2].
   */
  function isOpened(held: Held | null, topic: string, payload: Buffer): boolean {
    if (held === null || held.answer !== PUBREC) return true
    held.opened = sessions.open(held.connection, held.messageId, topic, payload)
    return held.opened !== null
  }

  /** What acknowledges the message; null for QoS 0; undefined when it was dropped: QoS 0 never waits. */
  function admit(connection: Connection, qos: number, messageId: number, receivedAt: number): Held | null | undefined {
    countReceived(qos)
    if (qos === 0) {
      if (!floodgate.shut && !ingest.pressure && !ingest.stalled) return null
      letGo('qos0_overload')
      return undefined
    }
    const held = new Held(connection, qos === 1 ? PUBACK : PUBREC, messageId, receivedAt)
    connection.newest = held
    return held
  }

  /** Presence is of the moment and not in the log: it is acknowledged at once, but in order. */
  function takeStatus(
    connection: Connection,
    packet: PublishPacket,
    device: string,
    state: 'online' | 'offline',
  ): void {
    if (state === 'online') presence.hold(connection, device, false)
    else presence.release(connection, device)
    // A reading after this puts the device online again.
    connection.topics.clear()
    acknowledgeInOrder(connection, packet)
  }

  function takeReserved(connection: Connection, reason: ReservedReason, packet: Acknowledgeable): void {
    countReceived(packet.qos)
    letGo(reason)
    acknowledgeInOrder(connection, packet)
  }

  /** Of a message that needs no commit. */
  function acknowledgeInOrder(connection: Connection, { qos, messageId = 0 }: Acknowledgeable): void {
    if (qos > 0) acknowledger.afterEarlier(new Held(connection, qos === 1 ? PUBACK : PUBREC, messageId, clock()))
  }

  function countReceived(qos: number): void {
    received[qos] = (received[qos] ?? 0) + 1
  }

  function close(): void {
    wills.offerWaiting(true)
    count()
  }

  function count(): void {
    wills.offerWaiting(false)
    for (let qos = 0; qos < received.length; qos++) {
      metrics.received.inc({ qos: String(qos) }, received[qos])
      received[qos] = 0
    }
    for (const [reason, messages] of gone) {
      metrics.letGo.inc({ reason }, messages)
      ingest.letGo(reason, messages)
    }
    gone.clear()
  }

  function letGo(reason: string): void {
    gone.set(reason, (gone.get(reason) ?? 0) + 1)
  }
}

/** Why a client that sends this is closed, as it is when the message is smaller; null when it is not. */
function brokenByOversized({ qos, messageId }: OversizedFrame, topic: string): string | null {
  if (qos > 0 && messageId === 0) return 'message_id'
  return topic === '' || /[+#]/.test(topic) ? 'protocol' : null
}

function describeOversized({ packetBytes, payload }: OversizedFrame): string {
  return `A packet takes up to ${LIMITS.packetBytesMax} bytes; this one has ${packetBytes}. The first ${payload.length} bytes of its payload are kept.`
}

interface Acknowledgeable {
  readonly qos: number
  /** Of QoS 1 and 2. */
  readonly messageId?: number | undefined
}

type Came = Pick<Publish<unknown>, 'connection' | 'packet' | 'dup' | 'marksDup' | 'mark'>

interface Coming {
  readonly messageId: number
  readonly dup: boolean
  readonly held: Held | null
}

/** Where a message comes from, as ingest wants to know it. */
function originOf(connection: Connection, { messageId, dup, held }: Coming): Came {
  if (dup) connection.marksDup = true
  const { number, marksDup } = connection
  return { connection: number, packet: messageId, dup, marksDup, mark: held?.opened?.mark ?? null }
}

/**
 * False for the identifier 0 [MQTT-2.3.1-1] and for a packet that ends before its identifier: the parser reads on into the
 * next packet then, which only an empty payload can come from.
 */
function hasMessageId({ messageId = 0, length = 0, topic, payload }: PublishPacket): boolean {
  return messageId > 0 && (payload.length > 0 || length >= 2 + Buffer.byteLength(topic) + 2)
}
