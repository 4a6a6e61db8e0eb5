import { describe, expect, it } from 'vitest'
import type { Chunk } from '../../pump/pump.ts'
import { takeBatch } from '../../writers/batch.ts'
import { accepted } from '../contracts/pump-samples.ts'

const LIMITS = { rowsMax: 10, bytesMax: 1_000 }
const NOON = Date.UTC(2026, 10, 20, 12)
const NEXT_DAY = Date.UTC(2026, 10, 21)

const cases: [title: string, chunks: Chunk[], taken: number[], full: boolean][] = [
  ['takes nothing from nothing', [], [], false],
  ['takes all while there is room, and says that there is', [chunk(1, 4), chunk(2, 5)], [1, 2], false],
  ['is full at the limit of rows', [chunk(1, 4), chunk(2, 6), chunk(3, 1)], [1, 2], true],
  ['leaves a chunk that would exceed the rows', [chunk(1, 4), chunk(2, 7)], [1], true],
  ['leaves a chunk that would exceed the bytes', [chunk(1, 1, 600), chunk(2, 1, 600)], [1], true],
  ['takes a first chunk that exceeds the limits alone', [chunk(1, 50), chunk(2, 1)], [1], true],
  ['ends at midnight UTC: an insert stays in one partition', [chunk(1, 1), chunk(2, 1, 10, NEXT_DAY)], [1], true],
  [
    'takes chunks without lines whatever their day, and the day of those that have some',
    [counts(1, NEXT_DAY), chunk(2, 1), counts(3, 0), chunk(4, 1), chunk(5, 1, 10, NEXT_DAY)],
    [1, 2, 3, 4],
    true,
  ],
  ['ends at a gap in the positions', [chunk(1, 1), chunk(3, 1)], [1], true],
]

describe('a batch', () => {
  it.each(cases)('%s', (_, chunks, taken, full) => {
    const batch = takeBatch(chunks, LIMITS)
    expect(batch.taken.map(({ position }) => position)).toEqual(taken)
    expect(batch.full).toBe(full)
  })
})

/** What was counted when no line came. */
function counts(position: number, at: number): Chunk {
  return { ...chunk(position, 0, 0, at), ...accepted(0) }
}

function chunk(position: number, readings: number, bytes = 10, at = NOON): Chunk {
  const lines = Buffer.alloc(bytes)
  return { partition: 0, position, ...accepted(1), readings, firstReceivedAt: at, lastReceivedAt: at, lines }
}
