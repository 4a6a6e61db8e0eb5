/**
 * The inlet of the log in Kafka: what one ingest unit appends, each batch once, over a lane. There are many inlets.
 *
 * A partition takes what the unit appends for a while (a second, or four megabytes), then the next one does: partitions fill
 * evenly whoever the devices are, and a trickle is not spread over many inserts. Order across partitions means nothing ([G4]).
 *
 * Bound: `bytesMax` of what is not in ClickHouse, by an estimate once a second; beyond it nothing is appended [G5].
 */
import type { Logger } from 'pino'
import { hasFate, type SurgetankError } from '../errors.ts'
import { checkBatch } from './chunk.ts'
import type { KafkaClient, KafkaRecord } from './kafka-client.ts'
import { unavailable } from './kafka-errors.ts'
import { openLane, type SendTo, toSideTopic } from './kafka-lane.ts'
import { newestReceiptIn, readNewest } from './kafka-newest.ts'
import type { KafkaReader } from './kafka-reader.ts'
import {
  type AppendName,
  chunkRecord,
  groupRecords,
  isOf,
  type KafkaChunk,
  newUnit,
  refusedRecord,
} from './kafka-record.ts'
import { openRepeatedList } from './kafka-repeated.ts'
import { replacedBy, watchTopicId } from './kafka-topic-id.ts'
import type { LogTopic } from './kafka-topics.ts'
import type { Batch, Chunk, PumpInlet } from './pump.ts'

export interface KafkaInletParts {
  readonly client: KafkaClient
  readonly reader: KafkaReader
  readonly topic: LogTopic
  readonly bytesMax: number
  /** How many chunks are not in ClickHouse yet. */
  readonly unwrittenChunks: () => Promise<number>
  readonly log: Logger
}

/** A batch that is being appended, and what of it Kafka does not have yet. */
interface Append {
  readonly batch: Batch
  readonly name: AppendName
  /** Its refused messages: those that are being sent, and the groups that follow. */
  refused: KafkaRecord[] | undefined
  readonly moreRefused: Iterator<KafkaRecord[], undefined>
  readonly chunk: readonly KafkaRecord[]
}

const TURN_BYTES = 4 << 20
const TURN_MS = 1_000
const LOOK_MS = 1_000
const BLIND_MS = 10_000
const NEWEST_BYTES_MAX = 64 << 20
const NEWEST_MESSAGES_MAX = 200_000
const FIND_BYTES = 4 << 20
/** How much the size of one chunk moves the mean of them all. */
const MEAN_WEIGHT = 0.05

