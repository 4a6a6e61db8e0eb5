/**
 * MQTT 3.1.1 byte by byte, for what no library would send: packets with wrong flags, lengths and text, and where a stream of
 * bytes falls apart into packets. Packets are shown as hex, the way the specification's tables have them.
 */

export const PINGREQ = Buffer.from('c000', 'hex')
export const DISCONNECT = Buffer.from('e000', 'hex')

/** A packet of any first byte and body. */
export function packetOf(first: number, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const length: number[] = []
  let left = body.length
  do {
    const digit = left % 128
    left = Math.floor(left / 128)
    length.push(left > 0 ? digit | 128 : digit)
  } while (left > 0)
  return Buffer.concat([Buffer.from([first, ...length]), body])
}

/** Two bytes of length, then the text; a Buffer is taken as it is, so that it may be ill-formed. */
export function field(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([twoBytes(bytes.length), bytes])
}

export function twoBytes(value: number): Buffer {
  return Buffer.from([value >> 8, value & 255])
}

export interface ConnectShape {
  readonly isClean?: boolean
  readonly keepaliveS?: number
  readonly will?: { readonly topic: string | Buffer; readonly payload: string; readonly qos: number }
  readonly user?: string | Buffer
  readonly password?: string | Buffer
  readonly name?: string
  readonly level?: number
  /** Instead of the connect flags that what is given makes. */
  readonly flags?: number
}

export function connectBytes(clientId: string | Buffer, shape: ConnectShape = {}): Buffer {
  const { isClean = true, keepaliveS = 60, will, user, password, name = 'MQTT', level = 4 } = shape
  let flags = isClean ? 2 : 0
  const payload = [field(clientId)]
  if (will !== undefined) {
    flags |= 4 | (will.qos << 3)
    payload.push(field(will.topic), field(will.payload))
  }
  if (user !== undefined) {
    flags |= 128
    payload.push(field(user))
  }
  if (password !== undefined) {
    flags |= 64
    payload.push(field(password))
  }
  const properties = level === 5 ? [Buffer.from([0])] : []
  const head = [field(name), Buffer.from([level, shape.flags ?? flags]), twoBytes(keepaliveS)]
  return packetOf(0x10, ...head, ...properties, ...payload)
}

export interface PublishShape {
  readonly qos?: number
  readonly id?: number
  readonly isAgain?: boolean
  readonly isRetained?: boolean
}

/** QoS 1 with identifier 1 unless said otherwise. */
export function publishBytes(topic: string | Buffer, payload: string | Buffer, shape: PublishShape = {}): Buffer {
  const { qos = 1, id = 1, isAgain = false, isRetained = false } = shape
  const first = 0x30 | (isAgain ? 8 : 0) | (qos << 1) | (isRetained ? 1 : 0)
  return packetOf(first, field(topic), ...(qos > 0 ? [twoBytes(id)] : []), Buffer.from(payload))
}

/** A reading without `ts`. */
export function readingBytes(device: string, n: number, shape: PublishShape = {}): Buffer {
  return publishBytes(`devices/${device}/telemetry`, `{"n":${n}}`, shape)
}

export function pubrelBytes(id: number): Buffer {
  return packetOf(0x62, twoBytes(id))
}

export function subscribeBytes(id: number, filters: readonly string[], { qos = 1, first = 0x82 } = {}): Buffer {
  return packetOf(first, twoBytes(id), ...filters.flatMap(filter => [field(filter), Buffer.from([qos])]))
}

export function unsubscribeBytes(id: number, filters: readonly string[]): Buffer {
  return packetOf(0xa2, twoBytes(id), ...filters.map(filter => field(filter)))
}

/** Takes bytes as they come and hands over whole packets in order. */
export function openCutter(onPacket: (packet: Buffer) => void): (bytes: Buffer) => void {
  let rest = Buffer.alloc(0)
  return bytes => {
    rest = Buffer.concat([rest, bytes])
    for (let length = lengthOfFirst(rest); length !== null; length = lengthOfFirst(rest)) {
      const packet = rest.subarray(0, length)
      rest = rest.subarray(length)
      onPacket(packet)
    }
  }
}

/** The bytes of the first packet; null when they are not all there. */
function lengthOfFirst(bytes: Buffer): number | null {
  let length = 0
  for (let at = 1; at < Math.min(bytes.length, 5); at++) {
    const digit = bytes[at] ?? 0
    length += (digit & 127) * 128 ** (at - 1)
    if (digit < 128) return bytes.length >= at + 1 + length ? at + 1 + length : null
  }
  return null
}
