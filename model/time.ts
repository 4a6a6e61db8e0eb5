/**
 * Times in µs. A reading's times are whole µs since 1970 UTC, as plain numbers: exact up to the year 2255 (2^53 µs). Clocks,
 * the log and presence count in ms.
 */

export const US_PER_MS = 1_000

/** The whole ms that holds a time in µs. */
export function toMs(us: number): number {
  return Math.floor(us / US_PER_MS)
}

/** RFC 3339, UTC, of a time in µs: with milliseconds, or with microseconds where they are not 0. */
export function timeText(us: number): string {
  const ms = toMs(us)
  const text = new Date(ms).toISOString()
  const rest = us - ms * US_PER_MS
  return rest === 0 ? text : `${text.slice(0, -1)}${String(rest).padStart(3, '0')}Z`
}
