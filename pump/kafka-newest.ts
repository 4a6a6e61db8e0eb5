/** The newest chunks of partitions, without knowing beforehand how far back they begin. */
import type { KafkaReader } from './kafka-reader.ts'
import type { Chunk } from './pump.ts'

export interface NewestWanted {
  /** Of each partition: not before this offset, and not from this one on. */
  readonly ranges: ReadonlyMap<number, { readonly from: number; readonly to: number }>
  /** About so many, and no more bytes of lines, over all partitions. */
  readonly messagesMax: number
  readonly bytesMax: number
}

/** Records looked at first; each further look back takes twice as many. */
const STEP_MIN = 16

/** In order of their receipt, oldest first. */
export async function readNewest(
  reader: KafkaReader,
  { ranges, messagesMax, bytesMax }: NewestWanted,
): Promise<Chunk[]> {
  if (messagesMax === 0) return []
  const bytesEach = Math.ceil(bytesMax / Math.max(1, ranges.size))
  const found: Chunk[] = []
  for (const [partition, { from, to }] of ranges) {
    let [messages, bytes, step] = [0, 0, STEP_MIN]
    for (let end = to; end > from && messages < messagesMax && bytes < bytesEach; step *= 2) {
      const start = Math.max(from, end - step)
      const chunks = await readRange(reader, partition, { from: start, to: end })
      messages += chunks.reduce((sum, chunk) => sum + chunk.messages, 0)
      bytes += chunks.reduce((sum, chunk) => sum + chunk.lines.length, 0)
      found.push(...chunks)
      end = start
    }
  }
  return cutOldest(found.sort(byReceipt), messagesMax)
}

/** All chunks of a range that are still there. */
async function readRange(
  reader: KafkaReader,
  partition: number,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<Chunk[]> {
  const found: Chunk[] = []
  for (let at = from; at < to; ) {
    const chunks = await reader.chunks(partition, at, { chunksMax: to - at, bytesMax: 16 << 20 })
    const last = chunks.at(-1)
    if (last === undefined) break
    found.push(...chunks.filter(({ position }) => position < to))
    at = last.position + 1
  }
  return found
}

function byReceipt(a: Chunk, b: Chunk): number {
  return a.lastReceivedAt - b.lastReceivedAt || a.partition - b.partition || a.position - b.position
}

/** As few as hold `messagesMax`. */
function cutOldest(chunks: readonly Chunk[], messagesMax: number): Chunk[] {
  let messages = 0
  let first = chunks.length
  while (first > 0 && messages < messagesMax) messages += chunks[--first]?.messages ?? 0
  return chunks.slice(first)
}
