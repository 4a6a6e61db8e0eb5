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
 * - While the broker is under pressure no PUBLISH of QoS 1 or 2 passes at all. QoS 0 passes: it is dropped, never waits.
 */
import type { Socket } from 'node:net'
import { LIMITS } from '../model/limits.ts'

/** One for all gates of a broker. */
export interface Floodgate {
  /** True while no message may enter: pressure, or the broker is closing. */
  shut: boolean
  readonly inFlightMax: number
}

export type FrameFault = 'not_mqtt' | 'packet_too_large' | 'malformed_packet'

type Wait = 'none' | 'connack' | 'room'

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
  readonly #refuse: (fault: FrameFault) => void
  readonly #waits: () => void

  /** `refuse` must destroy the socket. `waits` is told when the gate shuts for want of room, until `open()`. */
  constructor(socket: Socket, floodgate: Floodgate, refuse: (fault: FrameFault) => void, waits: () => void) {
    this.#socket = socket
    this.#read = socket.read.bind(socket)
    this.#floodgate = floodgate
    this.#refuse = refuse
    this.#waits = waits
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
    const bytes = this.#read()
    if (bytes === null) return null
    const passed = this.#follow(bytes)
    if (this.#socket.destroyed) return null
    if (passed === bytes.length) return bytes
    this.#socket.unshift(bytes.subarray(passed))
    return passed === 0 ? null : bytes.subarray(0, passed)
  }

  /** How many of the bytes may pass. Less than all only when the gate has shut, so that no byte is looked at twice. */
  #follow(bytes: Buffer): number {
    let at = 0
    while (at < bytes.length) {
      if (this.#body > 0) {
        const step = Math.min(this.#body, bytes.length - at)
        this.#body -= step
        at += step
      } else if (this.#lengthBits >= 0) {
        if (!this.#lengthByte(bytes[at++] ?? 0)) return at
      } else if (this.#mayEnter(bytes[at] ?? 0)) {
        this.#lengthBits = 0
        this.#length = 0
        at++
      } else return at
    }
    return at
  }

  /** Judges a packet by its first byte: type and flags. False: the gate has shut before it, or the socket is gone. */
  #mayEnter(first: number): boolean {
    if (!this.#connectSeen) {
      this.#connectSeen = true
      if (first !== 0x10) this.#refuse('not_mqtt')
      return first === 0x10
    }
    if (this.#bytesMax === LIMITS.packetBytesMaxBeforeConnack) {
      this.#wait = 'connack'
      return false
    }
    if ((first & 0xf0) !== 0x30 || (first & 0x06) === 0) return true
    if (this.#floodgate.shut || this.inFlight >= this.#floodgate.inFlightMax) {
      this.#wait = 'room'
      this.#waits()
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
      this.#refuse('malformed_packet')
      return false
    }
    if (1 + this.#lengthBits / 7 + this.#length > this.#bytesMax) {
      this.#refuse('packet_too_large')
      return false
    }
    this.#body = this.#length
    this.#lengthBits = -1
    return true
  }
}
