/**
 * The time that a device gives, as ms since 1970 UTC, or a refusal. Never a guess: a time without a zone is refused,
 * because reading it as UTC would store the readings of half the world hours away from when they were taken ([G3]).
 *
 * Numbers tell their unit by their size, as peers do: below 1e11 seconds, below 1e14 ms, below 1e17 µs, else ns. A time is
 * kept to the millisecond; what is finer is cut off.
 */
import { LIMITS } from '../model/limits.ts'
import type { Value } from '../model/reading.ts'
import { quote, Refusal } from './refusal.ts'

/** The last millisecond of the year 9999. */
const TS_MAX = 253_402_300_799_999

const DIGITS = /^\d{1,20}(?:\.\d{1,20})?$/
const ISO = /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,20}))?)?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)$/
const ISO_WITHOUT_ZONE = /^\d{4}-\d\d-\d\d(?:[Tt ][\d:.,]+)?$/

/**
 * The time of readings, from a number, a text of digits or ISO 8601 with its zone.
 * Throws Refusal: `invalid_timestamp` when it is no time, `timestamp_out_of_range` before 2000 or after 9999.
 */
export function parseTime(value: Value): number {
  const time = typeof value === 'string' ? parseText(value) : parseAmount(value)
  if (time >= LIMITS.tsMin && time <= TS_MAX) return time
  throw new Refusal('timestamp_out_of_range', `${quote(String(value))} is before 2000 or after 9999.`)
}

function parseAmount(value: Value): number {
  if (typeof value === 'bigint') return parseLargeAmount(value)
  if (typeof value !== 'number') throw new Refusal('invalid_timestamp', `${String(value)} is not a time.`)
  if (value < 1e11) return Number.isInteger(value) ? value * 1000 : fromSeconds(value)
  if (value < 1e14) return Math.floor(value)
  return Math.floor(value < 1e17 ? value / 1e3 : value / 1e6)
}

/** Half a µs is added because 2148850618.463 is a hair less as a double, and must not lose its last millisecond. */
function fromSeconds(seconds: number): number {
  return Math.floor(seconds * 1000 + 0.0005)
}

/** In whole numbers: a nanosecond time has 19 digits, and a double would miss the millisecond. */
function parseLargeAmount(value: bigint): number {
  return Number(value < 100_000_000_000_000_000n ? value / 1_000n : value / 1_000_000n)
}

function parseText(text: string): number {
  if (DIGITS.test(text)) {
    const amount = Number(text)
    return parseAmount(Number.isSafeInteger(amount) || text.includes('.') ? amount : BigInt(text))
  }
  const parts = ISO.exec(text)
  if (parts !== null) return parseIso(text, parts)
  const why = ISO_WITHOUT_ZONE.test(text) ? 'has no zone: it needs a time of day and Z or an offset' : 'is not a time'
  throw new Refusal('invalid_timestamp', `${quote(text)} ${why}.`)
}

function parseIso(text: string, parts: RegExpExecArray): number {
  const [year, month, day, hour, minute] = parts.slice(1, 6).map(Number) as [number, number, number, number, number]
  const second = Number(parts[6] ?? 0)
  const ms = Number((parts[7] ?? '').slice(0, 3).padEnd(3, '0'))
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  const isDay = date.getUTCMonth() === month - 1 && date.getUTCDate() === day
  const offsetHours = Number(parts[9] ?? 0)
  const offsetMinutes = Number(parts[10] ?? 0)
  const isClock = hour < 24 && minute < 60 && second < 60 && offsetHours < 24 && offsetMinutes < 60
  if (!isDay || !isClock) throw new Refusal('invalid_timestamp', `${quote(text)} is no day or no time of day.`)
  const offset = (offsetHours * 60 + offsetMinutes) * (parts[8] === '-' ? -60_000 : 60_000)
  return date.getTime() + ((hour * 60 + minute) * 60 + second) * 1000 + ms - offset
}
