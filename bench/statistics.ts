/** Medians, spreads and intervals over the rounds of a run. Pure. */

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

export interface Interval {
  readonly from: number
  readonly to: number
}

/**
 * Where the median lies with `confidence` at least, by the sign test: between the k-th least and the k-th greatest, for the greatest k that
 * allows it. It takes nothing for granted of how the values are spread. Null of too few values.
 */
export function medianInterval(values: readonly number[], confidence = 0.95): Interval | null {
  const sorted = [...values].sort((a, b) => a - b)
  const n = sorted.length
  let outside = 0
  let k = 0
  // Each value is on either side of the median like a coin: of n tosses, fewer than k are heads or tails.
  for (let term = 2 ** -n; k <= n / 2; k++) {
    outside += 2 * term
    if (outside > 1 - confidence) break
    term *= (n - k) / (k + 1)
  }
  const [from, to] = [sorted[k - 1], sorted[n - k]]
  return from === undefined || to === undefined ? null : { from, to }
}
