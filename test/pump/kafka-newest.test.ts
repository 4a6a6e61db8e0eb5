/** The newest chunks of a log, whatever their sizes: what is read and held has a bound. */
import { expect, it } from 'vitest'
import { newestReceiptIn, readNewest } from '../../pump/kafka-newest.ts'
import type { KafkaReader } from '../../pump/kafka-reader.ts'
import type { KafkaChunk } from '../../pump/kafka-record.ts'
import type { ReadLimits } from '../../pump/pump.ts'
import { within } from '../../within.ts'
import { accepted, deferred } from '../contracts/pump-samples.ts'

const LARGE = Buffer.alloc(100_000)
const SMALL = Buffer.alloc(100)

/** Large chunks, then a long row of small ones. */
function openLog(large: number, small: number) {
  const total = large + small
  let held = 0
  let heldMax = 0
  let read = 0
  const chunks = async (
    partition: number,
    from: number,
    { chunksMax, bytesMax }: ReadLimits,
  ): Promise<KafkaChunk[]> => {
    const found: KafkaChunk[] = []
    let bytes = 0
    for (let position = from; position < Math.min(total, from + chunksMax); position++) {
      const lines = position < large ? LARGE : SMALL
      bytes += lines.length
      if (found.length > 0 && bytes > bytesMax) break
      const at = { firstReceivedAt: position, lastReceivedAt: position }
      found.push({ partition, position, ...accepted(1), readings: 1, ...at, unit: null, lines })
    }
    held = found.reduce((sum, { lines }) => sum + lines.length, 0)
    heldMax = Math.max(heldMax, held)
    read += held
    return found
  }
  return { reader: { chunks } as unknown as KafkaReader, total, heldMax: () => heldMax, read: () => read }
}

it('reads and holds no more than it may, also where small chunks follow on large ones', async () => {
  const log = openLog(2_000, 8_100)
  const bytesMax = 4 << 20
  const ranges = new Map([[0, { from: 0, to: log.total }]])
  const found = await readNewest(log.reader, { ranges, messagesMax: 200_000, bytesMax })
  const bytes = found.reduce((sum, { lines }) => sum + lines.length, 0)
  expect(bytes).toBeLessThanOrEqual(2 * bytesMax)
  expect(bytes).toBeGreaterThan(bytesMax / 2)
  expect(log.heldMax()).toBeLessThanOrEqual(bytesMax + LARGE.length)
  expect(log.read()).toBeLessThan(16 * bytesMax)
  // One row without a gap, up to the end.
  expect(found.map(({ position }) => position)).toEqual(found.map((_, at) => log.total - found.length + at))
})

it('takes no more messages than asked for, from the newest on', async () => {
  const log = openLog(0, 1_000)
  const ranges = new Map([[0, { from: 990, to: 1_000 }]])
  const found = await readNewest(log.reader, { ranges, messagesMax: 7, bytesMax: 1 << 20 })
  expect(found.map(({ position }) => position)).toEqual([993, 994, 995, 996, 997, 998, 999])
})

it('gives a chunk that is larger than all may be together', async () => {
  const log = openLog(3, 0)
  const found = await readNewest(log.reader, {
    ranges: new Map([[0, { from: 0, to: 3 }]]),
    messagesMax: 10,
    bytesMax: 1_000,
  })
  expect(found.map(({ position }) => position)).toEqual([2])
})

it('looks for the newest receipt in all partitions together', async () => {
  const ends = new Map([0, 1, 2, 3].map(partition => [partition, 5]))
  const asked = new Set<number>()
  const all = deferred<void>()
  const log = openLog(0, 5)
  const chunks: KafkaReader['chunks'] = async (partition, from, limits) => {
    asked.add(partition)
    if (asked.size === ends.size) all.resolve()
    await all.promise
    return log.reader.chunks(partition, from, limits)
  }
  const reader = { chunks, firsts: async () => new Map() } as unknown as KafkaReader
  expect(await within(5_000, newestReceiptIn(reader, ends))).toBe(4)
})
