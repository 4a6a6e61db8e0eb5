/**
 * A fleet of devices with habits: for each connection a window of messages in flight, packet identifiers that go round
 * through all 16 bits, and one of the ways in which clients send again what was not acknowledged. It is clear rather than
 * fast; the load comes from bench/generator.ts.
 *
 * Bounds: IN_FLIGHT_MAX messages of a connection are in flight, WAITING_MAX wait; a device that has no room takes no sample.
 */
import { connectionOf, type HabitConnection } from './habit-connection.ts'
import type { Habit } from './habits.ts'
import type { Oracle, SentMessage } from './oracle.ts'

export interface Line {
  readonly clientId: string
  /** A persistent session, or none [MQTT-3.1.2-4]. */
  readonly clean: boolean
  readonly qos: 1 | 2
  /** 'dup': with DUP=1 and the first packet identifier [MQTT-3.3.1-1]; 'anew': with DUP=0 and another, as a new message. */
  readonly resends: 'dup' | 'anew'
  /**
   * What devices do without a connection: go on measuring, and send it later, or nothing. Where two messages may be equal, a
   * new one on a new connection cannot be told from one that is sent again: such a device says nothing new in the second in
   * which its connection was lost.
   */
  readonly away: 'measures' | 'sleeps'
  /** Connects anew every second or so while its connection is well, and so takes it over. */
  readonly connectsAnew?: boolean
  readonly devices: readonly { readonly id: string; readonly habit: Habit }[]
}

export interface HabitFleetOptions {
  readonly port: number
  readonly lines: readonly Line[]
  readonly oracle: Pick<Oracle, 'sent'>
}

export interface HabitFleet {
  start(): void
  /** `sessionsLost`: CONNACKs without "session present", of clients with clean=0 that were there before [MQTT-3.2.2-2]. */
  counts(): {
    readonly resent: number
    readonly inFlight: number
    readonly strayAcks: number
    readonly sessionsLost: number
  }
  /** Measures nothing new; true when everything was acknowledged, false after `waitMs`. */
  drain(waitMs: number): Promise<boolean>
  close(): void
}

const TICK_MS = 100
const CONNECT_ANEW_TICKS = 23
const IN_FLIGHT_MAX = 50
const WAITING_MAX = 300
/** Between two samples of one look at the clock. */
const SAMPLE_US = 200
const PACKET_ID_MAX = 65_535
/** So that the identifiers go round during a run. */
const FIRST_PACKET_ID = PACKET_ID_MAX - 100

interface Waiting extends SentMessage {
  readonly payload: string
}

interface Flying {
  readonly message: Waiting
  /** QoS 2: it was received, and is to be released. */
  received: boolean
}

interface LaneState {
  readonly line: Line
  connection: HabitConnection | null
  /** By packet identifier, in the order of sending. */
  flying: Map<number, Flying>
  waiting: Waiting[]
  lastPacketId: number
  /** Messages of each device so far. */
  readonly turns: Map<string, number>
  /** Second of the last loss of the connection. */
  lostIn: number
  hasConnected: boolean
  /** Looks at the clock so far. */
  ticks: number
}

