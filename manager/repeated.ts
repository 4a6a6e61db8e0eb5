/** `surgetank repeated ls`: what was taken for a message sent again, so that an operator can judge it. */
import type { RepeatedEntry } from '../pump/pump.ts'
import { shownText } from '../shown-text.ts'

const COLUMNS = { at: 24, device: 24, why: 18 }
const WHY: Readonly<Record<RepeatedEntry['why'], string>> = {
  dup: 'DUP',
  other_connection: 'another connection',
  qos2: 'QoS 2, not released',
}
/** Of a payload, on the line of its message. */
const PAYLOAD_CHARS = 80

/** One line each, newest first, for a person. */
export function describeRepeated(entries: readonly RepeatedEntry[]): string {
  if (entries.length === 0) return 'No repetition is listed.'
  const head = row({ at: 'RECEIVED', device: 'DEVICE', why: 'WHY', topic: 'TOPIC', payload: 'PAYLOAD' })
  const rows = entries.map(({ receivedAt, device, topic, why, payload, payloadBytes }) =>
    row({
      at: new Date(receivedAt).toISOString(),
      device: shownText(device),
      // A newer version may know of more.
      why: WHY[why] ?? why,
      topic: shownText(topic),
      payload: beginningOf(payload, payloadBytes),
    }),
  )
  return [head, ...rows].join('\n')
}

function row({
  at,
  device,
  why,
  topic,
  payload,
}: Record<'at' | 'device' | 'why' | 'topic' | 'payload', string>): string {
  return `${at.padEnd(COLUMNS.at)} ${device.padEnd(COLUMNS.device)} ${why.padEnd(COLUMNS.why)} ${topic} ${payload}`
}

function beginningOf(payload: Uint8Array, payloadBytes: number): string {
  const text = Buffer.from(payload.subarray(0, PAYLOAD_CHARS)).toString('utf8')
  return `${shownText(text)}${payloadBytes > PAYLOAD_CHARS ? `… (${payloadBytes} bytes)` : ''}`
}

/** The entry as JSON, for a script. The payload is its beginning. */
export function repeatedToJson(entry: RepeatedEntry): Record<string, unknown> {
  const { receivedAt, device, topic, why, payload, payloadBytes } = entry
  return {
    received_at: new Date(receivedAt).toISOString(),
    ...{ device, topic, why },
    payload_bytes: payloadBytes,
    payload_base64: Buffer.from(payload).toString('base64'),
  }
}
