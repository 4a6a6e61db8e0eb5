/**
 * Where the writers are: the offsets that their consumer group has committed, each with a few words of metadata. A plan is
 * such metadata, so that offset and plan move in one step, fenced by the group's generation [G2].
 *
 * The metadata is JSON, `{"v":1,"id":topicId,"n":readings,"d":deadLetters,"to":offset,"m":"whole"}`: which topic it is of,
 * what was committed before the offset, and the plan when one is open. Of messages it says `"c":[received,accepted,repeated,
 * quarantined]`, `"g":` what was let go by reason, and `"t":` since when, where that is not the beginning. A version before these reads
 * past them, and leaves them out when it commits: then counting begins anew. It takes about 200 of the 4,096 characters that
 * Kafka allows. A position of a topic that was deleted and made anew is none of the new one's.
 */
import { SurgetankError } from '../errors.ts'
import type { KafkaClient } from './kafka-client.ts'
import { onceLoaded, translateKafkaError } from './kafka-errors.ts'
import type { LogTopic } from './kafka-topics.ts'
import { type MessageSums, NO_MESSAGES } from './message-counts.ts'
import type { Plan } from './pump.ts'

export interface Position {
  readonly position: number
  readonly plan: Plan | null
  /** Readings before the position since the log was made, and how many of them became dead letters. */
  readonly readings: number
  readonly deadLetters: number
  /** Of the chunks before the position; null when they were committed by a version that did not count. */
  readonly messages: CountedMessages | null
}

export interface CountedMessages {
  /** When counting began, ms since 1970 UTC; null: with the log. */
  readonly since: number | null
  readonly sums: MessageSums
}

const VERSION = 1

/** Where nothing was committed: before the first chunk that is held. */
export function beginningAt(first: number): Position {
  // Of what the log held before that nothing is known.
  const messages = first === 0 ? { since: null, sums: NO_MESSAGES } : null
  return { position: first, plan: null, readings: 0, deadLetters: 0, messages }
}

/** What was counted before a position, or nothing from now on. `now`: ms since 1970 UTC. */
export function countedBefore({ messages }: Position, now: number): CountedMessages {
  return messages ?? { since: now, sums: NO_MESSAGES }
}

/** Names a partition of this very topic in each row and token. */
export function sourceOf({ log, id }: LogTopic, partition: number): string {
  return `${log}:${id}/${partition}`
}

export function encodePosition(topicId: string, { plan, readings, deadLetters, messages }: Position): string {
  const counts = { v: VERSION, id: topicId, n: readings, d: deadLetters, ...encodeMessages(messages) }
  return JSON.stringify(plan === null ? counts : { ...counts, to: plan.to, m: plan.mode })
}

function encodeMessages(messages: CountedMessages | null): object {
  if (messages === null) return {}
  const { received, accepted, repeated, quarantined, letGo } = messages.sums
  const since = messages.since === null ? {} : { t: messages.since }
  return { c: [received, accepted, repeated, quarantined], g: letGo, ...since }
}

function decodeMessages({ c, g, t }: Record<string, unknown>): CountedMessages | null {
  if (!Array.isArray(c)) return null
  const [received = 0, accepted = 0, repeated = 0, quarantined = 0] = c.map(Number)
  const sums = { received, accepted, repeated, quarantined, letGo: (g ?? {}) as MessageSums['letGo'] }
  return { since: typeof t === 'number' ? t : null, sums }
}

/** Null when it is of another topic. Throws `log_newer` when it is of a version that this program does not know, or of somebody else. */
export function decodePosition(topicId: string, offset: number, metadata: string): Position | null {
  const parsed = parse(metadata)
  const { v, id, n, d, to, m } = parsed
  if (v !== VERSION) {
    const detail = `Offset ${offset} was committed with '${metadata}', which no surgetank of this version writes.`
    throw new SurgetankError('log_newer', detail)
  }
  if (id !== topicId) return null
  const plan =
    typeof to === 'number' ? { to, mode: m === 'bisected' ? ('bisected' as const) : ('whole' as const) } : null
  return { position: offset, plan, readings: Number(n), deadLetters: Number(d), messages: decodeMessages(parsed) }
}

function parse(metadata: string): Record<string, unknown> {
  try {
    return JSON.parse(metadata) as Record<string, unknown>
  } catch {
    return {}
  }
}

/** As committed last, by partition; without those of which nothing was ever committed. Rejects with `log_unavailable`. */
export async function fetchPositions(
  client: KafkaClient,
  { log, group, id }: LogTopic,
  partitions: readonly number[],
): Promise<Map<number, Position>> {
  const request = { groupId: group, topics: [{ topic: log, partitions: partitions.map(partition => ({ partition })) }] }
  const ask = async () => (await client.coordinator(group)).offsetFetch(request)
  const { responses } = await onceLoaded(ask).catch((error: unknown) => {
    throw translateKafkaError(error, 'reading the positions')
  })
  const positions = new Map<number, Position>()
  for (const { partition, offset, metadata } of responses[0]?.partitions ?? []) {
    const position = Number(offset) < 0 ? null : decodePosition(id, Number(offset), metadata ?? '')
    if (position !== null) positions.set(partition, position)
  }
  return positions
}
