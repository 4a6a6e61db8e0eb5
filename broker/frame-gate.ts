/**
 * The frame gate: stands between a socket and Aedes and sees the raw bytes first, by taking the place of `socket.read`.
 * It follows the fixed headers only [MQTT 3.1.1, 2.2] and decides how many of the bytes Aedes may have now.
 *
 * Invariants:
 * - A packet that is refused is refused at its header, before a byte of it is kept: what no client may send, and what is too
 *   large. So sockets that claim 256 MB cost nothing, whether they ever authenticate or not [G5].
 * - Before CONNACK exactly one packet is handed over: a whole CONNECT that was judged. What was pipelined behind it waits in the
 *   socket, in order; Aedes would keep it in a queue of its own and let later packets overtake it.
 * - Never more than `inFlightMax` PUBLISH packets of QoS 1 and 2 are handed over and not acknowledged, to the packet. The gate shuts
 *   before the next one; every other packet before it still passes, PINGREQ too. The kernel then slows the sender down.
 * - A whole PUBLISH whose topic the connection used before is taken out here and never reaches Aedes, which saves half of what
 *   a message costs. It is taken only when everything before it has been handed over, so order is kept [MQTT-4.6.0-2].
 * - PUBREL never reaches Aedes either: what it releases is ours [MQTT-4.3.3-2]. Nor does an oversized PUBLISH. Both are taken when
 *   everything before them has been handed over.
 * - What is too short to be judged, at the end of what was read, stays here until there is more: a few bytes at most.
 * - While the broker is under pressure no PUBLISH of QoS 1 or 2 passes at all. QoS 0 passes: it is dropped, never waits.
 */
import type { Socket } from 'node:net'
import { LIMITS } from '../model/limits.ts'
import { ConnectBytes, type ConnectFault, type ConnectMemory } from './connect-bytes.ts'
import {
  BROKEN_BY_IDENTIFIER,
  BROKEN_BY_LENGTH,
  brokenByHeader,
  FixedHeader,
  PUBLISH_TYPE,
  PUBREL,
  SUBSCRIBE,
  UNSUBSCRIBE,
} from './frame-header.ts'
import { OversizedFrame } from './oversized-frame.ts'
import { type KnownTopic, type KnownTopics, PublishFrame } from './publish-frame.ts'

/** One for all gates of a broker. */
export interface Floodgate {
  /** True while no message may enter: pressure, or the broker is closing. */
  shut: boolean
  readonly inFlightMax: number
  readonly connects: ConnectMemory
}

export type FrameFault = ConnectFault

/** `connack`: a CONNECT was handed over, or refused. */
type Wait = 'none' | 'connack' | 'room'

/** What the gate tells its connection. */
export interface GateEvents {
  /** Must destroy the socket. `detail` is for a person: the clause that was broken, or a size. */
  refuse(fault: FrameFault, detail: string): void
  /** The whole CONNECT. False: it is refused, and Aedes does not get to see it. */
  connect(packet: Buffer): boolean
  /** The gate shut for want of room, until `open()`. */
  waits(): void
  /** Messages were taken of these bytes: to Aedes, which does not see them, the client was silent. */
  heard(): void
  /** A message that Aedes does not get to see; `payload` is a view of the socket's bytes. */
  take(known: KnownTopic, frame: PublishFrame, payload: Buffer): void
  /** A whole oversized PUBLISH, to any topic. Aedes does not get to see it. */
  takeOversized(frame: OversizedFrame): void
  /** A PUBREL, with its packet identifier. Aedes does not get to see it. */
  release(packet: number): void
  /** There is more to read as soon as Aedes has looked at what it has. */
  readAgain(): void
}

/** Of the packet at hand; no gate keeps anything in them. */
const frame = new PublishFrame()
const header = new FixedHeader()

