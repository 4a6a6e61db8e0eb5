/**
 * The load generator: a fleet of connections on raw sockets that publishes QoS 1, each with a window of messages in
 * flight; closed-loop, or open-loop at a rate. It survives restarts of the broker: what was not acknowledged is sent
 * again with the DUP flag, in its first order [MQTT-4.4.0-1]. A journal hears of every message before it is sent and
 * after it is acknowledged, so that a checker outside the system can tell lost, duplicated, phantom and changed.
 *
 * Bounds: never more than `window` messages per connection are held; what is due beyond that is only a number.
 */
import { createHistogram, performance, type RecordableHistogram } from 'node:perf_hooks'
import { type Connection, openConnection } from './connection.ts'
import { dueAtMs, isHot, messagesDue } from './pacing.ts'
import { COUNTER_MAX, type PublishTemplate, publishTemplate, writePublish } from './wire.ts'

export interface Journal {
  /** Before the bytes are handed to the socket. `ts` is the time in the payload; `readingsOf(counter)` are its values. */
  sent(counter: number, device: string, ts: number): void
  /** After the PUBACK; once per message. */
  acked(counter: number, device: string): void
}

export interface FleetOptions {
  readonly port: number
  readonly host?: string
  /** Their ids. Connection c publishes for the devices c, c + connections, and so on; its client id is that of device c. */
  readonly devices: readonly string[]
  readonly connections: number
  /** Messages in flight per connection, 1 to 65,535. */
  readonly window: number
  /** Messages per second in all; null sends as fast as the windows allow. */
  readonly rate: number | null
  /** The share of messages that goes to `devices[0]`, over all connections; 0 when left out. */
  readonly hotShare?: number
  /** The first counter: a later fleet on the same data goes on where an earlier one ended. */
  readonly firstCounter?: number
  readonly journal?: Journal
}

export interface FleetCounts {
  readonly sent: number
  readonly acked: number
  /** Times that a message was sent again after a loss of its connection. */
  readonly resent: number
  readonly reconnects: number
  readonly inFlight: number
  /** Acknowledgements of nothing that was in flight. */
  readonly strayAcks: number
}

export interface Fleet {
  /** Starts to send, once. */
  start(): void
  counts(): FleetCounts
  /** µs from the intended send (open-loop) or the send (closed-loop) to the PUBACK. The caller may reset it. */
  readonly latency: RecordableHistogram
  /** Sends nothing new; true when everything was acknowledged, false after `waitMs`. */
  drain(waitMs: number): Promise<boolean>
  close(): void
}

const TICK_MS = 2
/** Connections under way at one time: brokers limit their connect rate. */
const CONNECTING_MAX = 50
const LATENCY_US_MAX = 10 * 60 * 1_000_000

/** A connection and what it has in flight: slot s holds packet id s + 1. */
interface Lane {
  readonly index: number
  connection: Connection | null
  readonly free: number[]
  readonly counters: Float64Array
  readonly times: Float64Array
  readonly intended: Float64Array
  readonly deviceIndexes: Int32Array
  /** The next message of this lane; lanes share the messages in turn. */
  next: number
}

