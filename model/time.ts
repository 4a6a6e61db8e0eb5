/**
 * Times in µs. A reading's times are whole µs since 1970 UTC, as plain numbers: exact up to the year 2255 (2^53 µs). Lines
 * of the log hold such times, too; clocks, presence and what the log says of its chunks count in ms.
 */

export const US_PER_MS = 1_000

/** The whole ms that holds a time in µs. */
export function toMs(us: number): number {
  return Math.floor(us / US_PER_MS)
}

const US_PER_SECOND = 1_000_000
const THREE_DIGITS: readonly string[] = Array.from({ length: 1_000 }, (_, number) => String(number).padStart(3, '0'))
let lastSecond = 0
let lastSecondText = '0'

/**
 * The digits of a time in µs, not negative: as `String` writes them, and several times cheaper, because V8 keeps the text of no
 * number of sixteen digits, and the seconds of one time are those of the next one.
 */
export function timeDigits(us: number): string {
  if (us < US_PER_SECOND || us > Number.MAX_SAFE_INTEGER) return String(us)
  const second = Math.floor(us / US_PER_SECOND)
  if (second !== lastSecond) {
    lastSecond = second
    lastSecondText = String(second)
  }
  const rest = us - second * US_PER_SECOND
  const ms = (rest / US_PER_MS) | 0
  return `${lastSecondText}${THREE_DIGITS[ms]}${THREE_DIGITS[rest - ms * US_PER_MS]}`
}

/** RFC 3339, UTC, of a time in µs: with milliseconds, or with microseconds where they are not 0. */
export function timeText(us: number): string {
  const ms = toMs(us)
  const text = new Date(ms).toISOString()
  const rest = us - ms * US_PER_MS
  return rest === 0 ? text : `${text.slice(0, -1)}${String(rest).padStart(3, '0')}Z`
}
