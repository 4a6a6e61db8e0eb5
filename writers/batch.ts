/** Which chunks go into one insert: deciding only; touches nothing. */
import { utcDay } from '../model/utc-day.ts'
import type { Chunk } from '../pump/pump.ts'

export interface BatchLimits {
  readonly rowsMax: number
  readonly bytesMax: number
}

/**
 * The chunks at the head of `chunks` that make one insert: contiguous, of one UTC day of receipt (one insert must stay in
 * one table partition), within the limits but for a first chunk that exceeds them alone. A chunk without lines is of any day.
 *
 * `full` is true when the batch ended at a limit or a border, so that waiting for more would not make it larger.
 */
export function takeBatch(chunks: readonly Chunk[], limits: BatchLimits): { taken: Chunk[]; full: boolean } {
  const taken: Chunk[] = []
  let rows = 0
  let bytes = 0
  let day: number | null = null
  for (const chunk of chunks) {
    const last = taken.at(-1)
    const chunkDay: number | null = chunk.messages === 0 ? day : utcDay(chunk.firstReceivedAt)
    const joins =
      last === undefined ||
      (chunk.position === last.position + 1 &&
        (day === null || chunkDay === day) &&
        rows + chunk.readings <= limits.rowsMax &&
        bytes + chunk.lines.length <= limits.bytesMax)
    if (!joins) return { taken, full: true }
    taken.push(chunk)
    day = chunkDay
    rows += chunk.readings
    bytes += chunk.lines.length
  }
  return { taken, full: rows >= limits.rowsMax || bytes >= limits.bytesMax }
}

/** The deduplication token of a range: it names exactly these rows, for ever [G2]. */
export function rangeToken(source: string, from: number, to: number): string {
  return `${source}/${from}-${to}`
}
