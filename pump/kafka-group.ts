/**
 * Membership in the consumer group of the writers: who may write which partition, one writer at a time.
 *
 * A member joins, gets its partitions for one generation of the group, and keeps its session alive by heartbeats on a
 * timer of their own. When others come or go it is asked to join again: it lets the step under way end first, and commits it,
 * which the group still takes. A membership is lost when the group says so, and when the group was not reached for as long
 * as a session lasts: then others have its partitions by now, also when it is this process that stood still [G2].
 *
 * All partitions change hands in each generation (KIP-62, eager), and go to the newest members first: of two writers and
 * one partition the newer has it, as with the log on a disk.
 */
import { setTimeout as pause } from 'node:timers/promises'
import kafkajs from 'kafkajs'
import type { Logger } from 'pino'
import { hasFate, SurgetankError } from '../errors.ts'
import { within } from '../within.ts'
import type { KafkaClient, KafkaNode } from './kafka-client.ts'
import { kafkaErrorType, translateKafkaError } from './kafka-errors.ts'
import { decodeStart, encodeStart, type Knowledge } from './kafka-members.ts'

const { MemberMetadata, MemberAssignment } = kafkajs.AssignerProtocol

export interface Membership {
  readonly partitions: readonly number[]
  /** Fires when the partitions may have gone to others. */
  readonly lost: AbortSignal
  /**
   * Commits an offset with its metadata, as this generation. Repeats the very same until it is answered. Rejects with
   * `log_claim_lost` when the group refuses it or the membership is lost.
   */
  commit(partition: number, offset: number, metadata: string): Promise<void>
}

export interface GroupMemberOptions {
  readonly client: KafkaClient
  /** Another one: a join that waits for others holds up what comes after it on its connection. */
  readonly leaveBy: KafkaClient
  readonly topic: string
  readonly group: string
  /** Told to the others, of whatever version. */
  readonly knows: Knowledge
  /** How long the group waits for a heartbeat, ms. */
  readonly sessionMs: number
  /** How long the steps under way may take when the group asks for the partitions, ms. */
  readonly revokeMsMax: number
  readonly log: Logger
  /** A generation begins. */
  readonly assigned: (membership: Membership) => void
  /** A generation is to end: resolves when the steps under way have ended. They are given up when it takes too long. */
  readonly revoked: () => Promise<void>
}

export interface GroupMember {
  /** Rejects when an operator must act; resolves after `leave`. */
  readonly ended: Promise<void>
  /** Ends the generation as for others who come, and tells the group. */
  leave(): Promise<void>
}