/** Resolves when it is known where the log ends, and when it was last received. */
export async function openInlet(parts: KafkaInletParts): Promise<PumpInlet> {
  const { client, reader, topic, bytesMax, log } = parts
  const lane = openLane(client)
  const unit = newUnit()
  /** Up to where the log is known to ingest. */
  let knownTo = await reader.ends(reader.partitions())
  let newestReceivedAt = await newestReceiptIn(reader, knownTo)
  const repeated = openRepeatedList(client, topic.repeated)
  let number = 0
  let open: Append | null = null
  let turn = { at: Math.floor(Math.random() * reader.partitions().length), bytes: 0, since: performance.now() }
  let chunkBytesMean = 0
  let bytesUnwritten = 0
  let isLooking = false
  /** Nothing is appended any more: an operator must act, or this process must begin anew. */
  let failure: SurgetankError | null = null
  /** Why it was not known last how much is not in ClickHouse, and since when, ms. */
  let blind: { readonly error: unknown; readonly since: number; told: boolean } | null = null
  const endWatch = watchTopicId(client, topic, id => {
    failure = replacedBy(topic, id)
  })
  const looking = setInterval(() => void look(), LOOK_MS)
  looking.unref()

  return {
    append,
    get newestReceivedAt() {
      return newestReceivedAt
    },
    tail,
    appendedByOthers,
    close,
  }

  async function append(batch: Batch): Promise<void> {
    if (open !== null && open.batch !== batch) throw new Error('A batch that failed must be appended again first.')
    if (failure !== null) throw failure
    if (open === null) {
      checkBatch(batch)
      if (batch.messages > 0 && bytesUnwritten + batch.lines.length > bytesMax) throw logFull(bytesMax, blind?.error)
      open = begin(batch)
    }
    for (; open.refused !== undefined; open.refused = open.moreRefused.next().value) {
      await lane.send(open.refused, toSideTopic(topic.quarantine))
    }
    if (open.chunk.length > 0) {
      await lane.send(open.chunk, toLog(open.name))
      count(batch.lines.length)
    }
    if (batch.messages > 0) newestReceivedAt = Math.max(newestReceivedAt, batch.lastReceivedAt)
    repeated.add(batch.repeated)
    open = null
  }

  function begin(batch: Batch): Append {
    const name = { unit, number: number++ }
    const chunk = batch.messages + batch.counts.received === 0 ? [] : [chunkRecord(batch, name)]
    const moreRefused = groupRecords(batch.refused, refusedRecord)
    return { batch, name, refused: moreRefused.next().value, moreRefused, chunk }
  }

  function toLog(name: AppendName): SendTo {
    const partitions = reader.partitions()
    const order = partitions.map((_, index) => partitions[(turn.at + index) % partitions.length] ?? 0)
    const find = (partition: number, from: number) => isThere(name, partition, from)
    return { topic: topic.log, partitions: order, find, endOf: reader.endOf }
  }

  async function isThere(name: AppendName, partition: number, from: number): Promise<boolean> {
    for (let at = from; ; ) {
      const records = await reader.records(partition, at, FIND_BYTES)
      if (records.some(record => isOf(record, name))) return true
      const last = records.at(-1)
      if (last === undefined) return false
      at = Number(last.offset) + 1
    }
  }

  function count(bytes: number): void {
    if (bytes === 0) return
    chunkBytesMean += (bytes - chunkBytesMean) * (chunkBytesMean === 0 ? 1 : MEAN_WEIGHT)
    bytesUnwritten += bytes
    turn.bytes += bytes
    const now = performance.now()
    if (turn.bytes < TURN_BYTES && now - turn.since < TURN_MS) return
    turn = { at: (turn.at + 1) % reader.partitions().length, bytes: 0, since: now }
  }

  async function look(): Promise<void> {
    // A slow answer must not pile up behind itself.
    if (isLooking || chunkBytesMean === 0) return
    isLooking = true
    try {
      // Each as one with lines: which of them have none is not known, and the cap must hold whoever appended them.
      bytesUnwritten = (await parts.unwrittenChunks()) * chunkBytesMean
      blind = null
    } catch (error) {
      lookFailed(error)
    } finally {
      isLooking = false
    }
  }

  /** Without an answer the estimate only grows, until it is at the bound. */
  function lookFailed(error: unknown): void {
    if (hasFate(error, 'stop')) failure = error
    blind ??= { error, since: performance.now(), told: false }
    if (blind.told || performance.now() - blind.since < BLIND_MS) return
    blind.told = true
    log.warn(
      { err: error },
      'how far the writers are cannot be asked; the log is taken for full once its bound has passed',
    )
  }

  async function tail(messagesMax: number): Promise<Chunk[]> {
    const partitions = reader.partitions()
    const firsts = await reader.firsts(partitions)
    const ends = await reader.ends(partitions)
    const chunks = await newest(firsts, ends, messagesMax)
    knownTo = ends
    return chunks.filter(({ messages }) => messages > 0)
  }

  async function* appendedByOthers(): AsyncGenerator<readonly Chunk[]> {
    const ends = await reader.ends(reader.partitions())
    const chunks = await newest(knownTo, ends, NEWEST_MESSAGES_MAX)
    yield chunks.filter(chunk => chunk.messages > 0 && chunk.unit !== unit)
    knownTo = ends
  }

  function newest(
    froms: ReadonlyMap<number, number>,
    ends: ReadonlyMap<number, number>,
    messagesMax: number,
  ): Promise<KafkaChunk[]> {
    const ranges = new Map(Array.from(ends, ([partition, to]) => [partition, { from: froms.get(partition) ?? 0, to }]))
    return readNewest(reader, { ranges, messagesMax, bytesMax: NEWEST_BYTES_MAX })
  }

  async function close(): Promise<void> {
    clearInterval(looking)
    endWatch()
    await client.close()
  }
}

function logFull(bytesMax: number, blindBy?: unknown) {
  const full = `It holds about ${bytesMax} bytes that are not yet in ClickHouse, the most it may. It takes more when the writers have made room.`
  const blind = 'How far the writers are cannot be asked, and as much as the log may hold was appended since.'
  return unavailable(blindBy === undefined ? full : blind, blindBy)
}