export class FrameGate {
  /** PUBLISH packets of QoS 1 and 2 handed over and not acknowledged. */
  inFlight = 0
  /** What it is waiting for. */
  #wait: Wait = 'none'
  #discarding = false
  /** The first packet while it comes; null once it was judged. */
  #connect: ConnectBytes | null
  /** The oversized PUBLISH that is being thrown away. */
  #oversized: OversizedFrame | null = null
  /** Bytes of the packet's body that are still to come. */
  #body = 0
  readonly #socket: Socket
  readonly #read: (size?: number) => Buffer | null
  readonly #floodgate: Floodgate
  readonly #topics: KnownTopics
  readonly #events: GateEvents
  /** Of the last look at bytes: Aedes gets those from `#from` up to `#to`. */
  #from = 0
  #to = 0
  /** Of the last look: a message was taken, or much of an oversized one came. */
  #heard = false
  /** What follows `#to` is the beginning of something that cannot be judged yet. */
  #short = false
  /** That beginning, until the next read. */
  #kept: Buffer | null = null

  constructor(socket: Socket, floodgate: Floodgate, topics: KnownTopics, events: GateEvents) {
    this.#socket = socket
    this.#read = socket.read.bind(socket)
    this.#floodgate = floodgate
    this.#connect = new ConnectBytes(floodgate.connects)
    this.#topics = topics
    this.#events = events
    socket.read = size => this.read(size)
  }

