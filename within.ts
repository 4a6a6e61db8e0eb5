import { setTimeout as pause } from 'node:timers/promises'

/** What the work resolves with, or undefined when it takes longer, ms; how it ends then is nobody's concern. Rejects as it does. */
export async function within<Result>(ms: number, work: Promise<Result>): Promise<Result | undefined> {
  const over = new AbortController()
  const late = pause(ms, undefined, { signal: over.signal }).catch(() => undefined)
  return Promise.race([work, late]).finally(() => over.abort())
}
