/** Two builds compared by pairs: the CPU per message of each part, as a ratio with its interval. Pure. */
import { medianInterval, spreadOf } from './statistics.ts'
import { PARTS, type PartName } from './variants.ts'

/** µs per message of each part, from the first message sent until all were stored. */
export type PartUs = Partial<Record<PartName, number>>

/** The same load on both builds, one right after the other. */
export interface Pair {
  readonly before: PartUs
  readonly after: PartUs
}

export interface ComparedLoad {
  readonly name: string
  readonly pairs: readonly Pair[]
}

const HEADINGS = ['load', 'CPU µs per message', 'before', 'after', 'after / before', '95 % interval', 'pairs']

export function pairsTable(loads: readonly ComparedLoad[]): string[] {
  const rows = loads.flatMap(({ name, pairs }) => {
    const parts = PARTS.filter(part => pairs.some(({ before, after }) => (before[part] ?? after[part]) !== undefined))
    return [rowOf(name, 'all', pairs, allOf), ...parts.map(part => rowOf('', part, pairs, us => us[part] ?? 0))]
  })
  return [HEADINGS, HEADINGS.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |`)
}

function rowOf(load: string, what: string, pairs: readonly Pair[], us: (parts: PartUs) => number): string[] {
  const median = (values: readonly number[]) => spreadOf(values)?.median ?? Number.NaN
  const ratios = pairs.map(({ before, after }) => us(after) / us(before))
  const interval = medianInterval(ratios)
  return [
    load,
    what,
    median(pairs.map(({ before }) => us(before))).toFixed(1),
    median(pairs.map(({ after }) => us(after))).toFixed(1),
    median(ratios).toFixed(3),
    interval === null ? 'too few pairs' : `${interval.from.toFixed(3)}–${interval.to.toFixed(3)}`,
    String(pairs.length),
  ]
}

function allOf(parts: PartUs): number {
  return Object.values(parts).reduce((sum, us) => sum + us, 0)
}
