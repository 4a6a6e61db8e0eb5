/**
 * CONNECT as it lies in the bytes of a socket [MQTT 3.1.1, 3.1]: judged before Aedes sees it, because its parser takes what the
 * specification forbids, and turns ill-formed UTF-8 into U+FFFD. Pure: decides and touches nothing.
 */
import { isUtf8 } from 'node:buffer'

export interface ConnectJudgement {
  /** As the client wrote it, U+FFFD for ill-formed UTF-8; null when the packet ends before it. */
  readonly clientId: string | null
  /** Null: Aedes may have it. */
  readonly refusal: ConnectRefusal | null
}

export interface ConnectRefusal {
  readonly reason: 'malformed_packet' | 'protocol_version'
  /** The clause that it breaks, or what is wanted instead. */
  readonly detail: string
  /** What is written before the connection is closed; null for nothing. */
  readonly answer: Buffer | null
}

/** CONNACK of 3.1.1 with return code 1, "unacceptable protocol version" [MQTT-3.1.2-2]. */
const UNACCEPTABLE_VERSION = Buffer.from([0x20, 0x02, 0x00, 0x01])
/** CONNACK of MQTT 5 with reason code 0x84, "unsupported protocol version", and no properties [MQTT 5, 3.1.2.2 and 3.2.2.2]. */
const UNSUPPORTED_VERSION_5 = Buffer.from([0x20, 0x03, 0x00, 0x84, 0x00])

const NAME_311 = Buffer.from('MQTT')
const NAME_31 = Buffer.from('MQIsdp')
const LEVEL_31 = 3
const LEVEL_311 = 4
const LEVEL_5 = 5
/** Set by a bridge of Mosquitto's (`try_private`); Aedes' parser takes it off. */
const BRIDGE_BIT = 0x80

const RESERVED_FLAG = 0x01
const WILL_FLAG = 0x04
const WILL_QOS_SHIFT = 3
const WILL_RETAIN_FLAG = 0x20
const PASSWORD_FLAG = 0x40
const USER_NAME_FLAG = 0x80

const WELL_FORMED = 'MQTT-1.5.3-1'
const NO_NULL = 'MQTT-1.5.3-2'
const TRUNCATED = 'The packet ends within a field.'

/** Of a whole CONNECT, from its first byte to its last. */
export function judgeConnect(packet: Buffer): ConnectJudgement {
  const fields = new Fields(packet, headerEnd(packet))
  const name = fields.bytes()
  const level = fields.byte()
  const flags = fields.byte()
  if (name === null || level === null || flags === null || !fields.skip(2))
    return { clientId: null, refusal: malformed(TRUNCATED) }
  const isNamed = name.equals(NAME_311) || name.equals(NAME_31)
  if (!isNamed) return { clientId: null, refusal: malformed('MQTT-3.1.2-1') }
  if (level === LEVEL_5 && name.equals(NAME_311)) {
    fields.skipProperties()
    return { clientId: fields.bytes()?.toString() ?? null, refusal: refusedVersion(UNSUPPORTED_VERSION_5) }
  }
  const clientId = fields.bytes()
  const judgement = { clientId: clientId?.toString() ?? null }
  if ((level & ~BRIDGE_BIT) !== (name.equals(NAME_311) ? LEVEL_311 : LEVEL_31)) {
    return { ...judgement, refusal: refusedVersion(UNACCEPTABLE_VERSION) }
  }
  const broken = brokenByFlags(flags) ?? brokenByText(clientId) ?? brokenByRest(fields, flags)
  return { ...judgement, refusal: broken === null ? null : malformed(broken) }
}

function brokenByFlags(flags: number): string | null {
  if ((flags & RESERVED_FLAG) !== 0) return 'MQTT-3.1.2-3'
  const willQos = (flags >> WILL_QOS_SHIFT) & 3
  if ((flags & WILL_FLAG) === 0 && willQos !== 0) return 'MQTT-3.1.2-13'
  if ((flags & WILL_FLAG) === 0 && (flags & WILL_RETAIN_FLAG) !== 0) return 'MQTT-3.1.2-15'
  if (willQos === 3) return 'MQTT-3.1.2-14'
  return (flags & PASSWORD_FLAG) !== 0 && (flags & USER_NAME_FLAG) === 0 ? 'MQTT-3.1.2-22' : null
}

/** What follows the client id, in its order [MQTT-3.1.3-1]. */
function brokenByRest(fields: Fields, flags: number): string | null {
  if ((flags & WILL_FLAG) !== 0) {
    const topic = fields.bytes()
    const broken = brokenByText(topic) ?? brokenByTopic(topic)
    if (broken !== null) return broken
    if (fields.bytes() === null) return TRUNCATED
  }
  if ((flags & USER_NAME_FLAG) !== 0) {
    const broken = brokenByText(fields.bytes())
    if (broken !== null) return broken
  }
  if ((flags & PASSWORD_FLAG) !== 0 && fields.bytes() === null) return TRUNCATED
  // A field that the flags do not announce must not be there.
  return fields.isAtEnd ? null : 'MQTT-3.1.2-18, MQTT-3.1.2-20'
}

function brokenByText(text: Buffer | null): string | null {
  if (text === null) return TRUNCATED
  if (!isUtf8(text)) return WELL_FORMED
  return text.includes(0) ? NO_NULL : null
}

/** A will is published, so its topic is one of a PUBLISH. */
function brokenByTopic(topic: Buffer | null): string | null {
  if (topic === null || topic.length === 0) return 'MQTT-4.7.3-1'
  return topic.includes('+') || topic.includes('#') ? 'MQTT-3.3.2-2' : null
}

function malformed(detail: string): ConnectRefusal {
  return { reason: 'malformed_packet', detail, answer: null }
}

function refusedVersion(answer: Buffer): ConnectRefusal {
  return { reason: 'protocol_version', detail: 'MQTT 3.1.1 is spoken here: set protocol version 4.', answer }
}

function headerEnd(packet: Buffer): number {
  let at = 1
  while (((packet[at++] ?? 0) & 0x80) !== 0);
  return at
}

/** Reads one field after the other; null, and nothing more, once one is not whole. */
class Fields {
  readonly #packet: Buffer
  #at: number

  constructor(packet: Buffer, at: number) {
    this.#packet = packet
    this.#at = at
  }

  get isAtEnd(): boolean {
    return this.#at === this.#packet.length
  }

  byte(): number | null {
    return this.#packet[this.#at++] ?? null
  }

  skip(bytes: number): boolean {
    this.#at += bytes
    return this.#at <= this.#packet.length
  }

  /** After a length of two bytes [MQTT 3.1.1, 1.5.3]. */
  bytes(): Buffer | null {
    const at = this.#at + 2
    const end = at + (((this.#packet[this.#at] ?? 0) << 8) | (this.#packet[this.#at + 1] ?? 0))
    this.#at = end
    return at <= this.#packet.length && end <= this.#packet.length ? this.#packet.subarray(at, end) : null
  }

  /** The properties of an MQTT 5 CONNECT, after their length [MQTT 5, 3.1.2.11]. */
  skipProperties(): void {
    let length = 0
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.byte() ?? 0
      length |= (byte & 0x7f) << shift
      if ((byte & 0x80) === 0) break
    }
    this.skip(length)
  }
}