  /** The client is connected: its messages may come. */
  connected(): void {
    if (this.#wait === 'connack') this.#wait = 'none'
  }

  /** There is room again; Aedes must be made to read. */
  open(): void {
    if (this.#wait === 'room') this.#wait = 'none'
  }

  /** From now on nothing passes; what comes is read and thrown away. */
  discard(): void {
    this.#discarding = true
    this.ended()
  }

  /** The socket is gone: nothing is kept of what it sent. */
  ended(): void {
    this.#connect?.drop()
    this.#oversized = null
    this.#kept = null
  }

  /** What Aedes calls instead of the socket's own `read`. */
  read(size?: number): Buffer | null {
    // A read of nothing is how a stream fills its own buffer.
    if (size === 0) return this.#read(0)
    if (this.#discarding) {
      this.#read()
      return null
    }
    if (this.#wait !== 'none' || this.#socket.destroyed) return null
    const bytes = this.#next()
    if (bytes === null) return null
    if (this.#connect !== null) return this.#readConnect(this.#connect, bytes)
    this.#follow(bytes)
    if (this.#heard) this.#events.heard()
    if (this.#socket.destroyed) return null
    if (this.#short) this.#kept = Buffer.from(bytes.subarray(this.#to))
    else if (this.#to < bytes.length) {
      this.#socket.unshift(bytes.subarray(this.#to))
      if (this.#wait === 'none') this.#events.readAgain()
    }
    if (this.#from === this.#to) return null
    return this.#from === 0 && this.#to === bytes.length ? bytes : bytes.subarray(this.#from, this.#to)
  }

  /** What the socket has, after what was kept of the read before. */
  #next(): Buffer | null {
    const read = this.#read()
    const kept = this.#kept
    if (read === null || kept === null) return read
    this.#kept = null
    return Buffer.concat([kept, read])
  }

  #readConnect(connect: ConnectBytes, bytes: Buffer): Buffer | null {
    const came = connect.take(bytes)
    if (came.kind === 'more') return null
    if (came.kind === 'fault') {
      this.#events.refuse(came.fault, came.detail)
      return null
    }
    this.#connect = null
    this.#wait = 'connack'
    if (!this.#events.connect(came.packet)) return null
    if (came.rest !== null) this.#socket.unshift(came.rest)
    return came.packet
  }

  /** Looks at the bytes up to where the gate shuts, or to a packet that may be taken out once Aedes has had what is before it. */
  #follow(bytes: Buffer): void {
    this.#from = 0
    this.#heard = false
    this.#short = false
    let at = 0
    while (at < bytes.length) {
      if (this.#body > 0) {
        const step = Math.min(this.#body, bytes.length - at)
        this.#body -= step
        at += step
        continue
      }
      const known = this.#knownAt(bytes, at)
      const next = known === null ? this.#packetAt(bytes, at) : this.#takeKnown(bytes, at, known)
      if (next === at) break
      at = next
    }
    this.#to = at
  }

  /** The topic of the whole PUBLISH at `at`, which `frame` then describes; null when Aedes must look at what is there. */
  #knownAt(bytes: Buffer, at: number): KnownTopic | null {
    if (this.#oversized !== null || !frame.read(bytes, at) || frame.end - at > LIMITS.packetBytesMax) return null
    return this.#topics.find(bytes, frame.topicAt, frame.topicLength)
  }

  /** As `#packetAt`, of the PUBLISH that `frame` describes. */
  #takeKnown(bytes: Buffer, at: number, known: KnownTopic): number {
    if (at > this.#from || !this.#mayEnter(bytes[at] ?? 0)) return at
    this.#from = frame.end
    this.#heard = true
    this.#events.take(known, frame, bytes.subarray(frame.payloadAt, frame.end))
    return frame.end
  }

  /** Returns where to look on; `at` when it ends here: the gate has shut, the socket is gone, or Aedes must read first. */
  #packetAt(bytes: Buffer, at: number): number {
    if (this.#oversized !== null) return this.#throwAway(this.#oversized, bytes, at)
    const state = header.read(bytes, at)
    if (state === 'long') return this.#refuse('malformed_packet', BROKEN_BY_LENGTH, at)
    if (state === 'short') return this.#wantMore(at)
    const { first, length, bodyAt } = header
    const broken = brokenByHeader(header)
    if (broken !== null) return this.#refuse('malformed_packet', broken, at)
    if (first === PUBREL) return this.#takeRelease(bytes, at)
    const size = bodyAt - at + length
    const isPublish = first >> 4 === PUBLISH_TYPE
    if (size > (isPublish ? LIMITS.packetBytesMax : LIMITS.otherPacketBytesMax)) return this.#begin(at, size)
    if (first === SUBSCRIBE || first === UNSUBSCRIBE) {
      if (bodyAt + 2 > bytes.length) return this.#wantMore(at)
      if (bytes.readUInt16BE(bodyAt) === 0) return this.#refuse('malformed_packet', BROKEN_BY_IDENTIFIER, at)
    }
    if (!this.#mayEnter(first)) return at
    this.#body = length
    return bodyAt
  }

  #takeRelease(bytes: Buffer, at: number): number {
    const end = header.bodyAt + header.length
    if (at > this.#from) return at
    if (end > bytes.length) return this.#wantMore(at)
    const packet = bytes.readUInt16BE(header.bodyAt)
    if (packet === 0) return this.#refuse('malformed_packet', BROKEN_BY_IDENTIFIER, at)
    this.#from = end
    this.#heard = true
    this.#events.release(packet)
    return end
  }

  /** Of the packet that `header` describes, which is too large. */
  #begin(at: number, size: number): number {
    const { first, length, bodyAt } = header
    const bytesMax = first >> 4 === PUBLISH_TYPE ? LIMITS.oversizedBytesMax : LIMITS.otherPacketBytesMax
    if (size > bytesMax) {
      return this.#refuse('packet_too_large', `A packet of ${size} bytes; up to ${bytesMax} of its type are taken.`, at)
    }
    if (at > this.#from || !this.#mayEnter(first)) return at
    this.#oversized = new OversizedFrame(first, bodyAt - at, length)
    this.#from = bodyAt
    return bodyAt
  }

  #throwAway(oversized: OversizedFrame, bytes: Buffer, at: number): number {
    const end = oversized.take(bytes, at)
    this.#from = end
    if (oversized.isMalformed) return this.#refuse('malformed_packet', 'MQTT 3.1.1, 3.3.2', at)
    if (oversized.hasProgress()) this.#heard = true
    if (!oversized.isWhole) return end
    this.#heard = true
    this.#oversized = null
    this.#events.takeOversized(oversized)
    return end
  }

  #refuse(fault: FrameFault, detail: string, at: number): number {
    this.#events.refuse(fault, detail)
    return at
  }

  #wantMore(at: number): number {
    this.#short = true
    return at
  }

  /** Judges a packet by its first byte: type and QoS. False: the gate has shut before it. */
  #mayEnter(first: number): boolean {
    if (first >> 4 !== PUBLISH_TYPE || (first & 0x06) === 0) return true
    if (this.#floodgate.shut || this.inFlight >= this.#floodgate.inFlightMax) {
      this.#wait = 'room'
      this.#events.waits()
      return false
    }
    this.inFlight++
    return true
  }
}
