/**
 * Of which versions the writers are: each member of their group says what it knows, so that a process of a newer version
 * does not begin with what an older one cannot take.
 *
 * A member says it in the one number by which every version sorts the members, `<start, ms>.<line format><schema version>`,
 * three digits each: `1763640000000.002004` knows lines of format 2 and schema version 4. A member from before that wrote no
 * decimals; those knew format 1 and schema version 3, and take the decimals of others for a part of a ms.
 */
import kafkajs from 'kafkajs'
import type { GroupDescribed, KafkaClient } from './kafka-client.ts'
import { onceLoaded, translateKafkaError, unavailable } from './kafka-errors.ts'

const { MemberMetadata } = kafkajs.AssignerProtocol

/** The newest of each kind that a process of this version reads. */
export interface Knowledge {
  readonly lines: number
  readonly schema: number
}

export interface Member {
  /** Where it connects from, as Kafka sees it. */
  readonly host: string
  readonly knows: Knowledge
}

export interface MemberStart {
  /** ms since 1970 UTC. */
  readonly startedAt: number
  readonly knows: Knowledge
}

const BEFORE_MARKS: Knowledge = { lines: 1, schema: 3 }
const START = /^(\d{1,15})(?:\.(\d{3})(\d{3}))?$/

export function encodeStart({ startedAt, knows }: MemberStart): Buffer {
  const [lines, schema] = [knows.lines, knows.schema].map(number => String(number).padStart(3, '0'))
  return Buffer.from(`${startedAt}.${lines}${schema}`)
}

/** Of a text that nobody of us wrote: the oldest. */
export function decodeStart(userData: Buffer): MemberStart {
  const [, startedAt = '0', lines, schema] = START.exec(userData.toString()) ?? []
  const isMarked = lines !== undefined && schema !== undefined
  return {
    startedAt: Number(startedAt),
    knows: isMarked ? { lines: Number(lines), schema: Number(schema) } : BEFORE_MARKS,
  }
}

/**
 * All members of the group now; one that was killed is among them until its session ends. Rejects with `log_unavailable` while
 * members come and go.
 */
export async function fetchMembers(client: KafkaClient, group: string): Promise<Member[]> {
  const ask = async () => (await client.coordinator(group)).describeGroups({ groupIds: [group] })
  const { groups } = await onceLoaded(ask).catch((error: unknown) => {
    throw translateKafkaError(error, `asking for the members of ${group}`)
  })
  const [found] = groups
  if (found === undefined || found.members.length === 0) return []
  if (found.state !== 'Stable') throw unavailable(`The writers' group ${group} is changing (${found.state}).`)
  return found.members.map(toMember)
}

function toMember({ clientHost, memberMetadata }: GroupDescribed['members'][number]): Member {
  const { knows } = decodeStart(MemberMetadata.decode(memberMetadata)?.userData ?? Buffer.alloc(0))
  return { host: clientHost.replace(/^\//, ''), knows }
}
