/**
 * The view of the log in Kafka: looks and touches nothing.
 *
 * Kafka counts records, not readings. What lies before the position was counted by the writers as they committed; what is
 * not yet written is counted here by reading it, each record once in the life of a view.
 */
import type { KafkaClient } from './kafka-client.ts'
import { newestReceiptIn } from './kafka-newest.ts'
import { type CountedPlace, fetchPlaces, unwrittenIn } from './kafka-places.ts'
import { type CountedMessages, countedBefore } from './kafka-positions.ts'
import { type KafkaReader, openKafkaReader } from './kafka-reader.ts'
import { toLetterEntry, toRefusedEntry, toRepeatedEntry } from './kafka-record.ts'
import { watchTopicId } from './kafka-topic-id.ts'
import type { LogTopic } from './kafka-topics.ts'
import { addMessages, addSums, NO_MESSAGES, toMessageBooks } from './message-counts.ts'
import type {
  Chunk,
  MessageBooks,
  PartitionBooks,
  PumpBooks,
  PumpLag,
  PumpView,
  QuarantineEntry,
  ReadLimits,
  RepeatedEntry,
} from './pump.ts'

export interface KafkaViewParts {
  readonly client: KafkaClient
  readonly reader: KafkaReader
  readonly topic: LogTopic
  readonly bytesMax: number
}

/** Readings and messages before an offset. */
interface Count {
  readonly at: number
  readonly readings: number
  readonly messages: CountedMessages
}

/** Some chunks that stand for all: the oldest position and receipt among them, and of one chunk, on average, what it holds. */
interface Sample {
  readonly position: number
  readonly firstReceivedAt: number
  readonly readings: number
  readonly bytes: number
}

const READ: ReadLimits = { chunksMax: 500, bytesMax: 8 << 20 }
/** A record without lines among others must not stand for them. */
const SAMPLE: ReadLimits = { chunksMax: 16, bytesMax: 64 << 10 }
/** Where records without lines lie before those that have some: of one look at a partition, how far on; the next look goes on. */
const LOOK_ON: ReadLimits = { chunksMax: 500, bytesMax: 64 << 10 }
const LOOKS_MAX = 8
/** Of the refused messages and the dead letters, what one look reads. */
const ENTRIES_BYTES = 4 << 20
/** Of the repetitions, the newest. */
const REPEATED_MAX = 1_000

