/** The pauses between tries at ClickHouse, which are never given up while the claim lasts [G5]. */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { hasFate, SurgetankError } from '../errors.ts'
import type { Claim } from '../pump/pump.ts'
import { claimLost } from './fence.ts'

export interface RetryOptions {
  readonly log: Logger
  /** The pause after a first failure, ms; it doubles up to 5 s. */
  readonly retryMsMin: number
}

const RETRY_MS_MAX = 5_000
const MISCONFIGURED_MS = 30_000

/** Resolves with the answer, however often the question fails before. Rejects only with `log_claim_lost`. */
export async function untilAnswered<Answer>(
  claim: Claim,
  ask: () => Promise<Answer>,
  { log, retryMsMin }: RetryOptions,
): Promise<Answer> {
  const { lost } = claim
  for (let failures = 0; ; failures++) {
    if (lost.aborted) throw claimLost(claim, claim.position)
    try {
      return await ask()
    } catch (error) {
      if (error instanceof SurgetankError && error.code === 'log_claim_lost') throw error
      if (!lost.aborted) await waitToRetry(error, failures, { log, retryMsMin, lost })
    }
  }
}

/** Resolves at once when the claim is lost. */
export async function waitToRetry(
  error: unknown,
  failures: number,
  { log, retryMsMin, lost }: RetryOptions & { readonly lost: AbortSignal },
): Promise<void> {
  const misconfigured = hasFate(error, 'stop')
  const backoffMs = Math.min(retryMsMin * 2 ** Math.min(failures, 10), RETRY_MS_MAX)
  const ms = misconfigured ? MISCONFIGURED_MS : backoffMs * (0.5 + Math.random() / 2)
  if (misconfigured) log.error({ err: error }, 'ClickHouse refuses schema or user; readings wait in the log')
  else if (failures % 10 === 0) log.warn({ err: error }, 'ClickHouse failed; it will be tried again')
  await pause(ms, undefined, { signal: lost }).catch(() => {})
}
