/**
 * The frame gate: stands between a socket and Aedes and sees the raw bytes first, by taking the place of `socket.read`.
 * It follows the fixed headers only [MQTT 3.1.1, 2.2] and decides how many of the bytes Aedes may have now.
 *
 * Invariants:
 * - A packet longer than its limit is refused at its header, before a byte of it is kept; the limit is smaller until the
 *   client is connected. So sockets that claim 256 MB cost nothing, whether they ever authenticate or not [G5].
 * - Before CONNACK exactly one packet is handed over, and it is a CONNECT. What was pipelined behind it waits in the socket,
 *   in order; Aedes would keep it in a queue of its own and let later packets overtake it.
 * - Never more than `inFlightMax` PUBLISH packets of QoS 1 and 2 are handed over and not acknowledged, to the packet. The gate shuts
 *   before the next one; every other packet before it still passes, PINGREQ too. The kernel then slows the sender down.
 * - A whole PUBLISH whose topic the connection used before is taken out here and never reaches Aedes, which saves half of what
 *   a message costs. It is taken only when everything before it has been handed over, so order is kept [MQTT-4.6.0-2].
 * - PUBREL never reaches Aedes either: what it releases is ours [MQTT-4.3.3-2]. It too is taken when everything before it has
 *   been handed over.
 * - What is too short to be judged, at the end of what was read, stays here until there is more: a few bytes at most.
 * - While the broker is under pressure no PUBLISH of QoS 1 or 2 passes at all. QoS 0 passes: it is dropped, never waits.
 */
import type { Socket } from 'node:net'
import { LIMITS } from '../model/limits.ts'
import { type KnownTopic, type KnownTopics, PublishFrame } from './publish-frame.ts'

/** One for all gates of a broker. */
export interface Floodgate {
  /** True while no message may enter: pressure, or the broker is closing. */
  shut: boolean
  readonly inFlightMax: number
}

export type FrameFault = 'not_mqtt' | 'packet_too_large' | 'malformed_packet'

type Wait = 'none' | 'connack' | 'room'

/** What the gate tells its connection. */
export interface GateEvents {
  /** Must destroy the socket. */
  refuse(fault: FrameFault): void
  /** The gate shut for want of room, until `open()`. */
  waits(): void
  /** Messages were taken of these bytes: to Aedes, which does not see them, the client was silent. */
  heard(): void
  /** A message that Aedes does not get to see; `payload` is a view of the socket's bytes. */
  take(known: KnownTopic, frame: PublishFrame, payload: Buffer): void
  /** A PUBREL, with its packet identifier. Aedes does not get to see it. */
  release(packet: number): void
  /** There is more to read as soon as Aedes has looked at what it has. */
  readAgain(): void
}

/** PUBREL with the flags it must have [MQTT-3.6.1-1], its length, and its whole size in bytes. */
const PUBREL = 0x62
const PUBREL_LENGTH = 2
const PUBREL_BYTES = 4

/** Of the frame at hand; no gate keeps anything in it. */
const frame = new PublishFrame()

export class FrameGate {
  /** PUBLISH packets of QoS 1 and 2 handed over and not acknowledged. */
  inFlight = 0
  /** The latest time at which the gate shut for want of room; what it is waiting for. */
  #wait: Wait = 'none'
  #connectSeen = false
  #discarding = false
  #bytesMax: number = LIMITS.packetBytesMaxBeforeConnack
  /** Bytes of the packet's body that are still to come. */
  #body = 0
  /** Within a fixed header: bits of the remaining length that were read; -1 between packets. */
  #lengthBits = -1
  #length = 0
  readonly #socket: Socket
  readonly #read: (size?: number) => Buffer | null
  readonly #floodgate: Floodgate
  readonly #topics: KnownTopics
  readonly #events: GateEvents
  /** Of the last look at bytes: Aedes gets those from `#from` up to `#to`. */
  #from = 0
  #to = 0
  /** What follows `#to` is the beginning of something that cannot be judged yet. */
  #short = false
  /** That beginning, until the next read. */
  #kept: Buffer | null = null

  constructor(socket: Socket, floodgate: Floodgate, topics: KnownTopics, events: GateEvents) {
    this.#socket = socket
    this.#read = socket.read.bind(socket)
    this.#floodgate = floodgate
    this.#topics = topics
    this.#events = events
    socket.read = size => this.read(size)
  }