export function openView({ client, reader, topic: opened, bytesMax }: KafkaViewParts): PumpView {
  let topic = opened
  const quarantineReader = openKafkaReader(client, topic.quarantine)
  const endWatch = watchTopicId(client, opened, id => {
    // Another log under the same name: nothing that was counted is of it.
    topic = { ...topic, id }
    counts.clear()
    oldest.clear()
    bare.clear()
  })
  const letterReader = openKafkaReader(client, topic.letters)
  /** By partition: up to where its readings were counted. */
  const counts = new Map<number, Count>()
  /** By partition: the oldest chunks with lines that were not written when they were looked for. */
  const oldest = new Map<number, Sample>()
  /** By partition: the oldest chunks that were not written, where no chunk up to `to` has lines. */
  const bare = new Map<number, { readonly sample: Sample; readonly to: number }>()

  return {
    places: countedPlaces,
    lag,
    books,
    positionAt: (partition, appendedAt) => reader.since(partition, appendedAt),
    read: (partition, from, limits) =>
      reader.partitions().includes(partition) ? reader.chunks(partition, from, limits) : none(),
    newestReceivedAt: async () => newestReceiptIn(reader, await reader.ends(reader.partitions())),
    quarantine,
    quarantineEntry,
    repeated,
    close: async () => {
      endWatch()
      await client.close()
    },
  }

  function countedPlaces(): Promise<CountedPlace[]> {
    return fetchPlaces(client, reader, topic)
  }

  async function lag(): Promise<PumpLag> {
    const sums = { readings: 0, bytes: 0, bytesUnwritten: 0 }
    let oldestUnwrittenAt: number | null = null
    for (const place of await countedPlaces()) {
      const { partition, first, committed, end } = place
      const sample = committed < end ? await oldestFrom(partition, committed) : oldest.get(partition)
      if (sample === undefined) continue
      // Like those that were looked at: all others would have to be read.
      const unwritten = unwrittenIn({ ...place, committed: Math.max(committed, sample.position) })
      sums.readings += Math.round(unwritten * sample.readings)
      sums.bytesUnwritten += Math.round(unwritten * sample.bytes)
      sums.bytes += Math.round((end - first) * sample.bytes)
      if (unwritten > 0) oldestUnwrittenAt = Math.min(oldestUnwrittenAt ?? Infinity, sample.firstReceivedAt)
    }
    return { ...sums, oldestUnwrittenAt, bytesMax }
  }

  /** From the first chunk with lines on; only while none is found, a sample without, which is not kept for those that follow. */
  async function oldestFrom(partition: number, committed: number): Promise<Sample | undefined> {
    const held = oldest.get(partition)
    if (held !== undefined && held.position >= committed) return held
    const before = bare.get(partition)
    let looked = before !== undefined && before.sample.position >= committed ? before : undefined
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      const chunks = await reader.chunks(partition, looked?.to ?? committed, looked === undefined ? SAMPLE : LOOK_ON)
      const [found, last] = [sampleOf(chunks), chunks.at(-1)]
      if (found === undefined || last === undefined) break
      const begins = chunks.find(({ messages }) => messages > 0)
      if (begins !== undefined) {
        const isFirst = begins.position === found.position
        const sample = isFirst ? found : sampleOf(await reader.chunks(partition, begins.position, SAMPLE))
        if (sample !== undefined) oldest.set(partition, sample)
        return sample
      }
      looked = { sample: looked?.sample ?? found, to: last.position + 1 }
      bare.set(partition, looked)
    }
    return looked?.sample
  }

  async function books(): Promise<PumpBooks> {
    const places = await countedPlaces()
    const counted = await Promise.all(places.map(countTo))
    const booked = await Promise.all(places.map((place, index) => bookOf(place, counted[index]?.readings ?? 0)))
    const { bytes, bytesUnwritten } = await lag()
    const refused = await rangeOf(quarantineReader)
    return {
      partitions: booked,
      messages: messageBooksOf(counted, refused.end - refused.first),
      quarantined: refused.end,
      quarantinedKept: refused.end - refused.first,
      bytes,
      bytesUnwritten,
      bytesMax,
    }
  }

  async function bookOf(place: CountedPlace, readingsAppended: number): Promise<PartitionBooks> {
    const { partition, source, first, end, committed, plan, readings, deadLetters } = place
    const sample = committed < end ? await oldestFrom(partition, committed) : undefined
    return {
      partition,
      source,
      first,
      end,
      committed,
      plan,
      readingsAppended,
      readingsCommitted: readings,
      deadLetters,
      oldestUnwrittenAt: sample?.firstReceivedAt ?? null,
    }
  }

  /** All before the end. */
  async function countTo(place: CountedPlace): Promise<Count> {
    const { partition, committed, end, readings } = place
    const before = counts.get(partition)
    const isBehind = before === undefined || before.at < committed
    let count = isBehind ? { at: committed, readings, messages: countedBefore(place, Date.now()) } : before
    while (count.at < end) {
      const chunks = (await reader.chunks(partition, count.at, READ)).filter(({ position }) => position < end)
      const last = chunks.at(-1)
      if (last === undefined) break
      const more = chunks.reduce((sum, chunk) => sum + chunk.readings, 0)
      const { since, sums } = count.messages
      const messages = { since, sums: chunks.reduce(addMessages, sums) }
      count = { at: last.position + 1, readings: count.readings + more, messages }
    }
    counts.set(partition, count)
    return count
  }

  async function rangeOf(of: KafkaReader): Promise<{ first: number; end: number }> {
    return { first: await of.firstOf(0), end: await of.endOf(0) }
  }

  async function quarantine(entriesMax: number): Promise<QuarantineEntry[]> {
    const refused = await newestEntries(quarantineReader, entriesMax, record => {
      const entry = toRefusedEntry(record)
      return entry === null ? null : { entry, place: entry.id }
    })
    const letters = await newestEntries(letterReader, entriesMax, toLetterEntry)
    return [...refused, ...letters].sort((a, b) => b.receivedAt - a.receivedAt).slice(0, entriesMax)
  }

  async function quarantineEntry(id: string): Promise<QuarantineEntry | null> {
    const [, kind, digits] = /^([mr])(\d{1,15})$/.exec(id) ?? []
    const offset = Number(digits) - 1
    if (kind === undefined || offset < 0) return null
    const [record] = await (kind === 'm' ? quarantineReader : letterReader).records(0, offset, ENTRIES_BYTES)
    if (record === undefined || Number(record.offset) !== offset) return null
    return kind === 'm' ? toRefusedEntry(record) : (toLetterEntry(record)?.entry ?? null)
  }

  /** The newest REPEATED_MAX are looked at. */
  async function repeated(entriesMax: number, device: string | null): Promise<RepeatedEntry[]> {
    if (topic.repeated === null) return []
    const of = openKafkaReader(client, topic.repeated)
    const { first, end } = await rangeOf(of)
    const entries: RepeatedEntry[] = []
    for (let at = Math.max(first, end - REPEATED_MAX); at < end; ) {
      const records = await of.records(0, at, ENTRIES_BYTES)
      const last = records.at(-1)
      if (last === undefined) break
      const found = records.map(toRepeatedEntry).filter(entry => entry !== null)
      entries.push(...found.filter(entry => device === null || entry.device === device))
      at = Number(last.offset) + 1
    }
    return entries.reverse().slice(0, entriesMax)
  }

  /** Newest first, one for each place. */
  async function newestEntries(
    of: KafkaReader,
    entriesMax: number,
    toEntry: (record: Awaited<ReturnType<KafkaReader['records']>>[number]) => {
      entry: QuarantineEntry
      place: string
    } | null,
  ): Promise<QuarantineEntry[]> {
    const { first, end } = await rangeOf(of)
    const found = new Map<string, QuarantineEntry>()
    for (let at = Math.max(first, end - entriesMax); at < end; ) {
      const records = await of.records(0, at, ENTRIES_BYTES)
      const last = records.at(-1)
      if (last === undefined) break
      for (const record of records) {
        const made = toEntry(record)
        if (made !== null && !found.has(made.place)) found.set(made.place, made.entry)
      }
      at = Number(last.offset) + 1
    }
    return [...found.values()].reverse()
  }
}

/** Since the newest beginning of them all: before it some were not counted. */
function messageBooksOf(counts: readonly Count[], quarantinedKept: number): MessageBooks {
  const sums = counts.reduce((all, { messages }) => addSums(all, messages.sums), NO_MESSAGES)
  const since = counts.map(({ messages }) => messages.since).filter(at => at !== null)
  return toMessageBooks(sums, quarantinedKept, since.length === 0 ? null : Math.max(...since))
}

/** Undefined for no chunks. */
function sampleOf(chunks: readonly Chunk[]): Sample | undefined {
  const [first] = chunks
  if (first === undefined) return undefined
  const readings = chunks.reduce((sum, chunk) => sum + chunk.readings, 0) / chunks.length
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.lines.length, 0) / chunks.length
  return { position: first.position, firstReceivedAt: first.firstReceivedAt, readings, bytes }
}

async function none(): Promise<Chunk[]> {
  return []
}
