/**
 * A claim whose position is behind what ClickHouse holds of its log. The position was lost (an operator removed it, Kafka let
 * it expire), or it went back: the commits after it were in the memory of a Kafka broker when its power was cut, or its
 * disk was set back to an older copy. To insert what is stored under other ranges, hence other tokens, would store it twice [G2].
 *
 * A partition is written in order, and a batch is begun when the one before it is whole. So all that lies before the last
 * stored row is stored, or was refused, and only the insert of that row may have been cut short:
 *
 * - What a rollup lacks are that insert's rows, the newest ones of each bucket, as many as counting tells. An open plan is
 *   older, and passed over: settled first, it would be counted a second time, in the place of the rows that are lacking.
 * - The last stored chunk may be there in part, if its batch was being taken apart: it is settled as an open plan is.
 *
 * What was refused on the way is in the dead letters already, and not counted among them again.
 */
import type { Database, SourceRange } from '../database/database.ts'
import type { Claim } from '../pump/pump.ts'
import { type RetryOptions, untilAnswered } from './retry.ts'

/** More than an insert holds, unless each of its chunks has a few readings only. */
const FILLED_CHUNKS_MAX = 10_000

/**
 * Moves the claim to the end of what is stored, if it is behind: then its plan is the last stored chunk, and what comes after
 * may have been tried before. Resolves with whether it was. Rejects when the claim is lost or the log does not answer.
 */
export async function goToStored(
  claim: Claim,
  { database, ...options }: RetryOptions & { readonly database: Database },
): Promise<boolean> {
  const { source } = claim
  const stillHeld = () => claim.commit(claim.position, claim.plan)
  const range = { source, from: claim.plan?.to ?? claim.position, to: await claim.ends() }
  if (range.to <= range.from) return false
  const to = await untilAnswered(claim, () => storedThrough(database, range, claim.lost), options)
  if (to === range.from) return false
  // A writer that was overtaken meanwhile sees what the next one stored.
  await stillHeld()
  options.log.error(
    { source, from: range.from, to },
    'the position is behind what ClickHouse holds of this log; that is not written again',
  )
  const newest = { source, from: Math.max(range.from, to - FILLED_CHUNKS_MAX), to }
  await untilAnswered(claim, () => database.repairNewest(newest, stillHeld), options)
  await claim.commit(to - 1, { to, mode: 'whole' })
  return true
}

/** An insert that still runs may be of a plan that nobody knows any more. */
async function storedThrough(database: Database, range: SourceRange, lost: AbortSignal): Promise<number> {
  await database.waitForInserts(range.source, lost)
  const through = await database.storedThrough(range, lost)
  if (through === range.from) return through
  // Only now: to wait for other replicas at each claim would let a replica that is down stop all writers.
  await database.catchUp()
  return database.storedThrough(range, lost)
}
