/**
 * The devices of a run, on mqtt.js: the client that real users have, with its own reconnecting and resending. One
 * connection for each device up to `connectionsMax`; beyond that devices share connections.
 *
 * Bounds: `inFlightMax` messages per connection are in mqtt.js; what waits beyond them is a number in a queue, and the
 * caller issues no more while `waiting` is at its own bound.
 */
import { connectAsync, type MqttClient } from 'mqtt'
import type { Workload } from './workload.ts'

export interface DevicesOptions {
  readonly url: string
  readonly qos: 0 | 1 | 2
  readonly inFlightMax: number
  readonly workload: Workload
}

export interface DevicesEvents {
  /** Message n is about to be sent for the first time, with this time in it, ms; `connection`: how many the lane had before. */
  sent(n: number, time: number, connection: number): void
  /** PUBACK or PUBCOMP; at QoS 0, that it was written to the socket. */
  settled(n: number, connection: number): void
}

export interface Devices {
  /** Sends message n as soon as its connection has room. */
  publish(n: number): void
  readonly waiting: number
  readonly inFlight: number
  readonly reconnects: number
  /** Forgets what waits and was never sent: for a run that is ended early. */
  cancel(): void
  close(): Promise<void>
}

export const CONNECTIONS_MAX = 1_000
const CONNECTING_MAX = 50
const CONNECT_MS_MAX = 10_000
const RECONNECT_MS = 500

interface Lane {
  readonly client: MqttClient
  queue: number[]
  /** Entries of `queue` before this one are gone. */
  head: number
  inFlight: number
  /** Those it had before the present one. */
  connections: number
}

/** Connects them all; rejects, with a sentence for a person, when the broker refuses or does not answer in 10 s. */
export async function openDevices(options: DevicesOptions, events: DevicesEvents): Promise<Devices> {
  const { url, qos, inFlightMax, workload } = options
  const connections = Math.min(workload.devices.length, CONNECTIONS_MAX)
  const lanes: Lane[] = []
  let waiting = 0
  let inFlight = 0
  let reconnects = 0

  for (let from = 0; from < connections; from += CONNECTING_MAX) {
    const ids = workload.devices.slice(from, Math.min(from + CONNECTING_MAX, connections))
    const results = await Promise.allSettled(ids.map(connectLane))
    for (const result of results) if (result.status === 'fulfilled') lanes.push(result.value)
    const refusal = results.find(result => result.status === 'rejected')
    if (refusal === undefined) continue
    await close()
    throw refusal.reason
  }
  return {
    publish,
    get waiting() {
      return waiting
    },
    get inFlight() {
      return inFlight
    },
    get reconnects() {
      return reconnects
    },
    cancel,
    close,
  }

  async function connectLane(clientId: string): Promise<Lane> {
    const client = await connectAsync(
      url,
      { clientId, protocolVersion: 4, reconnectPeriod: RECONNECT_MS, connectTimeout: CONNECT_MS_MAX },
      false,
    ).catch((error: NodeJS.ErrnoException) => {
      throw new Error(
        `No MQTT broker takes connections at ${url} (${error.code ?? error.message}). Is surgetank running?`,
      )
    })
    const lane: Lane = { client, queue: [], head: 0, inFlight: 0, connections: 0 }
    client.on('connect', () => {
      reconnects++
      lane.connections++
      pump(lane)
    })
    // mqtt.js reports each failed attempt to reconnect here, and goes on trying.
    client.on('error', () => {})
    return lane
  }

  function publish(n: number): void {
    const lane = lanes[workload.deviceOf(n) % connections]
    if (lane === undefined) return
    lane.queue.push(n)
    waiting++
    pump(lane)
  }

  function pump(lane: Lane): void {
    while (lane.head < lane.queue.length && lane.inFlight < inFlightMax && lane.client.connected) {
      const n = lane.queue[lane.head++] ?? 0
      waiting--
      send(lane, n)
    }
    if (lane.head === lane.queue.length || lane.head > 1_000) {
      lane.queue = lane.queue.slice(lane.head)
      lane.head = 0
    }
  }

  function send(lane: Lane, n: number): void {
    const time = workload.timeOf(n, Date.now())
    const device = workload.devices[workload.deviceOf(n)]
    lane.inFlight++
    inFlight++
    events.sent(n, time, lane.connections)
    lane.client.publish(`devices/${device}/telemetry`, workload.payload(n, time), { qos }, error => {
      lane.inFlight--
      inFlight--
      // An error here means that the client was closed first: nobody was told that the message arrived.
      if (!error) events.settled(n, lane.connections)
      pump(lane)
    })
  }

  function cancel(): void {
    for (const lane of lanes) {
      lane.queue = []
      lane.head = 0
    }
    waiting = 0
  }

  async function close(): Promise<void> {
    await Promise.all(lanes.map(lane => lane.client.endAsync(inFlight > 0)))
  }
}
