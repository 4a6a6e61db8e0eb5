/**
 * A message: the readings of one publish in normal form, and its line in the log.
 *
 * The line is JSON, one documented shape, so that any other consumer can read the log:
 * `{"device":"press-17","receivedAt":1763640000140000,"packet":17,"readings":[["temperature",1763640000123000,21.5]]}`
 * A reading is [metric, the time the device gave in µs or null, value]. Its own time follows by `effectiveTs`. A number
 * written as digits only and beyond 2^53 is an exact integer; every other number is the nearest IEEE 754 double.
 *
 * - `receivedAt`: µs, of the first element. An element is an object of a list; element k was received k µs later.
 * - `packet`: the MQTT packet identifier; left out at QoS 0, which has none.
 * - `elements`, behind the readings: the place of the first reading of each element after the first; left out for one.
 * - `sent`, at the end: for each element its time as the device wrote it, and its `seq` and `id` (`encodeSent`); left out
 *   when there is nothing to say.
 *
 * The identity of a message is its device and all of its line from the readings on: so two messages are the same only when
 * their values, their times as written and their `seq` and `id` are.
 *
 * The format is a number that stands beside the lines, once for many. Lines of format 1 count in ms, and have neither
 * `packet` nor `elements` nor `sent`.
 */
import { effectiveTs, type Reading, type Value } from './reading.ts'
import { toMs, US_PER_MS } from './time.ts'

export interface Message {
  readonly device: string
  /** When its unit received its first element, µs since 1970 UTC. */
  readonly receivedAt: number
  readonly readings: readonly Reading[]
}

export type LineFormat = 1 | 2
/** The format of lines that this version writes. */
export const LINE_FORMAT = 2

/** Text that stands in a line beside the readings. */
export interface LineExtras {
  /** The MQTT packet identifier; 0 for none. */
  readonly packet?: number
  /** For each element `encodeSent`; '' for one of which there is nothing to say. */
  readonly sent?: readonly string[]
}

const PLAIN_TEXT = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/
const WHOLE_MS = /^[1-9]\d{12}$/
const THREE_DIGITS = Array.from({ length: US_PER_MS }, (_, us) => String(us).padStart(3, '0'))

/** Of the receipt written last. */
let lastMs = -1
let lastMsText = ''

/** The message as a line of the log, without the newline. */
export function encodeLine(
  { device, receivedAt, readings }: Message,
  { packet = 0, sent = [] }: LineExtras = {},
): string {
  return `${lineHead(device, receivedAt, packet)}${encodeReadings(readings, [], sent)}}`
}

/** Everything of a line before its readings. `device` must match DEVICE_ID; `packet` is 0 for none. */
export function lineHead(device: string, receivedAt: number, packet: number): string {
  const received = `{"device":"${device}","receivedAt":${encodeReceipt(receivedAt)},`
  return packet === 0 ? `${received}"readings":` : `${received}"packet":${packet},"readings":`
}

/** Receipts all differ, but many are of one ms: sixteen digits cost more to write than three. */
function encodeReceipt(receivedAt: number): string {
  const ms = toMs(receivedAt)
  if (ms !== lastMs) {
    lastMs = ms
    lastMsText = String(ms)
  }
  return `${lastMsText}${THREE_DIGITS[receivedAt - ms * US_PER_MS]}`
}

/**
 * The line from the readings on, without its closing brace: the part that is the same when a device sends a message again.
 * `written` may give values as JSON numbers that the device wrote, which spares writing them anew.
 */
export function encodeReadings(
  readings: readonly Reading[],
  written: readonly (string | null)[] = [],
  sent: readonly string[] = [],
): string {
  let text = '['
  let separator = '['
  let sentTs: number | null = null
  let time = ',null,'
  for (let index = 0; index < readings.length; index++) {
    const reading = readings[index] as Reading
    // One message has one time, as a rule, and sixteen digits cost more to write than a value.
    if (reading.sentTs !== sentTs) {
      sentTs = reading.sentTs
      time = `,${sentTs},`
    }
    text += `${separator}${encodeText(reading.metric)}${time}${written[index] ?? encodeValue(reading.value)}]`
    separator = ',['
  }
  return `${text}]${encodeElements(readings)}${encodeSents(sent)}`
}

function encodeElements(readings: readonly Reading[]): string {
  const last = readings.at(-1)
  if (last === undefined || last.receivedAt === readings[0]?.receivedAt) return ''
  const starts: number[] = []
  for (let index = 1; index < readings.length; index++) {
    if (readings[index]?.receivedAt !== readings[index - 1]?.receivedAt) starts.push(index)
  }
  return `,"elements":[${starts.join(',')}]`
}

function encodeSents(sent: readonly string[]): string {
  for (const one of sent) if (one !== '') return `,"sent":${JSON.stringify(sent)}`
  return ''
}

/**
 * What else an element says of itself: its time as the device wrote it, then its `seq` and `id` as JSON. The time is left
 * out when it is a count of whole ms, as most devices write it, because then the µs of the reading say the same.
 */
export function encodeSent(time: string, seq: Value | undefined, id: Value | undefined): string {
  const written = WHOLE_MS.test(time) ? '' : time
  if (seq === undefined && id === undefined) return written
  const ofSeq = seq === undefined ? '' : ` seq=${encodeValue(seq)}`
  return id === undefined ? `${written}${ofSeq}` : `${written}${ofSeq} id=${encodeValue(id)}`
}

/** A value as JSON that `parseLines` brings back exactly. */
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
 * Lines of the log, as messages. Throws SyntaxError on a line that no version wrote; the checksum of a chunk makes that a
 * bug, not an input.
 */
export function parseLines(lines: string, format: LineFormat): Message[] {
  if (lines === '') return []
  const trimmed = lines.endsWith('\n') ? lines.slice(0, -1) : lines
  const usPerCount = format === 1 ? US_PER_MS : 1
  if (LARGE_INTEGER.test(trimmed)) return trimmed.split('\n').map(line => parseExactLine(line, usPerCount))
  const parsed = JSON.parse(`[${trimmed.replaceAll('\n', ',')}]`) as ParsedLine[]
  return parsed.map(line => toMessage(line, usPerCount))
}

interface ParsedLine {
  device: string
  receivedAt: number
  readings: [string, number | null, Value][]
  elements?: number[]
}

/** Keeps exact integers: JSON.parse sees their digits as ["digits"], a shape that no value has, and a bigint comes back. */
function parseExactLine(line: string, usPerCount: number): Message {
  if (!LARGE_INTEGER.test(line)) return toMessage(JSON.parse(line) as ParsedLine, usPerCount)
  const marked = JSON.parse(markLargeIntegers(line)) as ParsedLine
  return toMessage(marked, usPerCount, value => (Array.isArray(value) ? BigInt(String(value[0])) : value))
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

function toMessage(line: ParsedLine, usPerCount: number, restore?: (value: Value) => Value): Message {
  const { device, elements = [] } = line
  const first = line.receivedAt * usPerCount
  let receivedAt = first
  const readings = line.readings.map(([metric, time, value], index) => {
    if (index === elements[receivedAt - first]) receivedAt++
    const sentTs = time === null ? null : time * usPerCount
    const ts = effectiveTs(sentTs, receivedAt)
    return { metric, ts, receivedAt, value: restore === undefined ? value : restore(value), sentTs }
  })
  return { device, receivedAt: first, readings }
}
