/**
 * A PUBLISH as it lies in the bytes of a socket [MQTT 3.1.1, 3.3], and the topics that a connection published to before.
 * Together they let the gate take a message past Aedes: what Aedes and `parseTopic` have once judged of a topic holds for
 * the same bytes again. Whatever is not plain (cut off, malformed, another topic) is left to Aedes.
 */
import type { Telemetry } from './topics.ts'

/** Where the parts of a whole PUBLISH lie. One object, used again and again. */
export class PublishFrame {
  qos = 0
  dup = false
  /** 0 for QoS 0. */
  messageId = 0
  topicAt = 0
  topicLength = 0
  payloadAt = 0
  end = 0

  /** False when there is no whole and well-formed PUBLISH at `at`. Reads nothing beyond `bytes`. */
  read(bytes: Buffer, at: number): boolean {
    const first = bytes[at] ?? 0
    this.qos = (first >> 1) & 3
    this.dup = (first & 0x08) !== 0
    if (first >> 4 !== 3 || this.qos === 3 || (this.qos === 0 && this.dup)) return false
    let length = 0
    let next = at + 1
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[next++]
      if (byte === undefined || shift > 21) return false
      length |= (byte & 0x7f) << shift
      if ((byte & 0x80) === 0) break
    }
    this.end = next + length
    this.topicLength = ((bytes[next] ?? 0) << 8) | (bytes[next + 1] ?? 0)
    this.topicAt = next + 2
    const topicEnd = this.topicAt + this.topicLength
    this.payloadAt = this.qos === 0 ? topicEnd : topicEnd + 2
    if (this.end > bytes.length || this.payloadAt > this.end) return false
    this.messageId = this.qos === 0 ? 0 : ((bytes[topicEnd] ?? 0) << 8) | (bytes[topicEnd + 1] ?? 0)
    return this.qos === 0 || this.messageId > 0
  }
}

export interface KnownTopic {
  readonly topic: string
  readonly bytes: Buffer
  readonly route: Telemetry
}

/** A device has one topic; a gateway has one for each of its devices. Beyond this, topics take each other's place. */
const SLOTS = 128
/** Slots that a topic may stand in: few share all of theirs with others. */
const PROBES = 4

export class KnownTopics {
  #slots: (KnownTopic | undefined)[] = []

  find(bytes: Buffer, at: number, length: number): KnownTopic | null {
    const first = slotOf(bytes, at, length)
    for (let probe = 0; probe < PROBES; probe++) {
      const known = this.#slots[(first + probe) & (SLOTS - 1)]
      if (known === undefined) return null
      if (holdsTopic(known.bytes, bytes, at, length)) return known
    }
    return null
  }

  /** Of a topic that `find` does not find. */
  add(topic: string, route: Telemetry): void {
    const bytes = Buffer.from(topic)
    const first = slotOf(bytes, 0, bytes.length)
    let slot = first
    for (let probe = 0; probe < PROBES; probe++) {
      slot = (first + probe) & (SLOTS - 1)
      if (this.#slots[slot] === undefined) break
    }
    this.#slots[slot] = { topic, bytes, route }
  }

  /** From now on Aedes and `parseTopic` judge each topic again. */
  clear(): void {
    this.#slots = []
  }
}

function holdsTopic(known: Buffer, bytes: Buffer, at: number, length: number): boolean {
  if (known.length !== length) return false
  for (let i = 0; i < length; i++) if (known[i] !== bytes[at + i]) return false
  return true
}

/** Ids that are counted up differ in the last bytes before the last level, which is the same for all: all bytes are taken in. */
function slotOf(bytes: Buffer, at: number, length: number): number {
  let hash = 0
  for (let i = at; i < at + length; i++) hash = (Math.imul(hash, 31) + (bytes[i] ?? 0)) | 0
  return (hash ^ (hash >>> 15)) & (SLOTS - 1)
}
