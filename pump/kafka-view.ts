/**
 * The view of the log in Kafka: looks and touches nothing.
 *
 * Kafka counts records, not readings. What lies before the position was counted by the writers as they committed; what is
 * not yet written is counted here by reading it, each record once in the life of a view.
 */
import type { KafkaClient } from './kafka-client.ts'
import { type CountedPlace, fetchPlaces, unwrittenIn } from './kafka-places.ts'
import { type KafkaReader, openKafkaReader } from './kafka-reader.ts'
import { toLetterEntry, toRefusedEntry } from './kafka-record.ts'
import { watchTopicId } from './kafka-topic-id.ts'
import type { LogTopic } from './kafka-topics.ts'
import type { Chunk, PartitionBooks, PumpBooks, PumpLag, PumpView, QuarantineEntry, ReadLimits } from './pump.ts'

export interface KafkaViewParts {
  readonly client: KafkaClient
  readonly reader: KafkaReader
  readonly topic: LogTopic
  readonly bytesMax: number
}

/** Readings before an offset. */
interface Count {
  readonly at: number
  readonly readings: number
}

const READ: ReadLimits = { chunksMax: 500, bytesMax: 8 << 20 }
const ONE: ReadLimits = { chunksMax: 1, bytesMax: 1 }
/** Of the refused messages and the dead letters, what one look reads. */
const ENTRIES_BYTES = 4 << 20

export function openView({ client, reader, topic: opened, bytesMax }: KafkaViewParts): PumpView {
  let topic = opened
  const quarantineReader = openKafkaReader(client, topic.quarantine)
  const endWatch = watchTopicId(client, opened, id => {
    // Another log under the same name: nothing that was counted is of it.
    topic = { ...topic, id }
    counts.clear()
    oldest.clear()
  })
  const letterReader = openKafkaReader(client, topic.letters)
  /** By partition: up to where its readings were counted. */
  const counts = new Map<number, Count>()
  /** By partition: the oldest chunk that was not written when it was looked for. */
  const oldest = new Map<number, Chunk>()

  return {
    places: countedPlaces,
    lag,
    books,
    positionAt: (partition, appendedAt) => reader.since(partition, appendedAt),
    read: (partition, from, limits) =>
      reader.partitions().includes(partition) ? reader.chunks(partition, from, limits) : none(),
    quarantine,
    quarantineEntry,
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
      const chunk = committed < end ? await oldestFrom(partition, committed) : oldest.get(partition)
      if (chunk === undefined) continue
      // Like the one that was looked at: all others would have to be read.
      const [size, unwritten] = [chunk.lines.length, unwrittenIn(place)]
      sums.readings += unwritten * chunk.readings
      sums.bytesUnwritten += unwritten * size
      sums.bytes += (end - first) * size
      if (unwritten > 0) oldestUnwrittenAt = Math.min(oldestUnwrittenAt ?? Infinity, chunk.firstReceivedAt)
    }
    return { ...sums, oldestUnwrittenAt, bytesMax }
  }

  async function oldestFrom(partition: number, committed: number): Promise<Chunk | undefined> {
    const held = oldest.get(partition)
    if (held !== undefined && held.position >= committed) return held
    const [chunk] = await reader.chunks(partition, committed, ONE)
    if (chunk !== undefined) oldest.set(partition, chunk)
    return chunk
  }

  async function books(): Promise<PumpBooks> {
    const places = await countedPlaces()
    const booked = await Promise.all(places.map(bookOf))
    const { bytes, bytesUnwritten } = await lag()
    const refused = await rangeOf(quarantineReader)
    return {
      partitions: booked,
      quarantined: refused.end,
      quarantinedKept: refused.end - refused.first,
      bytes,
      bytesUnwritten,
      bytesMax,
    }
  }

  async function bookOf(place: CountedPlace): Promise<PartitionBooks> {
    const { partition, source, first, end, committed, plan, readings, deadLetters } = place
    const readingsAppended = await countTo(place)
    const chunk = committed < end ? await oldestFrom(partition, committed) : undefined
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
      oldestUnwrittenAt: chunk?.firstReceivedAt ?? null,
    }
  }

  /** Readings before the end. */
  async function countTo({ partition, committed, end, readings }: CountedPlace): Promise<number> {
    const before = counts.get(partition)
    let count = before === undefined || before.at < committed ? { at: committed, readings } : before
    while (count.at < end) {
      const chunks = (await reader.chunks(partition, count.at, READ)).filter(({ position }) => position < end)
      const last = chunks.at(-1)
      if (last === undefined) break
      const more = chunks.reduce((sum, chunk) => sum + chunk.readings, 0)
      count = { at: last.position + 1, readings: count.readings + more }
    }
    counts.set(partition, count)
    return count.readings
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

async function none(): Promise<Chunk[]> {
  return []
}
