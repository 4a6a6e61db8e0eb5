/** The newest chunks of partitions, without knowing beforehand how far back they begin. */
import type { KafkaReader } from './kafka-reader.ts'
import type { KafkaChunk } from './kafka-record.ts'

export interface NewestWanted {
  /** Of each partition: not before this offset, and not from this one on. */
  readonly ranges: ReadonlyMap<number, { readonly from: number; readonly to: number }>
  /** About so many, and no more bytes of lines, over all partitions. */
  readonly messagesMax: number
  readonly bytesMax: number
}

/** Records looked at first; each further look back takes twice as many, or fewer when they turn out to be large. */
const STEP_MIN = 16
/** Of a partition, where only the newest receipt is looked for: units write into it one after another. */
const RECEIPT_MESSAGES = 10_000
const RECEIPT_BYTES = 8 << 20
/** Of all partitions, which are read together. */
const RECEIPT_BYTES_MAX = 64 << 20

/** In order of their receipt, oldest first. Holds at most twice `bytesMax`, and a chunk. */
export async function readNewest(
  reader: KafkaReader,
  { ranges, messagesMax, bytesMax }: NewestWanted,
): Promise<KafkaChunk[]> {
  if (messagesMax === 0) return []
  const bytesEach = Math.ceil(bytesMax / Math.max(1, ranges.size))
  const found: KafkaChunk[] = []
  for (const [partition, range] of ranges) {
    let [messages, bytes, step, end] = [0, 0, STEP_MIN, range.to]
    while (end > range.from && messages < messagesMax && bytes < bytesEach) {
      const from = Math.max(range.from, end - step)
      const chunks = await readRange(reader, partition, { from, to: end, bytesMax: bytesEach - bytes })
      if (chunks === null) {
        step = Math.ceil(step / 4)
        continue
      }
      messages += chunks.reduce((sum, chunk) => sum + chunk.messages, 0)
      bytes += bytesOf(chunks)
      found.push(...chunks)
      end = from
      step *= 2
    }
  }
  return cutOldest(found.sort(byReceipt), messagesMax)
}

/** The newest receipt among the last messages of each partition, ms since 1970 UTC; 0 when nothing is held. */
export async function newestReceiptIn(reader: KafkaReader, ends: ReadonlyMap<number, number>): Promise<number> {
  const firsts = await reader.firsts([...ends.keys()])
  const bytesMax = Math.min(RECEIPT_BYTES, Math.ceil(RECEIPT_BYTES_MAX / Math.max(1, ends.size)))
  const newest = await Promise.all(
    Array.from(ends, async ([partition, to]) => {
      const ranges = new Map([[partition, { from: firsts.get(partition) ?? 0, to }]])
      const chunks = await readNewest(reader, { ranges, messagesMax: RECEIPT_MESSAGES, bytesMax })
      return chunks.reduce((at, { messages, lastReceivedAt }) => (messages > 0 ? Math.max(at, lastReceivedAt) : at), 0)
    }),
  )
  return Math.max(0, ...newest)
}

interface Range {
  readonly from: number
  readonly to: number
  readonly bytesMax: number
}

/** All chunks of a range that are still there; null when they are more than may be, and it is more than one. */
async function readRange(reader: KafkaReader, partition: number, range: Range): Promise<KafkaChunk[] | null> {
  const { from, to, bytesMax } = range
  const found: KafkaChunk[] = []
  for (let at = from; at < to; ) {
    const chunks = await reader.chunks(partition, at, { chunksMax: to - at, bytesMax })
    const last = chunks.at(-1)
    if (last === undefined) break
    found.push(...chunks.filter(({ position }) => position < to))
    if (to - from > 1 && bytesOf(found) > bytesMax) return null
    at = last.position + 1
  }
  return found
}

function bytesOf(chunks: readonly KafkaChunk[]): number {
  return chunks.reduce((sum, { lines }) => sum + lines.length, 0)
}

function byReceipt(a: KafkaChunk, b: KafkaChunk): number {
  return a.lastReceivedAt - b.lastReceivedAt || a.partition - b.partition || a.position - b.position
}

/** As few as hold `messagesMax`. */
function cutOldest(chunks: readonly KafkaChunk[], messagesMax: number): KafkaChunk[] {
  let messages = 0
  let first = chunks.length
  while (first > 0 && messages < messagesMax) messages += chunks[--first]?.messages ?? 0
  return chunks.slice(first)
}
