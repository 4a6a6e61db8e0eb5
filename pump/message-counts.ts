/** The sums of what became of messages: of a partition, or of a whole log. Pure functions. */
import type { Batch, Chunk, MessageBooks, MessageCounts } from './pump.ts'

/** Messages since counting began. */
export interface MessageSums extends MessageCounts {
  readonly accepted: number
}

export const NO_MESSAGES: MessageSums = { received: 0, accepted: 0, repeated: 0, quarantined: 0, letGo: {} }

/** Of a sum, in which those of several versions may come together. A reason beyond them is counted as `other`. */
const REASONS_MAX = 64
const OTHER_REASON = 'other'

/** Of messages that each have a line and nothing else: chunks of format 1, which did not count. */
export function acceptedOnly(messages: number): MessageCounts {
  return { received: messages, repeated: 0, quarantined: 0, letGo: {} }
}

/** The sums with those of one more batch or chunk. */
export function addMessages(
  sums: MessageSums,
  { messages, counts }: Pick<Batch | Chunk, 'messages' | 'counts'>,
): MessageSums {
  return {
    received: sums.received + counts.received,
    accepted: sums.accepted + messages,
    repeated: sums.repeated + counts.repeated,
    quarantined: sums.quarantined + counts.quarantined,
    letGo: addReasons(sums.letGo, counts.letGo),
  }
}

export function addSums(a: MessageSums, b: MessageSums): MessageSums {
  return addMessages(a, { messages: b.accepted, counts: b })
}

function addReasons(a: MessageCounts['letGo'], b: MessageCounts['letGo']): MessageCounts['letGo'] {
  const entries = Object.entries(b)
  if (entries.length === 0) return a
  const sums: Record<string, number> = { ...a }
  for (const [reason, messages] of entries) {
    const isFull = sums[reason] === undefined && Object.keys(sums).length >= REASONS_MAX
    const counted = isFull ? OTHER_REASON : reason
    sums[counted] = (sums[counted] ?? 0) + messages
  }
  return sums
}

/** Received and in none of the others: more than 0 is lost, less than 0 is counted twice. */
export function differenceOf({ received, accepted, repeated, quarantined, letGo }: MessageSums): number {
  return received - accepted - repeated - quarantined - sumOf(letGo)
}

/** Messages in all of these terms. */
export function sumOf(terms: Readonly<Record<string, number>>): number {
  return Object.values(terms).reduce((sum, messages) => sum + messages, 0)
}

/** `waiting`: how many quarantined messages are still kept. */
export function toMessageBooks(sums: MessageSums, waiting: number, since: number | null): MessageBooks {
  const { received, accepted, repeated, quarantined, letGo } = sums
  const kept = Math.min(waiting, quarantined)
  const quarantine = { waiting: kept, retried: 0, dropped: 0, evicted: quarantined - kept }
  return { since, received, accepted, repeated, quarantined: quarantine, letGo }
}
