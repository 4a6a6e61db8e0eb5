/** A bound on how much of one kind is under way: the next one is told to come back, not queued. */
import { ApiProblem } from './problems.ts'

export type Turnstile = <Result>(work: () => Promise<Result>) => Promise<Result>

/** Runs work of which at most `underWayMax` may be under way; rejects with `busy` beyond. */
export function openTurnstile(underWayMax: number): Turnstile {
  let underWay = 0
  return async work => {
    if (underWay >= underWayMax) throw new ApiProblem('busy', `At most ${underWayMax} at one time.`)
    underWay++
    try {
      return await work()
    } finally {
      underWay--
    }
  }
}
