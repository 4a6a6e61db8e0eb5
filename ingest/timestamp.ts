/**
 * The time that a device gives, as µs since 1970 UTC, or a refusal. Never a guess: a time without a zone is refused,
 * because reading it as UTC would store the readings of half the world hours away from when they were taken ([G3]).
 *
 * Numbers tell their unit by their size, as peers do: below 1e11 seconds, below 1e14 ms, below 1e17 µs, else ns. They are
 * read by their digits, never as doubles. A time is kept to the µs; what is finer is cut off, and stays in the log as the
 * device wrote it. After 2255, where µs are beyond 2^53 and no reading's own time can lie, it is kept to the ms.
 */
import { LIMITS } from '../model/limits.ts'
import type { Value } from '../model/reading.ts'
import { US_PER_MS } from '../model/time.ts'
import { quote, Refusal } from './refusal.ts'

const TS_MIN = LIMITS.tsMin * US_PER_MS
/** The last millisecond of the year 9999, and its end. A double so large tells no µs apart: the last ones are the end. */
const TS_MAX = 253_402_300_799_999 * US_PER_MS
const TS_END = 253_402_300_800_000 * US_PER_MS

const DIGITS = /^(\d{1,20})(?:\.(\d{1,20}))?$/
const ISO = /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,20}))?)?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)$/
const ISO_WITHOUT_ZONE = /^\d{4}-\d\d-\d\d(?:[Tt ][\d:.,]+)?$/

/**
 * The time of readings, from a number, a text of digits or ISO 8601 with its zone. `written` is the number as the device wrote
 * it, null where that is not known.
 * Throws Refusal: `invalid_timestamp` when it is no time, `timestamp_out_of_range` before 2000 or after 9999.
 */
export function parseTime(value: Value, written: string | null = null): number {
  const time = typeof value === 'string' ? parseText(value) : parseNumber(value, written)
  if (time >= TS_MIN && time <= TS_END) return time <= Number.MAX_SAFE_INTEGER ? time : wholeMs(time)
  throw new Refusal('timestamp_out_of_range', `${quote(String(value))} is before 2000 or after 9999.`)
}

function wholeMs(time: number): number {
  return Math.min(Math.round(time / US_PER_MS) * US_PER_MS, TS_MAX)
}

function parseNumber(value: Exclude<Value, string>, written: string | null): number {
  if (typeof value !== 'number' && typeof value !== 'bigint')
    throw new Refusal('invalid_timestamp', `${String(value)} is not a time.`)
  // One with decimals may be nearer to a whole number than to any other double.
  if (Number.isInteger(value) && written?.includes('.') !== true) {
    const amount = value as number
    if (amount < 1e11) return amount * 1e6
    if (amount < 1e14) return amount * US_PER_MS
  }
  // A number with an exponent is read as V8 writes it without one.
  return parseDigits(written !== null && DIGITS.test(written) ? written : String(value))
}

/** NaN for what is no plain decimal number: a negative one, or one far out of any range. */
function parseDigits(text: string): number {
  const [, whole = '', fraction = ''] = DIGITS.exec(text) ?? []
  const amount = Number(whole === '' ? Number.NaN : whole)
  if (amount < 1e11) return scale(whole, fraction, 6)
  if (amount < 1e14) return scale(whole, fraction, 3)
  if (amount < 1e17) return amount
  return Math.floor(Number(whole.slice(0, -3)))
}

function scale(whole: string, fraction: string, digits: number): number {
  return Number(whole + fraction.slice(0, digits).padEnd(digits, '0'))
}

function parseText(text: string): number {
  if (DIGITS.test(text)) return parseDigits(text)
  const parts = ISO.exec(text)
  if (parts !== null) return parseIso(text, parts)
  const why = ISO_WITHOUT_ZONE.test(text) ? 'has no zone: it needs a time of day and Z or an offset' : 'is not a time'
  throw new Refusal('invalid_timestamp', `${quote(text)} ${why}.`)
}

function parseIso(text: string, parts: RegExpExecArray): number {
  const [year, month, day, hour, minute] = parts.slice(1, 6).map(Number) as [number, number, number, number, number]
  const second = Number(parts[6] ?? 0)
  const us = Number((parts[7] ?? '').slice(0, 6).padEnd(6, '0'))
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  const isDay = date.getUTCMonth() === month - 1 && date.getUTCDate() === day
  const offsetHours = Number(parts[9] ?? 0)
  const offsetMinutes = Number(parts[10] ?? 0)
  const isClock = hour < 24 && minute < 60 && second < 60 && offsetHours < 24 && offsetMinutes < 60
  if (!isDay || !isClock) throw new Refusal('invalid_timestamp', `${quote(text)} is no day or no time of day.`)
  const offset = (offsetHours * 60 + offsetMinutes) * (parts[8] === '-' ? -60_000 : 60_000)
  return (date.getTime() + ((hour * 60 + minute) * 60 + second) * 1000 - offset) * US_PER_MS + us
}
