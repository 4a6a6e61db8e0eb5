/**
 * A message: the readings of one publish in normal form, and its line in the log.
 *
 * The line is JSON, one documented shape, so that any other consumer can read the log:
 * `{"device":"press-17","receivedAt":1763640000140000,"packet":17,"readings":[["temperature",21.5]],"times":[1763640000123000]}`
 * The device is written in ASCII, with the escapes of JSON for whatever else it holds. A reading is [metric, value]. A number
 * written as digits only and beyond 2^53 is an exact integer; every other number is the nearest IEEE 754 double. An object of
 * readings is an element; a list has several. Element k was received at `receivedAt` + k.
 *
 * - `receivedAt`: µs, of the first element.
 * - `qos2`: what a session must know of a QoS 2 message after a crash (`encodeMark`); left out where no session is kept.
 * - `packet`: the MQTT packet identifier; left out at QoS 0, which has none.
 * - `times`: for each element the time that the device gave in µs, or null; left out when it gave none. The time of a
 *   reading follows by `effectiveTs`.
 * - `elements`: the place of the first reading of each element after the first; left out for one.
 * - `sent`: for each element its time as the device wrote it, and its `seq` and `id` (`encodeSent`); left out when there is
 *   nothing to say.
 *
 * The identity of a message is its device and all of its line from the readings on: so two messages are the same only when
 * their values, their times as written and their `seq` and `id` are.
 *
 * The format is a number that stands beside the lines, once for many. A line of format 1 counts in ms, holds the time in
 * each reading, [metric, time or null, value], and has none of the rest.
 */
import { effectiveTs, type Reading, type Value } from './reading.ts'
import { timeDigits, US_PER_MS } from './time.ts'

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
  /** `encodeMark`; null for none. */
  readonly mark?: string | null
  /** For each element `encodeSent`; '' for one of which there is nothing to say. */
  readonly sent?: readonly string[]
}

const PLAIN_TEXT = /^[\x20\x21\x23-\x5b\x5d-\x7e]*$/
const WHOLE_MS_DIGITS = 13

/** The message as a line of the log, without the newline. */
export function encodeLine(
  { device, receivedAt, readings }: Message,
  { packet = 0, mark = null, sent = [] }: LineExtras = {},
): string {
  return `${lineHead(device, receivedAt, packet, mark)}${encodeReadings(readings, [], sent)}}`
}

/** Everything of a line before its readings, in ASCII. `packet` is 0 for none, `mark` of `encodeMark`. */
export function lineHead(device: string, receivedAt: number, packet: number, mark: string | null): string {
  const received = `{"device":"${escapeDevice(device)}","receivedAt":${timeDigits(receivedAt)},`
  if (packet === 0) return `${received}"readings":`
  if (mark === null) return `${received}"packet":${packet},"readings":`
  return `${received}"qos2":"${mark}","packet":${packet},"readings":`
}

/** The mark of a QoS 2 message that a session has opened [MQTT-4.3.3-2]. */
export interface Mark {
  /** The life of the session's record when its connection opened it, and the life that the connection gives it. */
  readonly before: string
  readonly life: string
  /** Of the connection's QoS 2 messages in turn, from 1. */
  readonly number: number
  /** The same for the same topic and payload. */
  readonly print: string
}

/** All but `number` are printable ASCII without space, quote and backslash. */
export function encodeMark({ before, life, number, print }: Mark): string {
  return `${before} ${life} ${number} ${print}`
}

const MARK_BEGIN = ',"qos2":"'
const MARK = /^(\S+) (\S+) (\d+) (\S+)","packet":(\d+),/
const MARK_CHARS_MAX = 512

/**
 * The marks in lines of the log, with their packet identifiers, oldest first. Looks for their beginning only, which stands nowhere
 * else in a line because the quotes of a text are escaped: parsing every line that a restart reads would hold it up.
 */
export function findMarks(lines: Buffer): (Mark & { readonly packet: number })[] {
  const marks = []
  for (let at = lines.indexOf(MARK_BEGIN); at !== -1; at = lines.indexOf(MARK_BEGIN, at + 1)) {
    const from = at + MARK_BEGIN.length
    const found = MARK.exec(lines.toString('latin1', from, from + MARK_CHARS_MAX))
    if (found === null) continue
    const [, before = '', life = '', number, print = '', packet] = found
    marks.push({ before, life, number: Number(number), print, packet: Number(packet) })
  }
  return marks
}

const BEYOND_ASCII = /[\u0080-\uffff]/g

