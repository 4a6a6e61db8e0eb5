/**
 * Where the writers are: the offsets that their consumer group has committed, each with a few words of metadata. A plan is
 * such metadata, so that offset and plan move in one step, fenced by the group's generation [G2].
 *
 * The metadata is JSON, `{"v":1,"id":topicId,"n":readings,"d":deadLetters,"to":offset,"m":"whole"}`: which topic it is of,
 * what was committed before the offset, and the plan when one is open. It takes about 110 of the 4,096 characters that Kafka
 * allows. A position of a topic that was deleted and made anew is none of the new one's.
 */
import { SurgetankError } from '../errors.ts'
import type { KafkaClient } from './kafka-client.ts'
import { onceLoaded, translateKafkaError } from './kafka-errors.ts'
import type { LogTopic } from './kafka-topics.ts'
import type { Plan } from './pump.ts'

export interface Position {
  readonly position: number
  readonly plan: Plan | null
  /** Readings before the position since the log was made, and how many of them became dead letters. */
  readonly readings: number
  readonly deadLetters: number
}

const VERSION = 1

/** Names a partition of this very topic in each row and token. */
export function sourceOf({ log, id }: LogTopic, partition: number): string {
  return `${log}:${id}/${partition}`
}

export function encodePosition(topicId: string, { plan, readings, deadLetters }: Position): string {
  const counts = { v: VERSION, id: topicId, n: readings, d: deadLetters }
  return JSON.stringify(plan === null ? counts : { ...counts, to: plan.to, m: plan.mode })
}

/** Null when it is of another topic. Throws `log_newer` when it is of a version that this program does not know, or of somebody else. */
export function decodePosition(topicId: string, offset: number, metadata: string): Position | null {
  const { v, id, n, d, to, m } = parse(metadata)
  if (v !== VERSION) {
    const detail = `Offset ${offset} was committed with '${metadata}', which no surgetank of this version writes.`
    throw new SurgetankError('log_newer', detail)
  }
  if (id !== topicId) return null
  const plan =
    typeof to === 'number' ? { to, mode: m === 'bisected' ? ('bisected' as const) : ('whole' as const) } : null
  return { position: offset, plan, readings: Number(n), deadLetters: Number(d) }
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
