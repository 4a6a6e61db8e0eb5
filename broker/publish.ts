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
import { keptTopic, parseStatus, parseTopic, refuseStatus } from './topics.ts'

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
  /** Adds what was counted since the last call to the metrics: a labelled counter is too dear per message. */
  count(): void
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
  let dropped = 0
  let statuses = 0

  return { authorizePublish, takeKnown, takeOversized, release: sessions.release, count }

  function authorizePublish(client: Client | null, packet: PublishPacket, done: (error?: Error | null) => void): void {
    // Aedes gives a will without a type, and one that it swept up without a client.
    if (client === null || packet.cmd !== 'publish') {
      takeWill(client, packet, done)
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
      violated(connection, 'reserved_topic')
      return
    }
    const state = route.kind === 'status' ? parseStatus(packet.payload) : null
    if (route.kind === 'status' && state !== null) {
      received[packet.qos] = (received[packet.qos] ?? 0) + 1
      statuses++
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
    const isNew = isOpened(held, topic, payload)
    const mark = held === null || held.opened === null ? null : held.opened.mark
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
    const receivedAt = clock()
    const held = admit(connection, qos, messageId, receivedAt)
    if (held === undefined) return
    const route = frame.isTopicWhole ? parseTopic(topic) : null
    const device = route === null || route.kind === 'reserved' ? '' : route.device
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
    received[qos] = (received[qos] ?? 0) + 1
    if (qos === 0) {
      if (!floodgate.shut && !ingest.pressure && !ingest.stalled) return null
      dropped++
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
    const answer = packet.qos === 1 ? PUBACK : PUBREC
    if (packet.qos > 0) acknowledger.afterEarlier(new Held(connection, answer, packet.messageId ?? 0, clock()))
  }

  /** A will is presence or nothing; never a reading, and never published: an error makes Aedes forget it. */
  function takeWill(client: Client | null, will: PublishPacket, done: (error?: Error | null) => void): void {
    const route = parseTopic(will.topic)
    const offline = route.kind === 'status' && parseStatus(will.payload) === 'offline'
    const taken = client !== null && connectionOf(client).taken
    // A sweep finds the wills of a broker that died, or of this one after a long stop: no news of the device either way.
    if (offline && client?.closed === true && !taken) presence.will(connectionOf(client), route.device)
    else metrics.presenceIgnored.inc({ reason: taken ? 'taken_over' : offline ? 'swept_will' : 'will' })
    done(new Error('A will is presence and is not published.'))
  }

  function count(): void {
    for (let qos = 0; qos < received.length; qos++) {
      metrics.received.inc({ qos: String(qos) }, received[qos])
      received[qos] = 0
    }
    letGo('qos0_overload', dropped)
    letGo('presence', statuses)
    dropped = 0
    statuses = 0
  }

  function letGo(reason: string, messages: number): void {
    if (messages === 0) return
    metrics.letGo.inc({ reason }, messages)
    ingest.letGo(reason, messages)
  }
}

/** Why a client that sends this is closed, as it is when the message is smaller; null when it is not. */
function brokenByOversized({ qos, messageId }: OversizedFrame, topic: string): string | null {
  if (qos > 0 && messageId === 0) return 'message_id'
  if (topic === '' || /[+#]/.test(topic)) return 'protocol'
  return parseTopic(topic).kind === 'reserved' ? 'reserved_topic' : null
}

function describeOversized({ packetBytes, payload }: OversizedFrame): string {
  return `A packet takes up to ${LIMITS.packetBytesMax} bytes; this one has ${packetBytes}. The first ${payload.length} bytes of its payload are kept.`
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
