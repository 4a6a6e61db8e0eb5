/**
 * What happens to a PUBLISH: Aedes' `authorizePublish` hook, the hot path. The topic is understood (one string compare for a
 * device that keeps to its topic), the message goes to ingest, and its acknowledgement waits for `settled` [G1].
 *
 * Nothing is ever fanned out or retained: a retain flag is left unread. Bad data never closes a connection, or the device
 * would send it again for ever; only what breaks MQTT itself does.
 */
import type { AedesOptions, Client, PublishPacket } from 'aedes'
import type { Ingest, Publish } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import type { Acknowledger } from './acknowledge.ts'
import { connectionOf, leaveToUs } from './aedes-internals.ts'
import { type Connection, Held } from './connection.ts'
import type { Floodgate } from './frame-gate.ts'
import type { PresenceKeeper } from './presence.ts'
import { parseStatus, parseTopic, type Refused, type Telemetry } from './topics.ts'

/** The first byte of PUBACK and of PUBREC [MQTT 3.1.1, 3.4 and 3.5]. */
const PUBACK = 0x40
const PUBREC = 0x50

export interface Publishing {
  readonly authorizePublish: NonNullable<AedesOptions['authorizePublish']>
  /** Adds what was counted since the last call to the metrics: a labelled counter is too dear per message. */
  count(): void
}

export interface PublishingOptions {
  readonly ingest: Ingest<Held | null>
  readonly acknowledger: Acknowledger
  readonly presence: PresenceKeeper
  readonly floodgate: Floodgate
  readonly clock: () => number
  /** The client broke MQTT: must destroy its socket. */
  readonly violated: (connection: Connection, reason: string) => void
}

export function openPublishing(options: PublishingOptions): Publishing {
  const { ingest, acknowledger, presence, floodgate, clock, violated } = options
  const received = [0, 0, 0]
  let dropped = 0

  return { authorizePublish, count }

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
    const known = topic === connection.topic ? connection.route : null
    const route = known ?? parseTopic(topic)
    if (route.kind === 'reserved') {
      violated(connection, 'reserved_topic')
      return
    }
    if (route.kind === 'status') {
      takeStatus(connection, packet, route.device)
      return
    }
    if (!offer(connection, packet, route) || known !== null) return
    connection.topic = topic
    connection.route = route
    // After the offer, so that the space knows the device by now.
    if (route.kind === 'telemetry') presence.hold(connection, route.device, true)
  }

  /** False when it was dropped: QoS 0 never waits. */
  function offer(connection: Connection, packet: PublishPacket, route: Telemetry | Refused): boolean {
    received[packet.qos] = (received[packet.qos] ?? 0) + 1
    if (packet.qos === 0 && (floodgate.shut || ingest.pressure)) {
      dropped++
      return false
    }
    const receivedAt = clock()
    const held = packet.qos === 0 ? null : hold(connection, packet, receivedAt)
    if (held !== null) connection.newest = held
    const publish: Publish<Held | null> = {
      device: route.device,
      metric: route.kind === 'telemetry' ? route.metric : null,
      topic: packet.topic,
      payload: packet.payload as Buffer,
      receivedAt,
      held,
    }
    if (route.kind === 'telemetry') ingest.offer(publish)
    else ingest.offerRefused(publish, route.reason, route.detail)
    return true
  }

  /** Presence is of the moment and not in the log: it is acknowledged at once, but in order. */
  function takeStatus(connection: Connection, packet: PublishPacket, device: string): void {
    const state = parseStatus(packet.payload)
    if (state === null) {
      const detail = 'A status is online, offline, or {"state":"online"} or {"state":"offline"}.'
      offer(connection, packet, { kind: 'refused', device, reason: 'invalid_status', detail })
      return
    }
    if (state === 'online') presence.hold(connection, device, false)
    else presence.release(connection, device)
    // A reading after this puts the device online again.
    connection.topic = ''
    connection.route = null
    if (packet.qos > 0) acknowledger.afterEarlier(hold(connection, packet, clock()))
  }

  /** A will is presence or nothing; never a reading, and never published: an error makes Aedes forget it. */
  function takeWill(client: Client | null, will: PublishPacket, done: (error?: Error | null) => void): void {
    const route = parseTopic(will.topic)
    const offline = route.kind === 'status' && parseStatus(will.payload) === 'offline'
    // A sweep finds the wills of a broker that died, or of this one after a long stop: no news of the device either way.
    if (offline && client?.closed === true) presence.release(connectionOf(client), route.device)
    else metrics.presenceIgnored.inc({ reason: offline ? 'swept_will' : 'will' })
    done(new Error('A will is presence and is not published.'))
  }

  function hold(connection: Connection, packet: PublishPacket, receivedAt: number): Held {
    return new Held(connection, packet.qos === 1 ? PUBACK : PUBREC, packet.messageId ?? 0, receivedAt)
  }

  function count(): void {
    for (let qos = 0; qos < received.length; qos++) {
      metrics.received.inc({ qos: String(qos) }, received[qos])
      received[qos] = 0
    }
    if (dropped > 0) metrics.dropped.inc({ reason: 'overload' }, dropped)
    dropped = 0
  }
}

/**
 * False for the identifier 0 [MQTT-2.3.1-1] and for a packet that ends before its identifier: the parser reads on into the
 * next packet then, which only an empty payload can come from.
 */
function hasMessageId({ messageId = 0, length = 0, topic, payload }: PublishPacket): boolean {
  return messageId > 0 && (payload.length > 0 || length >= 2 + Buffer.byteLength(topic) + 2)
}
