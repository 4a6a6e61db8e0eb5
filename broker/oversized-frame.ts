/**
 * A PUBLISH that is larger than a packet may be and smaller than what closes a connection: its topic, its packet identifier
 * and the beginning of its payload are kept, and the rest is thrown away as it comes. One is at hand per connection at most;
 * it takes what is kept in memory, whatever passes.
 */
import { LIMITS } from '../model/limits.ts'

/** Progress that counts as a sign of life, bytes: a line that brings less than this within its keepalive is too slow. */
const HEARD_BYTES = 64 * 1024

export class OversizedFrame {
  readonly qos: number
  readonly dup: boolean
  /** Of the whole packet, with its header. */
  readonly packetBytes: number
  /** 0 for QoS 0. */
  messageId = 0
  /** All of the topic, bytes; only its beginning is kept when that is more than a topic may have. */
  topicLength = 0
  #topic: Buffer = Buffer.alloc(0)
  #payload: Buffer = Buffer.alloc(0)
  /** Where the payload begins in the packet's body; known when the length of the topic is. */
  #payloadAt = 0
  #seen = 0
  #unheard = 0
  readonly #length: number

  /** From the fixed header: its first byte, its bytes, and the remaining length. */
  constructor(first: number, headerBytes: number, length: number) {
    this.qos = (first >> 1) & 3
    this.dup = (first & 0x08) !== 0
    this.packetBytes = headerBytes + length
    this.#length = length
  }

  /** Takes the bytes of it from `at` on; returns where they end. */
  take(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#length - this.#seen)
    let next = at
    while (next < end && this.#keepsMore) this.#keep(bytes[next++] ?? 0)
    this.#seen += end - next
    this.#unheard += end - at
    return end
  }

  get isWhole(): boolean {
    return this.#seen === this.#length
  }

  /** True when the topic ends behind the packet, or its identifier is missing. Known from the first two bytes on. */
  get isMalformed(): boolean {
    return this.#seen >= 2 && this.#payloadAt > this.#length
  }

  /** True once for each 64 KiB that came. */
  hasProgress(): boolean {
    if (this.#unheard < HEARD_BYTES) return false
    this.#unheard = 0
    return true
  }

  /** In whole characters. */
  get topic(): string {
    // As if more were to come where it was cut: a character that the cut goes through is left out.
    const isCut = this.#topic.length < this.topicLength
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.#topic, { stream: isCut })
  }

  get isTopicWhole(): boolean {
    return this.#topic.length === this.topicLength
  }

  /** The beginning of the payload, OVERSIZED_KEPT_BYTES at most. */
  get payload(): Buffer {
    return this.#payload
  }

  get payloadBytes(): number {
    return this.#length - this.#payloadAt
  }

  get #keepsMore(): boolean {
    return this.#seen < 2 || this.#seen < this.#payloadAt + this.#payload.length
  }

  #keep(byte: number): void {
    const at = this.#seen++
    const topicEnd = 2 + this.topicLength
    if (at === 0) this.topicLength = byte << 8
    else if (at === 1) this.#measure(this.topicLength | byte)
    else if (at < topicEnd) {
      if (at - 2 < this.#topic.length) this.#topic[at - 2] = byte
    } else if (at < this.#payloadAt) this.messageId = (this.messageId << 8) | byte
    else this.#payload[at - this.#payloadAt] = byte
  }

  #measure(topicLength: number): void {
    this.topicLength = topicLength
    this.#payloadAt = 2 + topicLength + (this.qos === 0 ? 0 : 2)
    this.#topic = Buffer.allocUnsafe(Math.min(topicLength, LIMITS.topicBytesMax))
    const payloadBytes = Math.max(0, this.#length - this.#payloadAt)
    this.#payload = Buffer.allocUnsafe(Math.min(payloadBytes, LIMITS.oversizedKeptBytes))
  }
}
