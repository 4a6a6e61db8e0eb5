/**
 * The totals of each replayed file beside those of the table and of the rollups.
 */
import type { Expected } from './expected.ts'
import type { Ledger } from './ledger.ts'
import type { Rollup, SeriesRange, Stored, Totals } from './stored.ts'
import type { Workload } from './workload.ts'

export interface SeriesReport {
  readonly device: string
  readonly file: Totals & { readonly last: number }
  readonly table: Totals & { readonly last: number }
  readonly minutely: Totals
  readonly hourly: Totals
  readonly agrees: boolean
}

/** Sums of doubles depend on the order of the addends; everything else must be equal to the last bit. */
const SUM_TOLERANCE = 1e-9

export async function compareSeries(
  workload: Workload,
  ledger: Ledger,
  expected: Expected,
  stored: Stored,
): Promise<SeriesReport[]> {
  const reports: SeriesReport[] = []
  for (const [index, device] of workload.devices.entries()) {
    const points = (expected.byDevice[index] ?? [])
      .filter(message => message.acked)
      .map(({ n }) => ({ time: ledger.timeOf(n), value: Number(workload.readings(n)[0]?.[1]) }))
    if (points.length > 0) reports.push(await compareOne(device, points, stored))
  }
  return reports
}

interface Point {
  readonly time: number
  readonly value: number
}

async function compareOne(device: string, points: readonly Point[], stored: Stored): Promise<SeriesReport> {
  const file = totalsOf(points)
  const range: SeriesRange = { device, from: file.from, to: file.to }
  const table = await stored.totals(range)
  const rollup = (view: Rollup) => stored.rollupTotals(view, range)
  const [minutely, hourly] = [await rollup('minutely'), await rollup('hourly')]
  const { count, sum, min, max, last } = file
  const agrees = [table, minutely, hourly].every(totals => sameTotals(totals, file)) && table.last === last
  return { device, file: { count, sum, min, max, last }, table, minutely, hourly, agrees }
}

/** `last` is the value at the latest time; of several, the one that was sent last. */
export function totalsOf(points: readonly Point[]): Totals & { last: number; from: number; to: number } {
  let [sum, lostBits, min, max, last] = [0, 0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]
  let [from, to] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (const { time, value } of points) {
    // Kahan's summation, as the table is summed.
    const next = value - lostBits
    const added = sum + next
    lostBits = added - sum - next
    sum = added
    min = Math.min(min, value)
    max = Math.max(max, value)
    from = Math.min(from, time)
    if (time < to) continue
    to = time
    last = value
  }
  return { count: points.length, sum, min, max, last, from, to }
}

export function sameTotals(a: Totals, b: Totals): boolean {
  const sumsAgree = Math.abs(a.sum - b.sum) <= SUM_TOLERANCE * Math.max(1, Math.abs(a.sum), Math.abs(b.sum))
  return a.count === b.count && a.min === b.min && a.max === b.max && sumsAgree
}
