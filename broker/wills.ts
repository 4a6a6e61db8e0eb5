/**
 * Wills: what a client asked at CONNECT to be published when its connection ends without a DISCONNECT [MQTT-3.1.2-8]. Aedes
 * gives each once: after a lost line, a keepalive that ran out, a violation, a take-over (here or by another broker) and when
 * this broker stops. A kill of this process publishes none.
 *
 * A will on a status topic that says offline is presence. Any other is judged by its topic as a PUBLISH of its device would
 * be, and stored, refused with a reason and kept, or let go. A reading in a will does not put its device online.
 *
 * Nobody is told what becomes of a will, so under pressure one of QoS 0 is dropped as any message of QoS 0, and one of QoS 1
 * or 2 waits for room, up to a bound.
 */
import type { Client, PublishPacket } from 'aedes'
import type { Ingest } from '../ingest/ingest.ts'
import { metrics } from '../metrics.ts'
import { connectionOf } from './aedes-internals.ts'
import type { Connection } from './connection.ts'
import type { PresenceKeeper } from './presence.ts'
import { keptTopic, parseStatus, parseTopic, type Route, refuseStatus } from './topics.ts'

/** Wills that wait for room, and their bytes; what is beyond either is let go, and counted. */
const WAITING_MAX = 10_000
const WAITING_BYTES_MAX = 4 * 1024 * 1024

export interface Wills {
  /** As Aedes gives it: without a client when it swept it up. Never published: an error makes Aedes forget it. */
  take(client: Client | null, will: PublishPacket, done: (error?: Error | null) => void): void
  /** Every second: offers what waits when there is room. `isLast`: also when there is none. */
  offerWaiting(isLast: boolean): void
}

export interface WillsOptions {
  readonly ingest: Ingest<null>
  readonly presence: Pick<PresenceKeeper, 'will'>
  readonly clock: () => number
  /** Counts a will as a message that came. */
  readonly received: (qos: number) => void
  readonly letGo: (reason: string) => void
}

interface Waiting {
  readonly connection: number
  readonly will: PublishPacket
}

export function openWills({ ingest, presence, clock, received, letGo }: WillsOptions): Wills {
  let waiting: Waiting[] = []
  let waitingBytes = 0

  return { take, offerWaiting }

  function take(client: Client | null, will: PublishPacket, done: (error?: Error | null) => void): void {
    // A sweep finds the wills of a broker that died, or of this one after a long stop: no news of the device either way.
    if (client?.closed !== true) metrics.presenceIgnored.inc({ reason: 'swept_will' })
    else takeOwn(connectionOf(client), will)
    done(new Error('A will is given to ingest, and not published.'))
  }

  function takeOwn(connection: Connection, will: PublishPacket): void {
    const route = parseTopic(will.topic)
    const state = route.kind === 'status' ? parseStatus(will.payload) : null
    if (route.kind === 'status' && state !== null) {
      // Where another broker serves the client, that one speaks for it; and nobody is online because a connection ended.
      if (state === 'offline' && !connection.taken) presence.will(connection, route.device)
      else metrics.presenceIgnored.inc({ reason: connection.taken ? 'taken_over' : 'will' })
      return
    }
    received(will.qos)
    if (route.kind === 'reserved') letGo(route.reason)
    else if (!ingest.pressure && !ingest.stalled) offer(connection.number, will, route)
    else if (will.qos === 0) letGo('qos0_overload')
    else keep(connection.number, will)
  }

  function keep(connection: number, will: PublishPacket): void {
    const bytes = will.payload.length + will.topic.length
    if (waiting.length >= WAITING_MAX || waitingBytes + bytes > WAITING_BYTES_MAX) {
      letGo('will_overload')
      return
    }
    waiting.push({ connection, will })
    waitingBytes += bytes
  }

  function offerWaiting(isLast: boolean): void {
    if (waiting.length === 0 || (!isLast && (ingest.pressure || ingest.stalled))) return
    const offered = waiting
    waiting = []
    waitingBytes = 0
    for (const { connection, will } of offered) offer(connection, will, parseTopic(will.topic))
  }

  function offer(connection: number, { topic, payload }: PublishPacket, route: Route): void {
    if (route.kind === 'reserved') return
    // As a message of QoS 0: it has no packet identifier, and is never sent again.
    const origin = { connection, packet: 0, dup: false, marksDup: false }
    const came = { payload: payload as Buffer, receivedAt: clock(), held: null, ...origin }
    if (route.kind === 'telemetry') {
      ingest.offer({ device: route.device, metric: route.metric, topic, ...came })
      return
    }
    const { device, reason, detail } = route.kind === 'status' ? refuseStatus(route.device) : route
    ingest.offerRefused({ device, metric: null, topic: keptTopic(topic), ...came }, reason, detail)
  }
}
