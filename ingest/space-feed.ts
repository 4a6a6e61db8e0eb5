/**
 * The way from the log to the space: what is durable is merged beside the acknowledgements, never before them [G1].
 *
 * A space that is slow or away costs its own freshness only. At most MERGES_MAX merges are under way; a batch beyond them,
 * and one that is rejected, is let go, counted and logged: its readings are in the log, and a rebuild of the space brings
 * them ([G4], [G5]).
 */
import { metrics } from '../metrics.ts'
import type { Message } from '../model/message.ts'
import type { Space } from '../space/space.ts'
import type { IngestLog } from './commit-loop.ts'

const MERGES_MAX = 16

export interface SpaceFeed {
  merge(messages: readonly Message[]): void
}

export function openSpaceFeed(space: Pick<Space, 'merge'>, log: IngestLog): SpaceFeed {
  let underWay = 0
  let isAway = false

  return { merge }

  function merge(messages: readonly Message[]): void {
    if (messages.length === 0) return
    if (underWay === MERGES_MAX) {
      letGo('too many merges are under way')
      return
    }
    underWay++
    space.merge(messages).then(merged, failed)
  }

  function merged(): void {
    underWay--
    if (!isAway) return
    isAway = false
    log.info({}, 'the state is merged again')
  }

  function failed(error: unknown): void {
    underWay--
    letGo(error)
  }

  function letGo(error: unknown): void {
    metrics.mergeErrors.inc()
    if (isAway) return
    isAway = true
    log.warn({ err: error }, 'the state takes no readings; they are in the log, and a rebuild brings them')
  }
}