/** Resolves when each connection was accepted once. */
export async function openHabitFleet({ port, lines, oracle }: HabitFleetOptions): Promise<HabitFleet> {
  const counts = { resent: 0, strayAcks: 0, sessionsLost: 0 }
  const lanes = lines.map(newLane)
  let ticker: NodeJS.Timeout | null = null
  await Promise.all(lanes.map(open))
  return { start, counts: () => ({ ...counts, inFlight: unsettled() }), drain, close }

  function open(lane: LaneState): Promise<void> {
    const { clientId, clean } = lane.line
    return new Promise(resolve => {
      lane.connection = connectionOf(port, clientId, clean, {
        ready(sessionPresent) {
          if (lane.hasConnected && !clean && !sessionPresent) counts.sessionsLost++
          lane.hasConnected = true
          resolve()
          resend(lane)
          fill(lane)
        },
        received: (kind, packetId) => settle(lane, kind, packetId),
        lost() {
          lane.lostIn = secondOf(Date.now())
          if (lane.line.away === 'sleeps') lane.waiting = []
        },
      })
    })
  }

  function start(): void {
    ticker = setInterval(() => {
      for (const lane of lanes) {
        measure(lane)
        fill(lane)
        if (lane.line.connectsAnew === true && ++lane.ticks % CONNECT_ANEW_TICKS === 0) lane.connection?.connectAnew()
      }
    }, TICK_MS)
  }

  function measure({ line, connection, waiting, turns, lostIn }: LaneState): void {
    const now = Date.now()
    if (line.away === 'sleeps' && (connection?.ready !== true || secondOf(now) <= lostIn)) return
    const isExact = line.qos === 2 && !line.clean && line.resends === 'dup'
    for (const { id, habit } of line.devices) {
      if (waiting.length + habit.atOnce > WAITING_MAX) return
      for (let sample = 0; sample < habit.atOnce; sample++) {
        const n = turns.get(id) ?? 0
        turns.set(id, n + 1)
        const written = habit.write(n, now * 1_000 + sample * SAMPLE_US)
        waiting.push({ device: id, ...written, acked: false, attempts: 0, isExact })
      }
    }
  }

  /** Sends what waits, as far as the window allows, in one write. */
  function fill(lane: LaneState): void {
    if (lane.connection?.ready !== true) return
    const room = IN_FLIGHT_MAX - lane.flying.size
    for (const message of lane.waiting.splice(0, room)) {
      oracle.sent(message)
      put(lane, nextPacketId(lane), { message, received: false }, false)
    }
    lane.connection.flush()
  }

  function put({ line, flying, connection }: LaneState, packetId: number, one: Flying, dup: boolean): void {
    flying.set(packetId, one)
    if (one.received) return void connection?.pubrel(packetId)
    one.message.attempts++
    const { device, payload } = one.message
    connection?.publish({ topic: `devices/${device}/telemetry`, payload, qos: line.qos, packetId, dup })
  }

  function resend(lane: LaneState): void {
    const before = lane.flying
    lane.flying = new Map()
    for (const [packetId, one] of before) {
      if (!one.received) counts.resent++
      const isAnew = lane.line.resends === 'anew' && !one.received
      put(lane, isAnew ? nextPacketId(lane) : packetId, one, !isAnew)
    }
  }

  function settle(lane: LaneState, kind: 'puback' | 'pubrec' | 'pubcomp', packetId: number): void {
    const one = lane.flying.get(packetId)
    if (one === undefined) return void counts.strayAcks++
    one.message.acked = true
    if (kind === 'pubrec') {
      one.received = true
      lane.connection?.pubrel(packetId)
    } else lane.flying.delete(packetId)
    fill(lane)
  }

  function unsettled(): number {
    return lanes.reduce((sum, { flying, waiting }) => sum + flying.size + waiting.length, 0)
  }

  async function drain(waitMs: number): Promise<boolean> {
    if (ticker !== null) clearInterval(ticker)
    const deadline = performance.now() + waitMs
    while (unsettled() > 0 && performance.now() < deadline) await new Promise(resolve => setTimeout(resolve, 20))
    return unsettled() === 0
  }

  function close(): void {
    if (ticker !== null) clearInterval(ticker)
    for (const lane of lanes) lane.connection?.close()
  }
}

function newLane(line: Line): LaneState {
  const lastPacketId = FIRST_PACKET_ID
  const none = { connection: null, hasConnected: false, ticks: 0, lostIn: 0 }
  return { line, ...none, flying: new Map(), waiting: [], lastPacketId, turns: new Map() }
}

/** The one after the last, and never the lowest that is free. */
function nextPacketId(lane: LaneState): number {
  do lane.lastPacketId = (lane.lastPacketId % PACKET_ID_MAX) + 1
  while (lane.flying.has(lane.lastPacketId))
  return lane.lastPacketId
}

function secondOf(ms: number): number {
  return Math.floor(ms / 1_000)
}
