/** Do the books balance [G7]? A log and a database of a few rows, with each kind of wrong that `verify` must see. */
import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { describeVerdict, type Verdict, type VerifiedDatabase, verify } from '../../manager/verify.ts'
import { encodeLine } from '../../model/message.ts'
import { acceptedOnly, NO_MESSAGES, toMessageBooks } from '../../pump/message-counts.ts'
import type { Chunk, MessageBooks, PumpBooks, PumpView } from '../../pump/pump.ts'
import { accepted } from '../contracts/pump-samples.ts'

/** Readings of the chunks, by position; the last one is not yet committed. */
const CHUNKS = [3, 4, 5, 2]
const COMMITTED = 3

type Row = readonly [position: number, index: number]
const STORED: readonly Row[] = CHUNKS.slice(0, COMMITTED).flatMap((readings, position) =>
  Array.from({ length: readings }, (_, index): Row => [position, index]),
)

const NEWLINE = Buffer.from('\n')
const MESSAGES: MessageBooks = {
  since: null,
  received: 30,
  accepted: 4,
  repeated: 5,
  quarantined: { waiting: 3, retried: 2, dropped: 1, evicted: 6 },
  letGo: { qos0_overload: 7, presence: 2 },
}
const NOTHING: MessageBooks = toMessageBooks(NO_MESSAGES, 0, null)

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
    expect(describeVerdict(verdict)).toMatch(/doubled +1 {2}DUPLICATED/)
    expect(describeVerdict(verdict).match(/^ +repeated /gm)).toHaveLength(1)
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

describe('the books of messages', () => {
  it('balance when all that was received has become something', async () => {
    const verdict = await verdictOn({ messages: MESSAGES })
    expect(verdict).toMatchObject({ balanced: true, messages: { difference: 0, quarantinedMissing: 0 } })
    const text = describeVerdict(verdict)
    expect(text).toMatch(/received +30\n +accepted +4\n +repeated +5\n/)
    expect(text).toMatch(/quarantined +12 {2}waiting 3, retried 2, dropped 1, evicted 6\n/)
    expect(text).toMatch(/let go +9 {2}qos0_overload 7, presence 2\n/)
  })

  it('say since when they count, where that is not the beginning of the log', async () => {
    const verdict = await verdictOn({ messages: { ...MESSAGES, since: Date.UTC(2026, 10, 20) } })
    expect(verdict.balanced).toBe(true)
    expect(describeVerdict(verdict)).toContain(
      'messages since 2026-11-20T00:00:00.000Z; before that they were not counted',
    )
  })

  it.each<[term: string, change: Partial<MessageBooks>, difference: number]>([
    ['received', { received: 31 }, 1],
    ['accepted', { accepted: 3 }, 1],
    ['repeated', { repeated: 6 }, -1],
    ['quarantined and waiting', { quarantined: { ...MESSAGES.quarantined, waiting: 2 } }, 1],
    ['quarantined and retried', { quarantined: { ...MESSAGES.quarantined, retried: 3 } }, -1],
    ['quarantined and dropped', { quarantined: { ...MESSAGES.quarantined, dropped: 0 } }, 1],
    ['quarantined and evicted', { quarantined: { ...MESSAGES.quarantined, evicted: 5 } }, 1],
    ['let go', { letGo: { ...MESSAGES.letGo, qos0_overload: 6 } }, 1],
    ['let go for another reason', { letGo: { ...MESSAGES.letGo, other: 1 } }, -1],
  ])('do not balance when those that were %s are counted wrongly', async (_term, change, difference) => {
    const verdict = await verdictOn({ messages: { ...MESSAGES, ...change } })
    expect(verdict).toMatchObject({ balanced: false, messages: { difference } })
    expect(describeVerdict(verdict)).toMatch(
      difference > 0 ? /difference +1 {2}LOST/ : /difference +-1 {2}COUNTED TWICE/,
    )
  })

  it('do not balance when a message was counted as quarantined and is not kept', async () => {
    const verdict = await verdictOn({ messages: MESSAGES, quarantined: 11 })
    expect(verdict).toMatchObject({ balanced: false, messages: { difference: 0, quarantinedMissing: 1 } })
    expect(describeVerdict(verdict)).toContain('1 NOT KEPT')
  })

  it.each<[what: string, change: (chunk: Chunk) => Partial<Chunk>, fault: object]>([
    [
      'lacks the line of a message',
      ({ lines }) => ({ lines: lines.subarray(0, 0) }),
      { messagesFound: 0, readingsFound: 0 },
    ],
    ['has a line twice', ({ lines }) => ({ lines: Buffer.concat([lines, NEWLINE, lines]) }), { messagesFound: 2 }],
    [
      'lacks a reading of a line',
      ({ position }) => ({ lines: lineOf(position, 1) }),
      { messagesFound: 1, readingsFound: 1 },
    ],
    ['cannot be read', () => ({ lines: Buffer.from('{"device"') }), { messagesFound: 0, readingsFound: 0 }],
    ['counts a message that became nothing', () => ({ counts: acceptedOnly(2) }), { difference: 1 }],
  ])('do not balance when a chunk %s, whether it is committed or not', async (_what, change, fault) => {
    for (const position of [1, COMMITTED]) {
      const verdict = await verdictOn({ change: chunk => (chunk.position === position ? change(chunk) : {}) })
      expect(verdict).toMatchObject({ balanced: false, partitions: [{ difference: 0, chunksWrong: [] }] })
      expect(verdict.partitions[0]?.linesWrong).toEqual([expect.objectContaining({ position, ...fault })])
      expect(describeVerdict(verdict)).toMatch(new RegExp(`1 wrong\n +position ${position}: 1 messages and`))
    }
  })
})

