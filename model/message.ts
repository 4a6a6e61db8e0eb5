/**
 * A message: the readings of one publish in normal form, and its line in the log.
 *
 * The line is JSON, one documented shape, so that any other consumer can read the log:
 * `{"device":"press-17","receivedAt":1763640000140,"readings":[["temperature",1763640000123,21.5]]}`
 * A reading is [metric, the time the device gave in ms or null, value]. Its own time follows by `effectiveTs`. A number
 * written as digits only and beyond 2^53 is an exact integer; every other number is the nearest IEEE 754 double.
 */
import { effectiveTs, type Reading, type Value } from './reading.ts'

export interface Message {
  readonly device: string
  /** When the broker received it, ms since 1970 UTC. */
  readonly receivedAt: number
  readonly readings: readonly Reading[]
}

/** How lines are written. */
export type LineFormat = 1 | 2
export const LINE_FORMAT = 2

const PLAIN_TEXT = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/

/** The message as a line of the log, without the newline. */
export function encodeLine(message: Message): string {
  return `${lineHead(message.device, message.receivedAt)}${encodeReadings(message.readings)}}`
}

/** Everything of a line before its readings. `device` must match DEVICE_ID. */
export function lineHead(device: string, receivedAt: number): string {
  return `{"device":"${device}","receivedAt":${receivedAt},"readings":`
}

/**
 * The readings as the line holds them: the part that is the same when a device sends a message again. `written` may give
 * values as JSON numbers that the device wrote, which spares writing them anew.
 */
export function encodeReadings(readings: readonly Reading[], written: readonly (string | null)[] = []): string {
  let text = '['
  let separator = '['
  let sentTs: number | null = null
  let time = ',null,'
  for (let index = 0; index < readings.length; index++) {
    const reading = readings[index] as Reading
    // One message has one time, as a rule, and thirteen digits cost more to write than a value.
    if (reading.sentTs !== sentTs) {
      sentTs = reading.sentTs
      time = `,${sentTs},`
    }
    text += `${separator}${encodeText(reading.metric)}${time}${written[index] ?? encodeValue(reading.value)}]`
    separator = ',['
  }
  return `${text}]`
}

/** A value as JSON that `parseLine` brings back exactly. */
export function encodeValue(value: Value): string {
  if (typeof value === 'number') return encodeNumber(value)
  return typeof value === 'string' ? encodeText(value) : String(value)
}

function encodeNumber(value: number): string {
  if (value === 0) return Object.is(value, -0) ? '-0' : '0'
  // Digits alone would read back as an exact integer, which this double is not.
  return Math.abs(value) > Number.MAX_SAFE_INTEGER ? value.toExponential() : String(value)
}

function encodeText(text: string): string {
  return PLAIN_TEXT.test(text) ? `"${text}"` : JSON.stringify(text)
}

/** What may be an integer beyond 2^53 as a value: the cheap question that almost every chunk answers with no. */
const LARGE_INTEGER = /,-?\d{16,}\]/

/**
 * Lines of the log, as messages. Throws SyntaxError on a line that `encodeLine` did not write; the checksum of a chunk
 * makes that a bug, not an input.
 */
export function parseLines(lines: string, _format?: LineFormat): Message[] {
  if (lines === '') return []
  const trimmed = lines.endsWith('\n') ? lines.slice(0, -1) : lines
  if (LARGE_INTEGER.test(trimmed)) return trimmed.split('\n').map(parseExactLine)
  const parsed = JSON.parse(`[${trimmed.replaceAll('\n', ',')}]`) as ParsedLine[]
  return parsed.map(line => toMessage(line))
}

interface ParsedLine {
  device: string
  receivedAt: number
  readings: [string, number | null, Value][]
}

/** Keeps exact integers: JSON.parse sees their digits as ["digits"], a shape that no value has, and a bigint comes back. */
function parseExactLine(line: string): Message {
  if (!LARGE_INTEGER.test(line)) return toMessage(JSON.parse(line) as ParsedLine)
  const marked = JSON.parse(markLargeIntegers(line)) as ParsedLine
  return toMessage(marked, value => (Array.isArray(value) ? BigInt(String(value[0])) : value))
}

function markLargeIntegers(line: string): string {
  let out = ''
  let inText = false
  let from = 0
  for (let at = 0; at < line.length; at++) {
    const char = line.charCodeAt(at)
    if (inText) {
      if (char === 0x5c) at++
      else if (char === 0x22) inText = false
      continue
    }
    if (char === 0x22) inText = true
    else if (char === 0x2c) {
      const digits = /^-?\d{16,}(?=\])/.exec(line.slice(at + 1, at + 80))?.[0]
      if (digits === undefined || Number.isSafeInteger(Number(digits))) continue
      out += `${line.slice(from, at + 1)}["${digits}"]`
      at += digits.length
      from = at + 1
    }
  }
  return out + line.slice(from)
}

function toMessage(line: ParsedLine, restore?: (value: Value) => Value): Message {
  const { device, receivedAt } = line
  const readings = line.readings.map(([metric, sentTs, value]) => ({
    metric,
    ts: effectiveTs(sentTs, receivedAt),
    value: restore === undefined ? value : restore(value),
    sentTs,
  }))
  return { device, receivedAt, readings }
}