/** What stands between the quotes: ASCII, with the escapes of JSON, so that a line's head has as many bytes as characters. */
function escapeDevice(device: string): string {
  if (PLAIN_TEXT.test(device)) return device
  const json = JSON.stringify(device).slice(1, -1)
  return json.replace(BEYOND_ASCII, unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/**
 * The line from the readings on, without its closing brace: the part that is the same when a device sends a message again.
 * `written` may give values as JSON numbers that the device wrote, which spares writing them anew. Readings of one element
 * have one receipt and one time.
 */
export function encodeReadings(
  readings: readonly Reading[],
  written: readonly (string | null)[] = [],
  sent: readonly string[] = [],
): string {
  let text = ''
  let times = ''
  let elements = ''
  let hasTimes = false
  let receivedAt = Number.NaN
  for (let index = 0; index < readings.length; index++) {
    const reading = readings[index] as Reading
    if (reading.receivedAt !== receivedAt) {
      receivedAt = reading.receivedAt
      hasTimes ||= reading.sentTs !== null
      times += `${index === 0 ? '' : ','}${reading.sentTs === null ? 'null' : timeDigits(reading.sentTs)}`
      if (index > 0) elements += `${elements === '' ? '' : ','}${index}`
    }
    text += `${index === 0 ? '[' : ',['}${encodeText(reading.metric)},${written[index] ?? encodeValue(reading.value)}]`
  }
  const ofTimes = hasTimes ? `,"times":[${times}]` : ''
  const ofElements = elements === '' ? '' : `,"elements":[${elements}]`
  return `[${text}]${ofTimes}${ofElements}${encodeSents(sent)}`
}

function encodeSents(sent: readonly string[]): string {
  let isEmpty = true
  for (const one of sent) if (one !== '') isEmpty = false
  return isEmpty ? '' : `,"sent":[${sent.map(encodeText).join()}]`
}

/**
 * What else an element says of itself: its time as the device wrote it, then its `seq` and `id` as JSON. The time is left
 * out when it is a count of whole ms, as most devices write it, because then the µs of the reading say the same.
 */
export function encodeSent(time: string, seq: Value | undefined, id: Value | undefined): string {
  const written = isWholeMs(time) ? '' : time
  if (seq === undefined && id === undefined) return written
  const ofSeq = seq === undefined ? '' : ` seq=${encodeValue(seq)}`
  return id === undefined ? `${written}${ofSeq}` : `${written}${ofSeq} id=${encodeValue(id)}`
}

function isWholeMs(time: string): boolean {
  if (time.length !== WHOLE_MS_DIGITS || time.charCodeAt(0) === 0x30) return false
  for (let at = 0; at < WHOLE_MS_DIGITS; at++) {
    const digit = time.charCodeAt(at)
    if (digit < 0x30 || digit > 0x39) return false
  }
  return true
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
const LARGE_INTEGER: Readonly<Record<LineFormat, RegExp>> = { 1: /,-?\d{16,}\]/, 2: /",-?\d{16,}\]/ }

/**
 * Lines of the log, as messages. Throws SyntaxError on a line that no version wrote; the checksum of a chunk makes that a
 * bug, not an input.
 */
export function parseLines(lines: string, format: LineFormat): Message[] {
  if (lines === '') return []
  const trimmed = lines.endsWith('\n') ? lines.slice(0, -1) : lines
  if (LARGE_INTEGER[format].test(trimmed)) return trimmed.split('\n').map(line => parseExactLine(line, format))
  const parsed = JSON.parse(`[${trimmed.replaceAll('\n', ',')}]`) as ParsedLine[]
  return parsed.map(line => toMessage(line, format))
}

/** A line of either format; values of `readings` are as JSON.parse has them. */
interface ParsedLine {
  device: string
  receivedAt: number
  readings: [metric: string, ...rest: unknown[]][]
  times?: (number | null)[]
  elements?: number[]
}

/** Keeps exact integers: JSON.parse sees their digits as ["digits"], a shape that no value has, and a bigint comes back. */
function parseExactLine(line: string, format: LineFormat): Message {
  if (!LARGE_INTEGER[format].test(line)) return toMessage(JSON.parse(line) as ParsedLine, format)
  const marked = JSON.parse(markLargeIntegers(line, format)) as ParsedLine
  for (const reading of marked.readings) {
    const last = reading.length - 1
    if (Array.isArray(reading[last])) reading[last] = BigInt(String(reading[last]))
  }
  return toMessage(marked, format)
}

/** In format 2 a value stands right behind the name of its metric: digits elsewhere are times. */
function markLargeIntegers(line: string, format: LineFormat): string {
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
    else if (char === 0x2c && (format === 1 || line.charCodeAt(at - 1) === 0x22)) {
      const digits = /^-?\d{16,}(?=\])/.exec(line.slice(at + 1, at + 80))?.[0]
      if (digits === undefined || Number.isSafeInteger(Number(digits))) continue
      out += `${line.slice(from, at + 1)}["${digits}"]`
      at += digits.length
      from = at + 1
    }
  }
  return out + line.slice(from)
}

const NONE: readonly never[] = []

function toMessage(line: ParsedLine, format: LineFormat): Message {
  if (format === 1) return toMessageOfMs(line)
  const { device, receivedAt: first, times = NONE, elements = NONE } = line
  let place = 0
  const readings = line.readings.map(([metric, value], index) => {
    if (index === elements[place]) place++
    const receivedAt = first + place
    const sentTs = times[place] ?? null
    return { metric, ts: effectiveTs(sentTs, receivedAt), receivedAt, value: value as Value, sentTs }
  })
  return { device, receivedAt: first, readings }
}

function toMessageOfMs({ device, receivedAt: receivedMs, readings }: ParsedLine): Message {
  const receivedAt = receivedMs * US_PER_MS
  const read = readings.map(([metric, time, value]) => {
    const sentTs = time === null ? null : (time as number) * US_PER_MS
    return { metric, ts: effectiveTs(sentTs, receivedAt), receivedAt, value: value as Value, sentTs }
  })
  return { device, receivedAt, readings: read }
}
