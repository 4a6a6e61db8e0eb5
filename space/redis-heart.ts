/**
 * The heartbeat: what a process asks Redis every second, and at once when there is a reason to. One beat is under way at a
 * time, and however many reasons come, beats begin at least ten milliseconds apart.
 */

export interface RedisHeart {
  /** A beat is wanted now. */
  soon(): void
  /** Beats, and resolves when it has; the next ones follow by themselves. */
  beat(): Promise<void>
  stop(): void
}

const EVERY_MS = 1_000
const SOON_MS = 10
const AFTER_FAILURE_MS = 100

/** `beatOnce` never rejects; it resolves to false when the beat failed. */
export function openRedisHeart(beatOnce: () => Promise<boolean>): RedisHeart {
  let timer: NodeJS.Timeout | null = null
  let isSoon = false
  let beating = false
  let stopped = false

  return { soon, beat, stop }

  function soon(): void {
    if (isSoon) return
    isSoon = true
    if (!beating) next(SOON_MS)
  }

  async function beat(): Promise<void> {
    isSoon = false
    beating = true
    const ok = await beatOnce()
    beating = false
    next(!ok ? AFTER_FAILURE_MS : isSoon ? SOON_MS : EVERY_MS)
  }

  function next(ms: number): void {
    if (timer !== null) clearTimeout(timer)
    if (stopped) return
    timer = setTimeout(beat, ms)
    timer.unref()
  }

  function stop(): void {
    stopped = true
    if (timer !== null) clearTimeout(timer)
  }
}