/** Opens all connections; resolves when each was accepted once. */
export async function openFleet(options: FleetOptions): Promise<Fleet> {
  const { connections, window, rate, devices, journal } = options
  const target = { host: options.host ?? '127.0.0.1', port: options.port }
  const firstCounter = options.firstCounter ?? 0
  const hotShare = options.hotShare ?? 0
  const templates = devices.map(device => publishTemplate(`devices/${device}/telemetry`))
  const packetBytesMax = Math.max(...templates.map(template => template.bytes.length))
  const latency = createHistogram({ lowest: 1, highest: LATENCY_US_MAX, figures: 3 })
  const lanes = Array.from({ length: connections }, (_, index) => openLane(index, window))
  const counts = { sent: 0, acked: 0, resent: 0, reconnects: 0, inFlight: 0, strayAcks: 0 }
  let startedAt: number | null = null
  let stopped = false
  let ticker: NodeJS.Timeout | null = null
  let drained: (() => void) | null = null

  await connectAll()
  return { start, counts: () => ({ ...counts }), latency, drain, close }

  async function connectAll(): Promise<void> {
    for (let from = 0; from < lanes.length; from += CONNECTING_MAX) {
      await Promise.all(lanes.slice(from, from + CONNECTING_MAX).map(connectLane))
    }
  }

  function connectLane(lane: Lane): Promise<void> {
    return new Promise(resolve => {
      lane.connection = openConnection(target, clientIdOf(lane), {
        ready: () => {
          resolve()
          resend(lane)
        },
        puback: packetId => settle(lane, packetId),
        progress: () => fill(lane),
        lost: () => void counts.reconnects++,
      })
    })
  }

  function clientIdOf(lane: Lane): string {
    return devices[lane.index] ?? `${devices[0]}-connection-${lane.index}`
  }

  function start(): void {
    startedAt = performance.now()
    for (const lane of lanes) fill(lane)
    if (rate !== null) ticker = setInterval(() => lanes.forEach(fill), TICK_MS)
  }

  /** Sends what is due as far as the window allows, in one write. */
  function fill(lane: Lane): void {
    if (startedAt === null || stopped || lane.connection?.ready !== true) return
    const now = performance.now()
    const due = rate === null ? Number.POSITIVE_INFINITY : messagesDue(now - startedAt, rate)
    const count = Math.min(lane.free.length, Math.ceil((due - lane.next) / connections))
    if (count <= 0) return
    const slots: number[] = []
    for (let taken = 0; taken < count; taken++) {
      const slot = lane.free.pop() ?? 0
      place(lane, slot, rate === null ? now : startedAt + dueAtMs(lane.next, rate))
      slots.push(slot)
    }
    counts.sent += count
    counts.inFlight += count
    writeSlots(lane, slots, false)
  }

  function place(lane: Lane, slot: number, intendedAt: number): void {
    const counter = firstCounter + lane.next
    if (counter > COUNTER_MAX) throw new RangeError('The generator has used all its counters.')
    const deviceIndex = deviceOf(lane)
    const ts = Date.now()
    lane.counters[slot] = counter
    lane.times[slot] = ts
    lane.intended[slot] = intendedAt
    lane.deviceIndexes[slot] = deviceIndex
    lane.next += connections
    journal?.sent(counter, devices[deviceIndex] ?? '', ts)
  }

  function deviceOf(lane: Lane): number {
    const turn = Math.floor(lane.next / connections)
    if (isHot(turn, hotShare)) return 0
    // Only the turns that are not hot are counted: the hot ones come in a beat that would pass over devices.
    const coldTurn = turn - Math.floor(turn * hotShare)
    const perLane = Math.max(1, Math.floor(devices.length / connections))
    return (lane.index + (coldTurn % perLane) * connections) % devices.length
  }

  function writeSlots(lane: Lane, slots: readonly number[], dup: boolean): void {
    const out = Buffer.allocUnsafe(slots.length * packetBytesMax)
    let at = 0
    for (const slot of slots) {
      const template = templates[lane.deviceIndexes[slot] ?? 0] as PublishTemplate
      const counter = lane.counters[slot] ?? 0
      at = writePublish(out, at, template, { packetId: slot + 1, ts: lane.times[slot] ?? 0, counter, dup })
    }
    lane.connection?.write(out.subarray(0, at))
  }

  function resend(lane: Lane): void {
    const held = heldSlots(lane)
    if (held.length > 0) writeSlots(lane, held, true)
    counts.resent += held.length
    fill(lane)
  }

  function settle(lane: Lane, packetId: number): void {
    const slot = packetId - 1
    const counter = lane.counters[slot] ?? -1
    if (counter < 0) return void counts.strayAcks++
    const waitedUs = Math.round((performance.now() - (lane.intended[slot] ?? 0)) * 1_000)
    latency.record(Math.min(Math.max(1, waitedUs), LATENCY_US_MAX))
    journal?.acked(counter, devices[lane.deviceIndexes[slot] ?? 0] ?? '')
    lane.counters[slot] = -1
    lane.free.push(slot)
    counts.acked++
    counts.inFlight--
    if (counts.inFlight === 0) drained?.()
  }

  function drain(waitMs: number): Promise<boolean> {
    stopped = true
    if (ticker !== null) clearInterval(ticker)
    if (counts.inFlight === 0) return Promise.resolve(true)
    return new Promise(resolve => {
      const timer = setTimeout(() => resolve(false), waitMs)
      drained = () => {
        clearTimeout(timer)
        resolve(true)
      }
    })
  }

  function close(): void {
    stopped = true
    if (ticker !== null) clearInterval(ticker)
    for (const lane of lanes) lane.connection?.close()
  }
}

function openLane(index: number, window: number): Lane {
  return {
    index,
    connection: null,
    free: Array.from({ length: window }, (_, slot) => window - 1 - slot),
    counters: new Float64Array(window).fill(-1),
    times: new Float64Array(window),
    intended: new Float64Array(window),
    deviceIndexes: new Int32Array(window),
    next: index,
  }
}

/** The slots in flight, in the order of their first sending. */
function heldSlots(lane: Lane): number[] {
  const held: number[] = []
  lane.counters.forEach((counter, slot) => {
    if (counter >= 0) held.push(slot)
  })
  return held.sort((a, b) => (lane.counters[a] ?? 0) - (lane.counters[b] ?? 0))
}
