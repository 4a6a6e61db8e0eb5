/**
 * The outlet of the log on this disk: what a writer takes from. It has one partition, so one claim at a time. The newest
 * claim wins, whoever takes it; a writer that was overtaken waits longer before it claims again, so that two writers that
 * both live do not take turns at each step. Both stay correct if they do.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { hasFate } from '../errors.ts'
import { type HeldClaim, takeClaim } from './lmdb-claim.ts'
import { openLogForReading } from './lmdb-log.ts'
import { openPositions } from './lmdb-positions.ts'
import type { Claim, Consumption, PumpOutlet } from './pump.ts'

export interface LmdbOutletOptions {
  readonly dir: string
  /** Told of each rejection of `work` that a new claim follows. */
  readonly failed?: (error: unknown) => void
}

const LOG_POLL_MS = 50
const PAUSE_MS_MIN = 250
const PAUSE_MS_MAX = 30_000
const OVERTAKEN_PAUSE_MS_MIN = 5_000
/** How long a stop waits for the step under way before it gives the step up; its plan stays open and is settled later. */
const FINISH_MS_MAX = 2_000

/** Makes the positions where there are none; the log may come later. Rejects with `data_dir_unusable`. */
export async function openLmdbOutlet({ dir, failed = () => {} }: LmdbOutletOptions): Promise<PumpOutlet> {
  const log = openLogForReading(dir)
  const positions = openPositions(dir, true)
  let consumption: Consumption | null = null

  return { consume, close }

  function consume(work: (claim: Claim) => Promise<void>): Consumption {
    if (consumption !== null) throw new Error('An outlet is consumed once.')
    const stopping = new AbortController()
    let held: HeldClaim | null = null
    const ended = claimAgainAndAgain()
    consumption = { ended, stop }
    return consumption

    async function claimAgainAndAgain(): Promise<void> {
      let failures = 0
      let losses = 0
      while (!stopping.signal.aborted) {
        const outcome = await workOnce()
        failures = outcome === 'failed' ? failures + 1 : 0
        if (outcome === 'overtaken') await sleep(backoff(OVERTAKEN_PAUSE_MS_MIN, ++losses))
        else await sleep(outcome === 'no log' ? LOG_POLL_MS : backoff(PAUSE_MS_MIN, failures))
      }
    }

    async function workOnce(): Promise<Outcome> {
      const taken = await takeClaim({ log, positions }).catch(tell)
      if (taken === null) return 'failed'
      if (taken === 'no log') return taken
      held = taken
      try {
        if (!stopping.signal.aborted) await work(taken.claim)
        return taken.overtaken ? 'overtaken' : 'fruitful'
      } catch (error) {
        if (!taken.overtaken) tell(error)
        if (taken.overtaken) return 'overtaken'
        return taken.fruitful ? 'fruitful' : 'failed'
      } finally {
        taken.release()
        held = null
      }
    }

    /** Ends it all when an operator must act. */
    function tell(error: unknown): null {
      if (hasFate(error, 'stop')) throw error
      failed(error)
      return null
    }

    async function sleep(ms: number): Promise<void> {
      await pause(ms, undefined, { signal: stopping.signal }).catch(() => {})
    }

    async function stop(): Promise<void> {
      stopping.abort()
      held?.finish()
      const giveUp = setTimeout(() => held?.drop(), FINISH_MS_MAX)
      try {
        await ended.catch(() => {})
      } finally {
        clearTimeout(giveUp)
      }
    }
  }

  async function close(): Promise<void> {
    await consumption?.stop()
    await Promise.all([log.close(), positions.close()])
  }
}

type Outcome = 'no log' | 'failed' | 'fruitful' | 'overtaken'

function backoff(msMin: number, times: number): number {
  return Math.min(PAUSE_MS_MAX, msMin * 2 ** Math.max(0, times - 1))
}