  /** The client is connected: its messages may come. */
  connected(): void {
    this.#bytesMax = LIMITS.packetBytesMax
    if (this.#wait === 'connack') this.#wait = 'none'
  }

  /** There is room again; Aedes must be made to read. */
  open(): void {
    if (this.#wait === 'room') this.#wait = 'none'
  }

  /** From now on nothing passes; what comes is read and thrown away. */
  discard(): void {
    this.#discarding = true
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
    this.#follow(bytes)
    if (this.#from > 0) this.#events.heard()
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

  /** Looks at the bytes up to where the gate shuts, or to a message that may be taken out once Aedes has had what is before it. */
  #follow(bytes: Buffer): void {
    this.#from = 0
    this.#short = false
    let at = 0
    while (at < bytes.length) {
      if (this.#body > 0) {
        const step = Math.min(this.#body, bytes.length - at)
        this.#body -= step
        at += step
      } else if (this.#lengthBits >= 0) {
        if (!this.#lengthByte(bytes[at++] ?? 0)) break
      } else if ((bytes[at] ?? 0) >> 4 === PUBREL >> 4 && this.#isConnected) {
        // What is before it comes first.
        if (at > this.#from || !this.#takeRelease(bytes, at)) break
        at += PUBREL_BYTES
        this.#from = at
      } else {
        const known = this.#knownAt(bytes, at)
        if (known !== null && at > this.#from) break
        if (!this.#mayEnter(bytes[at] ?? 0)) break
        if (known === null) {
          this.#lengthBits = 0
          this.#length = 0
          at++
        } else {
          at = frame.end
          this.#from = at
          this.#events.take(known, frame, bytes.subarray(frame.payloadAt, frame.end))
        }
      }
    }
    this.#to = at
  }

  /** The topic of the whole PUBLISH at `at`, which `frame` then describes; null when Aedes must look at what is there. */
  #knownAt(bytes: Buffer, at: number): KnownTopic | null {
    if (!frame.read(bytes, at) || frame.end - at > this.#bytesMax) return null
    return this.#topics.find(bytes, frame.topicAt, frame.topicLength)
  }

  /** False: it is not whole yet, or malformed and the socket is gone. */
  #takeRelease(bytes: Buffer, at: number): boolean {
    const length = bytes[at + 1] ?? PUBREL_LENGTH
    if (bytes[at] !== PUBREL || length !== PUBREL_LENGTH) {
      this.#events.refuse('malformed_packet')
      return false
    }
    this.#short = bytes.length - at < PUBREL_BYTES
    if (this.#short) return false
    const packet = ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)
    if (packet === 0) this.#events.refuse('malformed_packet')
    else this.#events.release(packet)
    return packet !== 0
  }

  get #isConnected(): boolean {
    return this.#bytesMax !== LIMITS.packetBytesMaxBeforeConnack
  }

  /** Judges a packet by its first byte: type and flags. False: the gate has shut before it, or the socket is gone. */
  #mayEnter(first: number): boolean {
    if (!this.#connectSeen) {
      this.#connectSeen = true
      if (first !== 0x10) this.#events.refuse('not_mqtt')
      return first === 0x10
    }
    if (!this.#isConnected) {
      this.#wait = 'connack'
      return false
    }
    if ((first & 0xf0) !== 0x30 || (first & 0x06) === 0) return true
    if (this.#floodgate.shut || this.inFlight >= this.#floodgate.inFlightMax) {
      this.#wait = 'room'
      this.#events.waits()
      return false
    }
    this.inFlight++
    return true
  }

  /** Takes a byte of the remaining length [MQTT 3.1.1, 2.2.3]. False: the packet is refused and the socket is gone. */
  #lengthByte(byte: number): boolean {
    this.#length |= (byte & 0x7f) << this.#lengthBits
    this.#lengthBits += 7
    if ((byte & 0x80) !== 0) {
      if (this.#lengthBits < 28) return true
      this.#events.refuse('malformed_packet')
      return false
    }
    if (1 + this.#lengthBits / 7 + this.#length > this.#bytesMax) {
      this.#events.refuse('packet_too_large')
      return false
    }
    this.#body = this.#length
    this.#lengthBits = -1
    return true
  }
}