const PROTOCOL = 'surgetank-newest-first'
const REBALANCE_MS_MAX = 30_000
const BEATS_PER_SESSION = 6
const WATCH_MS = 100
const RETRY_MS = 250
const RETRY_MS_MAX = 5_000
const LEAVE_MS_MAX = 1_000
/** The group does not know this member, or not in this generation. */
const FENCED = new Set(['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'FENCED_INSTANCE_ID'])

export function joinGroup(options: GroupMemberOptions): GroupMember {
  const { client, topic, group, knows, sessionMs, log } = options
  const startedAt = Date.now()
  const leaving = new AbortController()
  let memberId = ''
  let coordinator: KafkaNode | null = null
  const ended = live()
  return { ended, leave }

  async function live(): Promise<void> {
    const left = new Promise<null>(resolve => leaving.signal.addEventListener('abort', () => resolve(null)))
    for (let failures = 0; !leaving.signal.aborted; ) {
      try {
        const generation = await Promise.race([join(), left])
        if (generation === null) return
        await holdGeneration(generation)
        failures = 0
      } catch (error) {
        const type = kafkaErrorType(error)
        if (type === 'UNKNOWN_MEMBER_ID') memberId = ''
        const translated = translateKafkaError(error, `joining ${group}`)
        if (hasFate(translated, 'stop')) throw translated
        coordinator = null
        await client.refresh()
        if (failures++ === 3) log.warn({ err: translated, group }, 'the group of the writers cannot be joined yet')
        await wait(Math.min(RETRY_MS * 2 ** failures, RETRY_MS_MAX), leaving.signal)
      }
    }
  }

  async function join(): Promise<Generation> {
    coordinator ??= await client.coordinator(group)
    const userData = encodeStart({ startedAt, knows })
    const groupProtocols = [
      { name: PROTOCOL, metadata: MemberMetadata.encode({ version: 1, topics: [topic], userData }) },
    ]
    const session = { groupId: group, sessionTimeout: sessionMs, rebalanceTimeout: REBALANCE_MS_MAX }
    const joined = await coordinator.joinGroup({ ...session, memberId, protocolType: 'consumer', groupProtocols })
    memberId = joined.memberId
    const { generationId } = joined
    const isLeader = joined.leaderId === memberId
    if (isLeader) await client.refreshWhenOld()
    const partitionsSeen = client.partitions(topic).length
    const groupAssignment = isLeader ? encodeAssignments(joined.members) : []
    const { memberAssignment } = await coordinator.syncGroup({
      groupId: group,
      generationId,
      memberId,
      groupAssignment,
    })
    const partitions = MemberAssignment.decode(memberAssignment)?.assignment[topic] ?? []
    log.info({ group, generation: generationId, partitions }, 'partitions of the log were assigned')
    return { generationId, partitions, partitionsSeen, isLeader, beatAt: performance.now() }
  }

  function encodeAssignments(members: readonly { memberId: string; memberMetadata: Buffer }[]) {
    const known = members.map(({ memberId, memberMetadata }) => ({
      memberId,
      startedAt: decodeStart(MemberMetadata.decode(memberMetadata)?.userData ?? Buffer.alloc(0)).startedAt,
    }))
    const partitions = client.partitions(topic).map(({ partitionId }) => partitionId)
    return assignPartitions(known, partitions).map(([memberId, own]) => ({
      memberId,
      memberAssignment: MemberAssignment.encode({
        version: 1,
        assignment: { [topic]: own },
        userData: Buffer.alloc(0),
      }),
    }))
  }

  /** Until others come or go, the membership is lost, or this member leaves. */
  async function holdGeneration(generation: Generation): Promise<void> {
    const lost = new AbortController()
    const isOver = () => lost.signal.aborted || performance.now() - generation.beatAt > sessionMs
    options.assigned({
      partitions: generation.partitions,
      lost: lost.signal,
      commit: (partition, offset, metadata) =>
        commit(generation, { isOver, lose: () => lost.abort(), lost: lost.signal }, { partition, offset, metadata }),
    })
    // Beside the heartbeats, one of which may be waiting for its answer.
    const watching = setInterval(() => isOver() && lost.abort(), WATCH_MS)
    let revoking: Promise<void> | null = null
    let isRevoked = false
    while (!isRevoked && !lost.signal.aborted) {
      const state = leaving.signal.aborted ? 'rebalance' : await beat(generation)
      if (state === 'fenced' || isOver()) lost.abort()
      else if (state === 'rebalance') {
        revoking ??= within(options.revokeMsMax, options.revoked()).finally(() => (isRevoked = true))
      }
      const nextBeat = wait(sessionMs / BEATS_PER_SESSION, revoking === null ? leaving.signal : lost.signal)
      await (revoking === null ? nextBeat : Promise.race([revoking, nextBeat]))
    }
    clearInterval(watching)
    lost.abort()
    // What was given up must have ended before its partitions are asked for again: one writer of a partition in this process.
    await options.revoked()
  }

  async function beat(generation: Generation): Promise<'steady' | 'rebalance' | 'fenced'> {
    const { isLeader, partitionsSeen, generationId: groupGenerationId } = generation
    const sentAt = performance.now()
    try {
      coordinator ??= await client.coordinator(group)
      await coordinator.heartbeat({ groupId: group, groupGenerationId, memberId })
      generation.beatAt = sentAt
      if (isLeader) await client.refreshWhenOld()
      return isLeader && client.partitions(topic).length > partitionsSeen ? 'rebalance' : 'steady'
    } catch (error) {
      const type = kafkaErrorType(error)
      if (type !== null && FENCED.has(type)) {
        if (type === 'UNKNOWN_MEMBER_ID') memberId = ''
        return 'fenced'
      }
      if (type === 'REBALANCE_IN_PROGRESS') {
        generation.beatAt = sentAt
        return 'rebalance'
      }
      coordinator = null
      await client.refresh()
      return 'steady'
    }
  }

  async function commit(generation: Generation, holding: Holding, place: Place): Promise<void> {
    const { partition, offset, metadata } = place
    const topics = [{ topic, partitions: [{ partition, offset: String(offset), metadata }] }]
    const { generationId: groupGenerationId } = generation
    for (let retryMs = RETRY_MS; ; retryMs = Math.min(retryMs * 2, RETRY_MS_MAX)) {
      if (holding.isOver()) {
        holding.lose()
        throw claimLost(partition)
      }
      try {
        coordinator ??= await client.coordinator(group)
        return void (await coordinator.offsetCommit({ groupId: group, groupGenerationId, memberId, topics }))
      } catch (error) {
        const type = kafkaErrorType(error)
        if (type !== null && (FENCED.has(type) || type === 'REBALANCE_IN_PROGRESS')) {
          holding.lose()
          throw claimLost(partition)
        }
        const translated = translateKafkaError(error, `committing ${topic}/${partition}`)
        if (hasFate(translated, 'stop')) throw translated
        // Whether it was applied is not known: only the very same may follow.
        coordinator = null
        await client.refresh()
        await wait(retryMs, holding.lost)
      }
    }
  }

  async function leave(): Promise<void> {
    leaving.abort()
    await ended.catch(() => {})
    if (memberId === '') return
    const left = options.leaveBy.coordinator(group).then(node => node.leaveGroup({ groupId: group, memberId }))
    await within(LEAVE_MS_MAX, left).catch(() => {})
  }
}

interface Generation {
  readonly generationId: number
  readonly partitions: readonly number[]
  /** Partitions that the topic had when they were assigned. */
  readonly partitionsSeen: number
  readonly isLeader: boolean
  /** When the last heartbeat was sent that was answered. */
  beatAt: number
}

interface Holding {
  isOver(): boolean
  lose(): void
  readonly lost: AbortSignal
}

interface Place {
  readonly partition: number
  readonly offset: number
  readonly metadata: string
}

/** Every partition to one member, as evenly as can be; what is over goes to the newest members. Pure. */
export function assignPartitions(
  members: readonly { readonly memberId: string; readonly startedAt: number }[],
  partitions: readonly number[],
): [memberId: string, partitions: number[]][] {
  const newestFirst = [...members].sort((a, b) => b.startedAt - a.startedAt || (a.memberId < b.memberId ? -1 : 1))
  return newestFirst.map(({ memberId }, at) => [
    memberId,
    partitions.filter((_, index) => index % newestFirst.length === at),
  ])
}

function claimLost(partition: number): SurgetankError {
  return new SurgetankError('log_claim_lost', `Partition ${partition} went to another writer.`)
}

/** Ends early by the signal. */
async function wait(ms: number, signal: AbortSignal): Promise<void> {
  await pause(ms, undefined, { signal }).catch(() => {})
}
