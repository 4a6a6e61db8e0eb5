/**
 * The little of MQTT 3.1.1 that a load generator says, as bytes. A PUBLISH is a template that is copied and patched:
 * every field that changes has a fixed width, so that a message costs the generator far less than it costs the broker.
 */

const PAYLOAD_TS = '0000000000000'
const PAYLOAD_DECIMAL = '00.00'
const PAYLOAD_COUNTER = '1000000000'

const HEAD = '{"ts":'
const TO_TEMPERATURE = `${HEAD}${PAYLOAD_TS},"values":{"temperature_celsius":`
const TO_HUMIDITY = `${TO_TEMPERATURE}${PAYLOAD_DECIMAL},"relative_humidity":`
const TO_COUNTER = `${TO_HUMIDITY}${PAYLOAD_DECIMAL},"message_counter":`
const PAYLOAD = `${TO_COUNTER}${PAYLOAD_COUNTER}}}`

/** Of every message. */
export const PAYLOAD_BYTES = PAYLOAD.length

/** Counters are written as 1,000,000,000 + counter: always ten digits. */
export const COUNTER_BASE = 1_000_000_000
export const COUNTER_MAX = 999_999_999

const DUP = 0x08
const PUBLISH_QOS1 = 0x32

/** The metrics of a message and their values: a function of its counter, so that a changed value is noticed [G3]. */
export function readingsOf(counter: number): [metric: string, value: number][] {
  return [
    ['temperature_celsius', decimalOf(counter, 7919) / 100],
    ['relative_humidity', decimalOf(counter, 104_729) / 100],
    ['message_counter', COUNTER_BASE + counter],
  ]
}

export const READINGS_PER_MESSAGE = 3

/** Hundredths from 10.00 to 99.99. */
function decimalOf(counter: number, factor: number): number {
  return 1_000 + ((counter * factor) % 9_000)
}

export interface PublishTemplate {
  readonly bytes: Buffer
  readonly packetIdAt: number
  readonly tsAt: number
  readonly temperatureAt: number
  readonly humidityAt: number
  readonly counterAt: number
}

/** A QoS 1 PUBLISH to `topic`, to be patched by `writePublish`. */
export function publishTemplate(topic: string): PublishTemplate {
  const topicBytes = Buffer.from(topic)
  const header = [PUBLISH_QOS1, ...remainingLength(2 + topicBytes.length + 2 + PAYLOAD_BYTES)]
  const packetIdAt = header.length + 2 + topicBytes.length
  const payloadAt = packetIdAt + 2
  const bytes = Buffer.concat([Buffer.from(header), lengthPrefixed(topicBytes), Buffer.alloc(2), Buffer.from(PAYLOAD)])
  return {
    bytes,
    packetIdAt,
    tsAt: payloadAt + HEAD.length,
    temperatureAt: payloadAt + TO_TEMPERATURE.length,
    humidityAt: payloadAt + TO_HUMIDITY.length,
    counterAt: payloadAt + TO_COUNTER.length,
  }
}

export interface PublishFields {
  readonly packetId: number
  /** ms since 1970 UTC; the payload has 13 digits for it. */
  readonly ts: number
  /** 0 to COUNTER_MAX. */
  readonly counter: number
  /** True when it was sent before: [MQTT-3.3.1-1]. */
  readonly dup: boolean
}

/** Writes the message into `out` at `at`; returns where the next one goes. */
export function writePublish(out: Buffer, at: number, template: PublishTemplate, fields: PublishFields): number {
  out.set(template.bytes, at)
  if (fields.dup) out[at] = PUBLISH_QOS1 | DUP
  const packetIdAt = at + template.packetIdAt
  out[packetIdAt] = fields.packetId >> 8
  out[packetIdAt + 1] = fields.packetId & 0xff
  // Two halves, because the digits of a number beyond 2^31 cost a double division each.
  writeDigits(out, at + template.tsAt, Math.floor(fields.ts / 1_000_000), 7)
  writeDigits(out, at + template.tsAt + 7, fields.ts % 1_000_000, 6)
  writeDecimal(out, at + template.temperatureAt, decimalOf(fields.counter, 7919))
  writeDecimal(out, at + template.humidityAt, decimalOf(fields.counter, 104_729))
  writeDigits(out, at + template.counterAt + 1, fields.counter, 9)
  return at + template.bytes.length
}

function writeDecimal(out: Buffer, at: number, hundredths: number): void {
  writeDigits(out, at, Math.floor(hundredths / 100), 2)
  writeDigits(out, at + 3, hundredths % 100, 2)
}

function writeDigits(out: Buffer, at: number, value: number, digits: number): void {
  let rest = value
  for (let index = at + digits - 1; index >= at; index--) {
    const next = Math.floor(rest / 10)
    out[index] = 0x30 + rest - next * 10
    rest = next
  }
}

/** CONNECT with a clean session and no keepalive: a generator is never silent for a reason of its own. */
export function connectPacket(clientId: string): Buffer {
  const body = Buffer.concat([
    lengthPrefixed(Buffer.from('MQTT')),
    Buffer.from([4, 0x02, 0, 0]),
    lengthPrefixed(Buffer.from(clientId)),
  ])
  return Buffer.concat([Buffer.from([0x10, ...remainingLength(body.length)]), body])
}

export const DISCONNECT = Buffer.from([0xe0, 0])

/** The answers of a broker that a publisher gets; all are short. */
export interface Answers {
  connack(returnCode: number): void
  puback(packetId: number): void
}

/** Reads answers from chunks cut anywhere; returns the function that takes the chunks. Throws on any other packet. */
export function answerReader(answers: Answers): (chunk: Buffer) => void {
  let carried: Buffer | null = null
  return chunk => {
    const bytes: Buffer = carried === null ? chunk : Buffer.concat([carried, chunk])
    let at = 0
    while (bytes.length - at >= 2) {
      const end = at + 2 + (bytes[at + 1] ?? 0)
      if (end > bytes.length) break
      const type = bytes[at]
      if (type === 0x40) answers.puback(((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0))
      else if (type === 0x20) answers.connack(bytes[at + 3] ?? 0xff)
      else throw new Error(`The broker sent a packet that a publisher does not expect: 0x${type?.toString(16)}.`)
      at = end
    }
    carried = at === bytes.length ? null : bytes.subarray(at)
  }
}

function lengthPrefixed(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

/** [MQTT 2.2.3] Seven bits per byte, the lowest first. */
function remainingLength(length: number): number[] {
  const low = length & 0x7f
  return length < 0x80 ? [low] : [low | 0x80, ...remainingLength(length >> 7)]
}
