/**
 * The first packet of a connection while it comes: a CONNECT is judged whole, so its bytes are kept until it is. Nearly every
 * one arrives in one read and is never copied.
 *
 * A packet of more than is taken is refused at its header. What a connection keeps grows with what came, not with what was
 * announced, so a socket that only claims costs nothing. Beyond its first 8 KiB it also counts in a sum of all connections
 * (`ConnectMemory`): a fleet of long tokens that all stop in the middle can take that much memory and no more, and those with a
 * CONNECT of usual size do not feel it.
 */
import { LIMITS } from '../model/limits.ts'
import { BROKEN_BY_LENGTH, CONNECT, FixedHeader } from './frame-header.ts'

/** What all CONNECTs that are under way take beyond their first 8 KiB, bytes; one for all gates of a broker. */
export interface ConnectMemory {
  bytes: number
}

export type ConnectFault = 'not_mqtt' | 'malformed_packet' | 'packet_too_large' | 'connect_memory'

export type ConnectProgress =
  | { readonly kind: 'more' }
  | { readonly kind: 'whole'; readonly packet: Buffer; readonly rest: Buffer | null }
  | { readonly kind: 'fault'; readonly fault: ConnectFault; readonly detail: string }

/** Each connection may keep so much without asking anybody. */
const OWN_BYTES = 8 * 1024
const NO_MEMORY = 'Too many large CONNECTs are under way.'
const MORE: ConnectProgress = { kind: 'more' }

const header = new FixedHeader()

export class ConnectBytes {
  readonly #memory: ConnectMemory
  #kept: Buffer | null = null
  #length = 0

  constructor(memory: ConnectMemory) {
    this.#memory = memory
  }

  /** Takes the bytes that came. After `whole` or `fault` nothing is kept any more. */
  take(read: Buffer): ConnectProgress {
    const bytes = this.#kept === null ? read : this.#join(this.#kept, read)
    if (bytes === null) return this.#fault('connect_memory', NO_MEMORY)
    if (bytes[0] !== CONNECT) return this.#fault('not_mqtt', 'The first packet is no CONNECT.')
    const state = header.read(bytes, 0)
    if (state === 'long') return this.#fault('malformed_packet', BROKEN_BY_LENGTH)
    const end = header.bodyAt + header.length
    if (state === 'whole' && end > LIMITS.packetBytesMaxBeforeConnack) {
      return this.#fault(
        'packet_too_large',
        `A CONNECT of ${end} bytes; up to ${LIMITS.packetBytesMaxBeforeConnack} are taken.`,
      )
    }
    if (state === 'short' || bytes.length < end) return this.#keep(bytes)
    this.drop()
    const rest = bytes.length > end ? bytes.subarray(end) : null
    return { kind: 'whole', packet: bytes.subarray(0, end), rest }
  }

  /** Gives back what it took; calling it again is harmless. */
  drop(): void {
    if (this.#kept !== null) this.#memory.bytes -= beyondOwn(this.#kept.length)
    this.#kept = null
    this.#length = 0
  }

  /** Keeps the first read; what joined it later stands in the kept bytes already. */
  #keep(bytes: Buffer): ConnectProgress {
    if (this.#kept !== null) return MORE
    const joined = this.#join(Buffer.alloc(0), bytes)
    return joined === null ? this.#fault('connect_memory', NO_MEMORY) : MORE
  }

  /** Null when there is no memory for it. */
  #join(kept: Buffer, read: Buffer): Buffer | null {
    const length = this.#length + read.length
    if (length > kept.length) {
      // Whoever needs no more than its own part is not made to ask for more.
      const sizeMax = length > OWN_BYTES ? LIMITS.packetBytesMaxBeforeConnack : OWN_BYTES
      const size = Math.max(length, Math.min(kept.length * 2, sizeMax))
      const more = beyondOwn(size) - beyondOwn(kept.length)
      if (this.#memory.bytes + more > LIMITS.connectsBytesMax) return null
      this.#memory.bytes += more
      const larger = Buffer.allocUnsafeSlow(size)
      kept.copy(larger, 0, 0, this.#length)
      this.#kept = larger
    }
    const into = this.#kept ?? kept
    read.copy(into, this.#length)
    this.#length = length
    return into.subarray(0, length)
  }

  #fault(fault: ConnectFault, detail: string): ConnectProgress {
    this.drop()
    return { kind: 'fault', fault, detail }
  }
}

function beyondOwn(bytes: number): number {
  return Math.max(0, bytes - OWN_BYTES)
}