interface Case {
  readonly messages?: MessageBooks
  /** Messages that were ever kept in the quarantine. */
  readonly quarantined?: number
  readonly change?: (chunk: Chunk) => Partial<Chunk>
  readonly rows?: readonly Row[]
  readonly deadLetters?: number
  /** The oldest chunk that the log still holds. */
  readonly first?: number
  readonly hourly?: number
}

function verdictOn({ rows = STORED, hourly = rows.length, ...log }: Case): Promise<Verdict> {
  return verify(viewOf(log), databaseOf(rows, hourly))
}

function without(...lost: readonly Row[]): Row[] {
  return STORED.filter(([position, index]) => !lost.some(([p, i]) => p === position && i === index))
}

/** One message. */
function lineOf(position: number, readings: number): Buffer {
  const receivedAt = position
  const reading = { ts: receivedAt, receivedAt, value: 1, sentTs: null }
  const all = Array.from({ length: readings }, (_, index) => ({ metric: `m${index}`, ...reading }))
  return Buffer.from(encodeLine({ device: 'd', receivedAt, readings: all }))
}

function viewOf({
  deadLetters = 0,
  first = 0,
  messages = NOTHING,
  quarantined = 12,
  change = () => ({}),
}: Case): PumpView {
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
  const books: PumpBooks = { partitions: [partition], messages, quarantined, quarantinedKept: 3, ...bytes }
  const chunks = CHUNKS.map((readings, position): Chunk => {
    const times = { firstReceivedAt: 0, lastReceivedAt: 0 }
    const chunk = { partition: 0, position, ...accepted(1), readings, ...times, lines: lineOf(position, readings) }
    return { ...chunk, ...change(chunk) }
  })
  return {
    places: async () => [partition],
    lag: async () => ({ readings: 0, oldestUnwrittenAt: null, ...bytes }),
    positionAt: async () => 0,
    books: async () => books,
    // One at a time: the reader must go on.
    read: async (_partition, from) => chunks.slice(Math.max(from, first)).slice(0, 1),
    quarantine: async () => [],
    newestReceivedAt: async () => 0,
    quarantineEntry: async () => null,
    repeated: async () => [],
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
