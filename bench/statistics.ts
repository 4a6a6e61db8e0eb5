/** Medians and spreads over the rounds of a run. Pure. */

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** Null of nothing. */
export function spreadOf(values: readonly (number | null)[]): Spread | null {
  const sorted = values.filter(value => value !== null).sort((a, b) => a - b)
  const [min, max] = [sorted[0], sorted.at(-1)]
  if (min === undefined || max === undefined) return null
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? max
  const median = sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? min) + upper) / 2
  return { median, min, max }
}

/** The spread of a to b, round by round: what slowed a round slowed both. */
export function ratioOf(a: readonly (number | null)[], b: readonly (number | null)[]): Spread | null {
  return spreadOf(
    a.map((value, round) => {
      const base = b[round] ?? null
      return value === null || base === null || base === 0 ? null : value / base
    }),
  )
}
