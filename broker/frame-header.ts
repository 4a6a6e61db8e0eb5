/**
 * The fixed header of a packet [MQTT 3.1.1, 2.2], and what can be judged of a packet by it alone: which types a client may
 * send, with which flags and of which length. A packet that breaks one of these rules closes the connection [MQTT-4.8.0-1].
 */

/** The first bytes of what a client sends; PUBLISH has flags of its own. */
export const CONNECT = 0x10
export const PUBLISH_TYPE = 0x3
export const PUBREL = 0x62
export const SUBSCRIBE = 0x82
export const UNSUBSCRIBE = 0xa2

/** The remaining length takes four bytes at most. */
const LENGTH_SHIFT_MAX = 21

export class FixedHeader {
  first = 0
  /** Of what follows the header, bytes. */
  length = 0
  /** Where that begins. */
  bodyAt = 0

  /** `short`: it goes on behind `bytes`. `long`: its remaining length is of more than four bytes. */
  read(bytes: Buffer, at: number): 'whole' | 'short' | 'long' {
    this.first = bytes[at] ?? 0
    this.length = 0
    for (let shift = 0, next = at + 1; shift <= LENGTH_SHIFT_MAX; shift += 7) {
      const byte = bytes[next++]
      if (byte === undefined) return 'short'
      this.length |= (byte & 0x7f) << shift
      this.bodyAt = next
      if ((byte & 0x80) === 0) return 'whole'
    }
    return 'long'
  }
}

interface Rule {
  /** The whole first byte. */
  readonly first: number
  readonly flags: string
  /** Of the remaining length, and the clause that says so. */
  readonly lengthMin: number
  readonly lengthMax: number
  readonly length: string
}

const ANY = Number.POSITIVE_INFINITY

/** By type. A type that is not here is none that a client may send [MQTT 3.1.1, 2.2.1]. */
const RULES: Readonly<Record<number, Rule>> = {
  // A second CONNECT is Aedes' to refuse [MQTT-3.1.0-2].
  1: { first: CONNECT, flags: 'MQTT-2.2.2-2', lengthMin: 0, lengthMax: ANY, length: '' },
  4: { first: 0x40, flags: 'MQTT-2.2.2-2', lengthMin: 2, lengthMax: 2, length: 'MQTT 3.1.1, 3.4.1' },
  5: { first: 0x50, flags: 'MQTT-2.2.2-2', lengthMin: 2, lengthMax: 2, length: 'MQTT 3.1.1, 3.5.1' },
  6: { first: PUBREL, flags: 'MQTT-3.6.1-1', lengthMin: 2, lengthMax: 2, length: 'MQTT 3.1.1, 3.6.1' },
  7: { first: 0x70, flags: 'MQTT-2.2.2-2', lengthMin: 2, lengthMax: 2, length: 'MQTT 3.1.1, 3.7.1' },
  // An identifier, and one filter at least, of one byte at least, with its QoS.
  8: { first: SUBSCRIBE, flags: 'MQTT-3.8.1-1', lengthMin: 6, lengthMax: ANY, length: 'MQTT-3.8.3-3' },
  10: { first: UNSUBSCRIBE, flags: 'MQTT-3.10.1-1', lengthMin: 5, lengthMax: ANY, length: 'MQTT-3.10.3-2' },
  12: { first: 0xc0, flags: 'MQTT-2.2.2-2', lengthMin: 0, lengthMax: 0, length: 'MQTT 3.1.1, 3.12.1' },
  14: { first: 0xe0, flags: 'MQTT-3.14.1-1', lengthMin: 0, lengthMax: 0, length: 'MQTT 3.1.1, 3.14.1' },
}

/** The clause that a packet with this header breaks; null when it breaks none. */
export function brokenByHeader({ first, length }: FixedHeader): string | null {
  const type = first >> 4
  if (type === PUBLISH_TYPE) return brokenByPublish(first)
  const rule = RULES[type]
  if (rule === undefined) return 'MQTT 3.1.1, 2.2.1'
  if (first !== rule.first) return rule.flags
  return length < rule.lengthMin || length > rule.lengthMax ? rule.length : null
}

/** The remaining length is of four bytes at most. */
export const BROKEN_BY_LENGTH = 'MQTT 3.1.1, 2.2.3'
/** A packet identifier is never 0. */
export const BROKEN_BY_IDENTIFIER = 'MQTT-2.3.1-1'

function brokenByPublish(first: number): string | null {
  const qos = (first >> 1) & 3
  if (qos === 3) return 'MQTT-3.3.1-4'
  return qos === 0 && (first & 0x08) !== 0 ? 'MQTT-3.3.1-2' : null
}
