/**
 * Untrusted bytes → readings, or a refusal with its reason: the one door through which payloads enter ([G3]).
 *
 * The whole message is taken or the whole message is refused, never a part of it. Costs are linear in the payload.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import type { Reading } from '../model/reading.ts'
import { empty, openJsonReader, type Written } from './json-readings.ts'
import { checkName } from './names.ts'
import { parsePlainValue } from './plain-value.ts'
import { Refusal } from './refusal.ts'

const BYTE_ORDER_MARK = 0xfeff

const json = openJsonReader()

export type { Written } from './json-readings.ts'

/** What `decodePayload` fills in. */
export function openWritten(): Written {
  return { values: [], sent: [] }
}

/**
 * The readings of a payload, at least one and at most 1,000, or why there are none.
 * `metric` is the metric of a plain-value topic, null when the payload is JSON; `receivedAt` in µs since 1970 UTC, of the first
 * element. `written` gets what the device wrote, for `encodeReadings`.
 */
export function decodePayload(
  payload: Buffer,
  metric: string | null,
  receivedAt: number,
  written: Written = openWritten(),
): Reading[] | Refusal {
  try {
    const ascii = isAscii(payload)
    const text = ascii ? payload.toString('latin1') : decodeUtf8(payload)
    if (metric === null) {
      if (text.charCodeAt(0) === BYTE_ORDER_MARK) throw new Refusal('invalid_json', 'It starts with a byte order mark.')
      return json.read(text, ascii, receivedAt, written)
    }
    empty(written.values)
    empty(written.sent)
    return [{ metric: checkName(metric), ts: receivedAt, receivedAt, value: parsePlainValue(text), sentTs: null }]
  } catch (error) {
    if (error instanceof Refusal) return error
    throw error
  }
}

/** Strict, unlike Buffer.toString, which would put U+FFFD in the place of what it cannot read. */
function decodeUtf8(payload: Buffer): string {
  if (isUtf8(payload)) return payload.toString()
  const packed = payload[0] === 0x1f && payload[1] === 0x8b
  throw packed ? new Refusal('invalid_utf8', 'It is gzip; payloads are not unpacked.') : new Refusal('invalid_utf8')
}
