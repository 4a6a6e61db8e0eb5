/**
 * Metric slots: the newest reading of each metric of each device, in typed arrays.
 *
 * A slot is one metric of one device: 28 bytes, of which 24 are its moment (ts, receivedAt, value as doubles, the times in µs, side by side:
 * one or two cache lines for five metrics) and 4 its tag: the number of the metric's name and the kind of the value. The
 * slots of a device lie side by side in one block, in order of their first claim; a block that is full moves to a larger one
 * and leaves its place to the next device of that size. Blocks lie in chunks that never move, so growing copies nothing but
 * the device that grows. Values that are no double are kept beside, by slot.
 *
 * Invariant: a slot's moment is the maximum, by the order of [G4], of all that were merged into it.
 */

import { ownText } from '../model/own-text.ts'
import { compareValues, KIND, type Kind, kindOf, type Value } from '../model/reading.ts'

const CHUNK_BITS = 16
const CHUNK_SLOTS = 1 << CHUNK_BITS
const CHUNK_MASK = CHUNK_SLOTS - 1

/** Room of a block. One metric, five and so on fit with little to spare; the last is what one chunk can hold. */
const CAPACITIES = [2, 6, 12, 24, 48, 96, 192, 384, 768, 1536, 3072, 6144, 12_288, 24_576, 49_152]

/** The most metrics that one device can have here. Claims end at a thousand; a setting or a restart may have let in more. */
export const SLOTS_PER_DEVICE_MAX = 49_152

const KIND_BITS = 3
const KIND_MASK = (1 << KIND_BITS) - 1
/** Claimed, and nothing merged yet. */
const EMPTY = 0

const DOUBLES_PER_SLOT = 3

interface Chunk {
  readonly tags: Uint32Array
  readonly moments: Float64Array
  /** Text and exact integers, by place in the chunk; made when the first one comes. */
  others: Map<number, string | bigint> | null
}

export interface SlotMoment {
  /** Number of the metric's name. */
  readonly name: number
  readonly ts: number
  readonly receivedAt: number
  readonly value: Value
}

export interface MetricSlots {
  /** The slot of a metric in the block of a device, or -1. `hint` is where it is likely to be, counted from `first`. */
  find(first: number, count: number, name: number, hint: number): number
  /** Adds an empty slot for `name` to a block with `count` slots. Returns the block's first slot, which may be another than before. */
  add(first: number, count: number, name: number): number
  /** Merges a reading, its times in µs; true when it is now the newest of its metric. */
  merge(slot: number, ts: number, receivedAt: number, value: Value): boolean
  /** What was merged into a slot, or null. */
  read(slot: number): SlotMoment | null
}

