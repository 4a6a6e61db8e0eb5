/** Do the books balance [G7]? A log and a database of a few rows, with each kind of wrong that `verify` must see. */
import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { describeVerdict, type Verdict, type VerifiedDatabase, verify } from '../../manager/verify.ts'
import type { Chunk, PumpBooks, PumpView } from '../../pump/pump.ts'

/** Readings of the chunks, by position; the last one is not yet committed. */
const CHUNKS = [3, 4, 5, 2]
const COMMITTED = 3

type Row = readonly [position: number, index: number]
const STORED: readonly Row[] = CHUNKS.slice(0, COMMITTED).flatMap((readings, position) =>
  Array.from({ length: readings }, (_, index): Row => [position, index]),
)

describe('the books balance', () => {
  it('when each reading before the committed position is stored once', async () => {
    const verdict = await verdictOn({})
    expect(verdict).toMatchObject({ balanced: true, partitions: [{ accepted: 14, stored: 12, inLog: 2, repeated: 0 }] })
    expect(describeVerdict(verdict)).toContain('The books balance.')
  })

  it('when the rows of the next batch are there already', async () => {
    expect((await verdictOn({ rows: [...STORED, [3, 0]] })).balanced).toBe(true)
  })

  it('when what is not stored is a dead letter', async () => {
    const verdict = await verdictOn({ rows: without([1, 2], [2, 0]), deadLetters: 2 })
    expect(verdict).toMatchObject({ balanced: true, partitions: [{ difference: 0, chunksWrong: [] }] })
  })

  it('when the oldest chunks are no longer held', async () => {
    const verdict = await verdictOn({ first: 2 })
    expect(verdict).toMatchObject({ balanced: true, partitions: [{ stored: 12, chunksChecked: 1 }] })
  })
})

describe('the books do not balance', () => {
  it('when a reading is lost', async () => {
    const verdict = await verdictOn({ rows: without([1, 2]) })
    const chunksWrong = [{ position: 1, readings: 4, stored: 3 }]
    expect(verdict).toMatchObject({ balanced: false, partitions: [{ difference: 1, repeated: 0, chunksWrong }] })
    expect(describeVerdict(verdict)).toMatch(/difference +1 {2}LOST/)
  })

  it('when a reading is doubled', async () => {
    const verdict = await verdictOn({ rows: [...STORED, [0, 1]] })
    const chunksWrong = [{ position: 0, readings: 3, stored: 4 }]
    expect(verdict).toMatchObject({ balanced: false, partitions: [{ difference: -1, repeated: 1, chunksWrong }] })
    expect(describeVerdict(verdict)).toMatch(/repeated +1 {2}DUPLICATED/)
  })

  it('when one is lost and another of the same chunk is doubled', async () => {
    const verdict = await verdictOn({ rows: [...without([1, 2]), [1, 3]] })
    expect(verdict).toMatchObject({ balanced: false, partitions: [{ difference: 0, repeated: 1, chunksWrong: [] }] })
  })

  it('when that is so in a chunk that is no longer held', async () => {
    const verdict = await verdictOn({ rows: [...without([0, 2]), [0, 1]], first: 2 })
    expect(verdict).toMatchObject({ balanced: false, partitions: [{ difference: 0, repeated: 1 }] })
  })

  it('when a reading is stored as one of another chunk', async () => {
    const verdict = await verdictOn({ rows: [...without([1, 3]), [2, 5]] })
    expect(verdict.balanced).toBe(false)
    expect(verdict.partitions[0]?.chunksWrong.map(({ position }) => position)).toEqual([1, 2])
  })

  it('when chunks are short of more than the dead letters', async () => {
    const rows = [...without([1, 2], [2, 0]), [0, 3] as const]
    const verdict = await verdictOn({ rows, deadLetters: 1 })
    expect(verdict.balanced).toBe(false)
    expect(verdict.partitions[0]?.chunksWrong.map(({ position }) => position)).toEqual([0, 1, 2])
  })

  it('when a row lies beyond the end of the log', async () => {
    const verdict = await verdictOn({ rows: [...STORED, [9, 0]] })
    expect(verdict).toMatchObject({ balanced: false, partitions: [{ difference: -1 }] })
  })

  it('when a rollup counts other readings than there are', async () => {
    expect((await verdictOn({ hourly: STORED.length - 1 })).balanced).toBe(false)
  })
})

interface Case {
  readonly rows?: readonly Row[]
  readonly deadLetters?: number
  /** The oldest chunk that the log still holds. */
  readonly first?: number
  readonly hourly?: number
}

function verdictOn({ rows = STORED, deadLetters = 0, first = 0, hourly = rows.length }: Case): Promise<Verdict> {
  return verify(viewOf(deadLetters, first), databaseOf(rows, hourly))
}

function without(...lost: readonly Row[]): Row[] {
  return STORED.filter(([position, index]) => !lost.some(([p, i]) => p === position && i === index))
}

function viewOf(deadLetters: number, first: number): PumpView {
  const sum = (chunks: readonly number[]) => chunks.reduce((total, readings) => total + readings, 0)
  const partition = {
    partition: 0,
    source: 'log/0',
    first,
    end: CHUNKS.length,
    committed: COMMITTED,
    plan: null,
    readingsAppended: sum(CHUNKS),
    readingsCommitted: sum(CHUNKS.slice(0, COMMITTED)),
    deadLetters,
    oldestUnwrittenAt: null,
  }
  const bytes = { bytes: 0, bytesUnwritten: 0, bytesMax: 0 }
  const books: PumpBooks = { partitions: [partition], quarantined: 0, quarantinedKept: 0, ...bytes }
  const chunks = CHUNKS.map((readings, position) => ({ partition: 0, position, readings }) as Chunk)
  return {
    places: async () => [partition],
    lag: async () => ({ readings: 0, oldestUnwrittenAt: null, ...bytes }),
    positionAt: async () => 0,
    books: async () => books,
    // One at a time: the reader must go on.
    read: async (_partition, from) => chunks.slice(Math.max(from, first)).slice(0, 1),
    quarantine: async () => [],
    quarantineEntry: async () => null,
    close: async () => {},
  }
}

function databaseOf(rows: readonly Row[], hourly: number): VerifiedDatabase {
  const within = (from: number, to: number) => rows.filter(([position]) => position >= from && position < to)
  return {
    countBySource: async () => new Map([['log/0', rows.length]]),
    countReadings: async ({ from, to }) => within(from, to).length,
    countByPosition: async ({ from, to }) => {
      const counts = new Map<number, number>()
      for (const [position] of within(from, to)) counts.set(position, (counts.get(position) ?? 0) + 1)
      return counts
    },
    internal: async () => 'telemetry_internal',
    queryStream: async (sql, { from, to }) => {
      if (!sql.includes('uniqExact')) {
        const of = (readings: number) => [{ 'log/0': readings }, readings]
        return answer({ readings: { 'log/0': rows.length }, before: {}, minutely: of(rows.length), hourly: of(hourly) })
      }
      const asked = within(Number(from), Number(to))
      return answer({ stored: asked.length, places: new Set(asked.map(String)).size })
    },
  }
}

function answer(row: object): Readable {
  return Readable.from([Buffer.from(JSON.stringify(row))])
}
