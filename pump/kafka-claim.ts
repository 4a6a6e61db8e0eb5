/**
 * A claim on a partition of the log in Kafka, for as long as one membership of the group lasts. Its position and plan are what the
 * group has committed; a commit is refused once the group has gone on without this writer [G2].
 */
import { SurgetankError } from '../errors.ts'
import type { KafkaClient } from './kafka-client.ts'
import type { EndWatch } from './kafka-ends.ts'
import { unavailable } from './kafka-errors.ts'
import type { Membership } from './kafka-group.ts'
import { openLane, toSideTopic } from './kafka-lane.ts'
import { countedBefore, encodePosition, type Position } from './kafka-positions.ts'
import type { KafkaReader } from './kafka-reader.ts'
import { groupRecords, letterRecord } from './kafka-record.ts'
import type { LogTopic } from './kafka-topics.ts'
import { addMessages, addSums, type MessageSums, NO_MESSAGES } from './message-counts.ts'
import type { Chunk, Claim, DeadLetter, Plan, ReadLimits } from './pump.ts'

export interface HeldClaim {
  readonly claim: Claim
  /** Lets the step under way be committed, then fires `lost`; at once when there is none. */
  finish(): void
  /** Fires `lost` now. */
  drop(): void
  /** True once a commit succeeded. */
  readonly fruitful: boolean
}

export interface ClaimOptions {
  readonly client: KafkaClient
  readonly reader: KafkaReader
  readonly ends: EndWatch
  readonly membership: Membership
  readonly topic: LogTopic
  readonly partition: number
  readonly source: string
  /** Where the last commit left it; the beginning of the log when there was none. */
  readonly from: Position
  /** Rejects with `log_cut` (stop) when the partition ends before `reached`, and stays so. */
  readonly checkEnd: (reached: number) => Promise<void>
  /** All before the position is in ClickHouse. */
  readonly committed: (position: number) => void
}

/** Of chunks: their readings, and what they count of messages. */
interface Tally {
  readonly readings: number
  readonly messages: MessageSums
}

const COUNT_LIMITS: ReadLimits = { chunksMax: 500, bytesMax: 16 << 20 }

export function holdClaim(options: ClaimOptions): HeldClaim {
  const { client, reader, ends, membership, partition, source } = options
  const lost = new AbortController()
  const lane = openLane(client)
  /** Of the chunks that were read and not committed yet, by position. */
  const counted = new Map<number, Tally>()
  let { from: record } = options
  let lettersAt = -1
  let finishing = false
  let fruitful = false
  if (membership.lost.aborted) lost.abort()
  membership.lost.addEventListener('abort', () => lost.abort(), { once: true, signal: lost.signal })

  const claim: Claim = {
    partition,
    source,
    get position() {
      return record.position
    },
    get plan() {
      return record.plan
    },
    lost: lost.signal,
    begins: () => reader.firstOf(partition),
    ends: () => reader.endOf(partition),
    read,
    wait: (position, waitMs) => ends.wait(partition, position, { waitMs, signal: lost.signal }),
    commit,
  }
  return {
    claim,
    finish,
    drop: () => lost.abort(),
    get fruitful() {
      return fruitful
    },
  }

  async function read(from: number, limits: ReadLimits): Promise<Chunk[]> {
    const chunks = await reader.chunks(partition, from, limits)
    if (chunks.length === 0 && ends.known(partition) > 0 && ends.known(partition) < from) await options.checkEnd(from)
    for (const chunk of chunks) if (chunk.position >= record.position) counted.set(chunk.position, tallyOf(chunk))
    return chunks
  }

  async function commit(position: number, plan: Plan | null, letters: readonly DeadLetter[] = []): Promise<void> {
    if (lost.signal.aborted && (membership.lost.aborted || (finishing && plan !== null))) throw claimLost(source)
    if (position < record.position)
      throw new RangeError(`A position never goes back: ${record.position} to ${position}.`)
    const passed = await tallyUpTo(position)
    const readings = record.readings + passed.readings
    const { since, sums } = countedBefore(record, Date.now())
    const messages = { since, sums: addSums(sums, passed.messages) }
    const isRepeated = lettersAt === position
    if (letters.length > 0 && !isRepeated) await keepLetters(letters)
    const deadLetters = record.deadLetters + (isRepeated ? 0 : letters.length)
    const next = { position, plan, readings, deadLetters, messages }
    await membership.commit(partition, position, encodePosition(options.topic.id, next)).catch((error: unknown) => {
      lost.abort()
      throw error
    })
    if (letters.length > 0) lettersAt = position
    for (const at of counted.keys()) if (at < position) counted.delete(at)
    record = next
    fruitful = true
    options.committed(position)
    if (finishing && plan === null) lost.abort()
  }

  /** Of the chunks from the position on; those that this claim has not read are read for it. */
  async function tallyUpTo(position: number): Promise<Tally> {
    let tally: Tally = { readings: 0, messages: NO_MESSAGES }
    for (let at = record.position; at < position; ) {
      const known = counted.get(at)
      if (known !== undefined) {
        tally = addTallies(tally, known)
        at++
        continue
      }
      const chunks = await reader.chunks(partition, at, COUNT_LIMITS)
      const last = chunks.at(-1)
      if (last === undefined) throw unavailable(`${source} does not show what lies before ${position}.`)
      for (const chunk of chunks) if (chunk.position < position) tally = addTallies(tally, tallyOf(chunk))
      at = last.position + 1
    }
    return tally
  }

  /** Whoever has the partition next writes them again when this or the commit after it fails; the view shows each once. */
  async function keepLetters(letters: readonly DeadLetter[]): Promise<void> {
    for (const records of groupRecords(letters, letterRecord)) {
      await lane.send(records, toSideTopic(options.topic.letters))
    }
  }

  function finish(): void {
    finishing = true
    if (record.plan === null) lost.abort()
  }
}

function tallyOf(chunk: Chunk): Tally {
  return { readings: chunk.readings, messages: addMessages(NO_MESSAGES, chunk) }
}

function addTallies(a: Tally, b: Tally): Tally {
  return { readings: a.readings + b.readings, messages: addSums(a.messages, b.messages) }
}

function claimLost(source: string): SurgetankError {
  return new SurgetankError('log_claim_lost', `${source} went to another writer.`)
}
