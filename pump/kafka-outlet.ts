/**
 * The outlet of the log in Kafka: a member of the writers' consumer group, and one claim for each partition that the group
 * gives it. A claim whose work failed is taken again, from what was committed last, for as long as the membership lasts.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import { hasFate, SurgetankError } from '../errors.ts'
import { type HeldClaim, holdClaim } from './kafka-claim.ts'
import type { KafkaClient } from './kafka-client.ts'
import { openEndWatch } from './kafka-ends.ts'
import { joinGroup, type Membership } from './kafka-group.ts'
import type { Knowledge } from './kafka-members.ts'
import { beginningAt, fetchPositions, type Position, sourceOf } from './kafka-positions.ts'
import type { KafkaReader } from './kafka-reader.ts'
import { replacedBy, topicIdOf, watchTopicId } from './kafka-topic-id.ts'
import type { LogTopic } from './kafka-topics.ts'
import type { Trimmer } from './kafka-trim.ts'
import type { Claim, Consumption, PumpOutlet } from './pump.ts'

export interface KafkaOutletParts {
  /** For reads and dead letters; another one for the group, in which a join waits for others. */
  readonly client: KafkaClient
  readonly groupClient: KafkaClient
  readonly reader: KafkaReader
  readonly trimmer: Trimmer
  readonly topic: LogTopic
  readonly knows: Knowledge
  readonly sessionMs: number
  readonly revokeMsMax: number
  readonly failed: (error: unknown) => void
  readonly log: Logger
}

const PAUSE_MS_MIN = 250
const PAUSE_MS_MAX = 30_000
/** How long a stop waits for the step under way before it gives the step up; its plan stays open and is settled later. */
const FINISH_MS_MAX = 2_000
/** At the end of a partition that seems to have lost records: for four seconds at least. */
const LOOKS_MAX = 17
const LOOK_MS = 250

export function openOutlet(parts: KafkaOutletParts): PumpOutlet {
  const { client, groupClient, reader, trimmer, topic, log } = parts
  const ends = openEndWatch(reader)
  let consumption: Consumption | null = null

  return { consume, close }

  function consume(work: (claim: Claim) => Promise<void>): Consumption {
    if (consumption !== null) throw new Error('An outlet is consumed once.')
    const held = new Set<HeldClaim>()
    const running = new Set<Promise<void>>()
    let fail: (error: unknown) => void = () => {}
    const failure = new Promise<never>((_, reject) => (fail = reject))
    /** Of the generation at hand: fires when it is to end. */
    let ending = new AbortController()
    let dropAfterMs: number | null = null
    const { knows, sessionMs, revokeMsMax } = parts
    const group = { client: groupClient, leaveBy: client, topic: topic.log, group: topic.group }
    const member = joinGroup({ ...group, knows, sessionMs, revokeMsMax, log, assigned, revoked })
    // An error that an operator must act on ends the membership, too.
    const endWatch = watchTopicId(client, topic, id => fail(replacedBy(topic, id)))
    const ended = Promise.race([member.ended, failure]).finally(endWatch)
    ended.catch(() => void member.leave())
    consumption = { ended, stop }
    return consumption

    function assigned(membership: Membership): void {
      ending = new AbortController()
      for (const partition of membership.partitions) {
        const run = runPartition(membership, partition)
          .catch(fail)
          .finally(() => running.delete(run))
        running.add(run)
      }
    }

    async function runPartition(membership: Membership, partition: number): Promise<void> {
      const over = AbortSignal.any([membership.lost, ending.signal])
      for (let failures = 0; !over.aborted; ) {
        const fruitful = await workOnce(membership, partition)
        failures = fruitful ? 0 : failures + 1
        const pauseMs = Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** Math.max(0, failures - 1))
        await pause(pauseMs, undefined, { signal: over }).catch(() => {})
      }
    }

    async function workOnce(membership: Membership, partition: number): Promise<boolean> {
      let taken: HeldClaim | null = null
      try {
        await checkTopic()
        const from = await positionOf(partition)
        const committed = (position: number) => trimmer.committed(partition, position)
        const source = sourceOf(topic, partition)
        const checkEnd = (reached: number) => checkPartitionEnd(partition, reached)
        const about = { membership, topic, partition, source, from, checkEnd, committed }
        taken = holdClaim({ client, reader, ends, ...about })
        held.add(taken)
        if (ending.signal.aborted) taken.finish()
        if (!taken.claim.lost.aborted) await work(taken.claim)
        return true
      } catch (error) {
        if (hasFate(error, 'stop')) throw error
        const isOvertaken = error instanceof SurgetankError && error.code === 'log_claim_lost'
        if (!isOvertaken) parts.failed(error)
        return taken?.fruitful ?? false
      } finally {
        if (taken !== null) {
          taken.drop()
          held.delete(taken)
        }
      }
    }

    /** Lets the steps under way end, and be committed. */
    async function revoked(): Promise<void> {
      ending.abort()
      for (const claim of held) claim.finish()
      const giveUp = dropAfterMs === null ? undefined : setTimeout(dropAll, dropAfterMs)
      while (running.size > 0) await Promise.all(running)
      clearTimeout(giveUp)
    }

    function dropAll(): void {
      for (const claim of held) claim.drop()
    }

    /** Also when the group has asked for the partitions just before, and gives the steps under way more time. */
    async function stop(): Promise<void> {
      dropAfterMs = FINISH_MS_MAX
      const giveUp = setTimeout(dropAll, FINISH_MS_MAX)
      await member.leave()
      clearTimeout(giveUp)
    }
  }

  async function close(): Promise<void> {
    await consumption?.stop()
    ends.close()
    await trimmer.close()
    await Promise.all([client.close(), groupClient.close()])
  }

  /** Rejects with `log_replaced` when the topic was made anew since this outlet was opened. */
  async function checkTopic(): Promise<void> {
    const found = await topicIdOf(client, topic.log)
    if (found !== topic.id) throw replacedBy(topic, found)
  }

  function checkPartitionEnd(partition: number, reached: number): Promise<void> {
    return checkEnd(client, reader, { source: sourceOf(topic, partition), partition, reached })
  }

  /** As committed last; the beginning of the log where nothing was. */
  async function positionOf(partition: number): Promise<Position> {
    const committed = (await fetchPositions(groupClient, topic, [partition])).get(partition)
    if (committed !== undefined) {
      await checkPartitionEnd(partition, Math.max(committed.position, committed.plan?.to ?? 0))
      return committed
    }
    return beginningAt(await reader.firstOf(partition))
  }
}

/**
 * Resolves when the partition ends at `reached` or later; rejects with `log_cut` when it is found to end before that, again and again.
 * A new leader may need a moment to know how far the log was acknowledged, and an old one that nobody else reaches may go on
 * to answer for long: before each further look it is asked anew who leads.
 */
export async function checkEnd(client: KafkaClient, reader: KafkaReader, place: Reached): Promise<void> {
  const { source, partition, reached } = place
  for (let look = 1; ; look++) {
    const end = await reader.endOf(partition)
    if (end >= reached) return
    if (look === LOOKS_MAX) throw behind(source, end, reached)
    await pause(LOOK_MS)
    await client.refresh()
  }
}

interface Reached {
  readonly source: string
  readonly partition: number
  readonly reached: number
}

function behind(source: string, end: number, reached: number): SurgetankError {
  const detail = `${source} ends at ${end}, and the writers have come to ${reached}: Kafka has lost readings, or its data was restored from an older copy. Restore the newer one, or name another SURGETANK_KAFKA_TOPIC to begin anew.`
  return new SurgetankError('log_cut', detail)
}
