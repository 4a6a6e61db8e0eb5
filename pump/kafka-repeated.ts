/**
 * The list of repetitions in Kafka: a small topic of its own. It is a sample for an operator and not the books, so it holds up
 * nobody: an append does not wait for it, one write is under way at a time, and what comes meanwhile, or fails, is not listed.
 * It is counted all the same.
 */
import type { KafkaClient } from './kafka-client.ts'
import { openLane, toSideTopic } from './kafka-lane.ts'
import { repeatedRecord } from './kafka-record.ts'
import type { Repeated } from './pump.ts'

export interface RepeatedList {
  /** At once; never rejects. */
  add(repeated: readonly Repeated[]): void
}

/** `topic`: null where there is none. */
export function openRepeatedList(client: KafkaClient, topic: string | null): RepeatedList {
  let lane = openLane(client)
  let isWriting = false

  return { add }

  function add(repeated: readonly Repeated[]): void {
    if (topic === null || repeated.length === 0 || isWriting) return
    isWriting = true
    lane
      .send(repeated.map(repeatedRecord), toSideTopic(topic))
      .catch(() => {
        // A lane would have to repeat what failed.
        lane = openLane(client)
      })
      .finally(() => {
        isWriting = false
      })
  }
}