export function openMetricSlots(): MetricSlots {
  const chunks: Chunk[] = []
  const freed = new Map<number, number[]>()
  let unused = 0

  return { find, add, merge, read }

  function find(first: number, count: number, name: number, hint: number): number {
    if (count === 0) return -1
    const { tags } = chunkOf(first)
    const from = first & CHUNK_MASK
    // Devices send their metrics in the same order each time: the hint is right for almost every reading.
    if (hint < count && (tags[from + hint] as number) >>> KIND_BITS === name) return first + hint
    for (let at = 0; at < count; at++) {
      if ((tags[from + at] as number) >>> KIND_BITS === name) return first + at
    }
    return -1
  }

  function add(first: number, count: number, name: number): number {
    const capacity = capacityOf(count)
    const grown = capacityOf(count + 1)
    const block = grown === capacity ? first : allocate(grown)
    if (block !== first && count > 0) {
      move(first, block, count)
      release(first, capacity)
    }
    chunkOf(block).tags[(block & CHUNK_MASK) + count] = ((name << KIND_BITS) | EMPTY) >>> 0
    return block
  }

  function allocate(capacity: number): number {
    const reused = freed.get(capacity)?.pop()
    if (reused !== undefined) return reused
    // A block lies in one chunk: what is left of the last one is given to smaller blocks or, at most once per chunk, wasted.
    if ((unused & CHUNK_MASK) + capacity > CHUNK_SLOTS) unused = (unused | CHUNK_MASK) + 1
    const block = unused
    unused += capacity
    if (chunks.length <= block >>> CHUNK_BITS) chunks.push(newChunk())
    return block
  }

  function release(block: number, capacity: number) {
    const blocks = freed.get(capacity)
    if (blocks === undefined) freed.set(capacity, [block])
    else blocks.push(block)
  }

  function move(from: number, to: number, count: number) {
    const [source, target] = [chunkOf(from), chunkOf(to)]
    const [sourceAt, targetAt] = [from & CHUNK_MASK, to & CHUNK_MASK]
    target.tags.set(source.tags.subarray(sourceAt, sourceAt + count), targetAt)
    const moments = source.moments.subarray(sourceAt * DOUBLES_PER_SLOT, (sourceAt + count) * DOUBLES_PER_SLOT)
    target.moments.set(moments, targetAt * DOUBLES_PER_SLOT)
    if (source.others === null) return
    for (let at = 0; at < count; at++) {
      const other = source.others.get(sourceAt + at)
      if (other === undefined) continue
      keepOther(target, targetAt + at, other)
      source.others.delete(sourceAt + at)
    }
  }

  function merge(slot: number, ts: number, receivedAt: number, value: Value): boolean {
    const chunk = chunkOf(slot)
    const at = slot & CHUNK_MASK
    const moment = at * DOUBLES_PER_SLOT
    if (((chunk.tags[at] as number) & KIND_MASK) !== EMPTY) {
      const heldTs = chunk.moments[moment] as number
      if (ts < heldTs) return false
      if (ts === heldTs) {
        const heldReceivedAt = chunk.moments[moment + 1] as number
        if (receivedAt < heldReceivedAt) return false
        if (receivedAt === heldReceivedAt && compareValues(value, valueAt(chunk, at)) <= 0) return false
      }
    }
    write(chunk, at, ts, receivedAt, value)
    return true
  }

  function write(chunk: Chunk, at: number, ts: number, receivedAt: number, value: Value) {
    const tag = chunk.tags[at] as number
    const kind = KIND[kindOf(value)]
    const moment = at * DOUBLES_PER_SLOT
    chunk.moments[moment] = ts
    chunk.moments[moment + 1] = receivedAt
    chunk.moments[moment + 2] = typeof value === 'number' || typeof value === 'boolean' ? Number(value) : 0
    const wasOther = isOther(tag & KIND_MASK)
    chunk.tags[at] = ((tag & ~KIND_MASK) | kind) >>> 0
    if (typeof value === 'string' || typeof value === 'bigint') {
      if (!wasOther || chunk.others?.get(at) !== value) keepOther(chunk, at, value)
    } else if (wasOther) {
      chunk.others?.delete(at)
    }
  }

  function read(slot: number): SlotMoment | null {
    const chunk = chunkOf(slot)
    const at = slot & CHUNK_MASK
    const tag = chunk.tags[at] as number
    if ((tag & KIND_MASK) === EMPTY) return null
    const moment = at * DOUBLES_PER_SLOT
    return {
      name: tag >>> KIND_BITS,
      ts: chunk.moments[moment] as number,
      receivedAt: chunk.moments[moment + 1] as number,
      value: valueAt(chunk, at),
    }
  }

  function chunkOf(slot: number): Chunk {
    return chunks[slot >>> CHUNK_BITS] as Chunk
  }
}

function newChunk(): Chunk {
  return { tags: new Uint32Array(CHUNK_SLOTS), moments: new Float64Array(CHUNK_SLOTS * DOUBLES_PER_SLOT), others: null }
}

function capacityOf(count: number): number {
  if (count === 0) return 0
  for (const capacity of CAPACITIES) if (count <= capacity) return capacity
  throw new RangeError(`A device has at most ${SLOTS_PER_DEVICE_MAX} metrics.`)
}

const KIND_NAMES: readonly Kind[] = Object.entries(KIND)
  .sort(([, a], [, b]) => a - b)
  .map(([kind]) => kind as Kind)

function valueAt(chunk: Chunk, at: number): Value {
  const number = chunk.moments[at * DOUBLES_PER_SLOT + 2] as number
  switch (KIND_NAMES[((chunk.tags[at] as number) & KIND_MASK) - 1]) {
    case 'number':
      return number
    case 'bool':
      return number !== 0
    case 'null':
      return null
    default:
      return chunk.others?.get(at) ?? null
  }
}

function isOther(kind: number): boolean {
  return kind === KIND.string || kind === KIND.integer
}

function keepOther(chunk: Chunk, at: number, value: string | bigint) {
  chunk.others ??= new Map()
  chunk.others.set(at, typeof value === 'string' ? ownText(value) : value)
}
