/** Turns at something that only a few may do at one time: as many as claims wait, in order. */
export interface Turns {
  /** Resolves with what ends the turn. Rejects with the signal's reason when that fires first. */
  take(signal: AbortSignal): Promise<() => void>
}

/** Who waits is bounded by the partitions of the log: each has one claim, which waits for one turn at a time. */
export function openTurns(atOnceMax: number): Turns {
  let taken = 0
  const waiting = new Set<() => void>()
  return { take }

  async function take(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (taken < atOnceMax) taken++
    else await toBeCalled(signal)
    let ended = false
    return () => {
      if (ended) return
      ended = true
      pass()
    }
  }

  /** A turn that ends goes to the next who waits: it is never free in between. */
  function toBeCalled(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const call = () => {
        signal.removeEventListener('abort', giveUp)
        resolve()
      }
      const giveUp = () => {
        waiting.delete(call)
        reject(signal.reason)
      }
      signal.addEventListener('abort', giveUp, { once: true })
      waiting.add(call)
    })
  }

  function pass(): void {
    const [next] = waiting
    if (next === undefined) {
      taken--
      return
    }
    waiting.delete(next)
    next()
  }
}
