/** A lane: how many statements of a kind run at one time and how many wait, so that no kind can take the engine whole. */
import { EngineError } from './engine-error.ts'

export interface Lane {
  /**
   * Resolves when there is room, with the way to leave; call it once. Rejects with 202 (503) when as many as may wait
   * already wait, and with 394 when the client goes away first.
   */
  enter(gone: AbortSignal): Promise<() => void>
}

export interface LaneLimits {
  readonly runningMax: number
  readonly waitingMax: number
}

export function openLane({ runningMax, waitingMax }: LaneLimits): Lane {
  let running = 0
  const waiting = new Set<() => void>()
  return { enter }

  function enter(gone: AbortSignal): Promise<() => void> {
    if (running < runningMax) {
      running++
      return Promise.resolve(leave)
    }
    if (waiting.size >= waitingMax) {
      return Promise.reject(
        new EngineError(202, `Too many simultaneous queries: ${runningMax} run and ${waitingMax} wait`),
      )
    }
    return new Promise((resolve, reject) => {
      const start = () => {
        waiting.delete(start)
        gone.removeEventListener('abort', giveUp)
        resolve(leave)
      }
      const giveUp = () => {
        waiting.delete(start)
        reject(new EngineError(394, 'The client went away'))
      }
      waiting.add(start)
      gone.addEventListener('abort', giveUp, { once: true })
    })
  }

  /** The oldest that waits takes the place over. */
  function leave(): void {
    const [next] = waiting
    if (next === undefined) running--
    else next()
  }
}
