/**
 * The fence before each insert: a writer that was frozen for longer than its claim lives must not go on where it stopped.
 *
 * Its commits are refused, but ClickHouse knows nothing of claims. So before an insert the plan is committed once more when
 * its last acknowledgement is not fresh, and before a step that no token protects, in any case. Between the answer and
 * the insert lies the time to send it; a writer that is frozen in just that gap sends an insert whose token the new
 * owner has used, or its answer comes late and changes nothing [G2].
 */
import { SurgetankError } from '../errors.ts'
import type { Claim, Plan } from '../pump/pump.ts'

/** A third of what a claim outlives a silent writer by (15 s, Kafka's session). */
const FRESH_MS = 5_000

export interface PlanFence {
  /** Before an insert under a token. Rejects with `log_claim_lost` when the claim is lost. */
  check(): Promise<void>
  /** Before anything else that stores rows: asks the log each time. */
  confirm(): Promise<void>
  /** Makes another mode of the plan durable. */
  change(mode: Plan['mode']): Promise<void>
}

/** The fence of one plan: `committedAt` in ms since 1970, 0 for one that an earlier claim left open. */
export function openFence(claim: Claim, from: number, plan: Plan, committedAt: number): PlanFence {
  let { mode } = plan
  let freshSince = committedAt
  return { check, confirm, change }

  async function check(): Promise<void> {
    if (claim.lost.aborted) throw claimLost(claim, from)
    // The clock of the day, because the steady one may stand still with the machine. Set back, it says nothing.
    const age = Date.now() - freshSince
    if (age < 0 || age > FRESH_MS) await confirm()
  }

  async function confirm(): Promise<void> {
    if (claim.lost.aborted) throw claimLost(claim, from)
    const asked = Date.now()
    await claim.commit(from, { to: plan.to, mode })
    if (claim.lost.aborted) throw claimLost(claim, from)
    freshSince = asked
  }

  function change(to: Plan['mode']): Promise<void> {
    mode = to
    return confirm()
  }
}

export function claimLost({ source }: Pick<Claim, 'source'>, from: number): SurgetankError {
  return new SurgetankError('log_claim_lost', `${source} from ${from}.`)
}
