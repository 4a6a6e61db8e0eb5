/**
 * How fast one address may open connections: a token bucket per address, asked before a socket costs anything.
 *
 * A connection costs about a millisecond of CPU, so a loop of connects could starve the publishers. The figures are
 * generous, because on loopback every device comes from one address: a whole fleet may reconnect at once (the burst is the
 * number of connections allowed), and then 1,000 per second go on for ever, about half of what one core could take.
 */
const TOKENS_PER_SECOND = 1_000
const ADDRESSES_MAX = 10_000

export interface ConnectRate {
  /** Takes a token of the address; false when it has none left. */
  take(address: string): boolean
  /** Every second: forgets the addresses whose bucket is full again. */
  tick(): void
}

export function openConnectRate(burst: number, clock: () => number): ConnectRate {
  const buckets = new Map<string, { tokens: number; at: number }>()

  return { take, tick }

  function take(address: string): boolean {
    const now = clock()
    let bucket = buckets.get(address)
    if (bucket === undefined) {
      // So many addresses at once are an attack on this map: the newcomers wait until some are forgotten.
      if (buckets.size >= ADDRESSES_MAX) return false
      bucket = { tokens: burst, at: now }
      buckets.set(address, bucket)
    }
    bucket.tokens = refilled(bucket, now)
    bucket.at = now
    if (bucket.tokens < 1) return false
    bucket.tokens--
    return true
  }

  function tick(): void {
    const now = clock()
    for (const [address, bucket] of buckets) if (refilled(bucket, now) >= burst) buckets.delete(address)
  }

  function refilled(bucket: { tokens: number; at: number }, now: number): number {
    const elapsed = Math.max(0, now - bucket.at) / 1000
    return Math.min(burst, bucket.tokens + elapsed * TOKENS_PER_SECOND)
  }
}
