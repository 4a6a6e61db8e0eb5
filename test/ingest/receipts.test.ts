/** Receipts grow strictly, so that of one connection the later message, and of one list the later element, is the newest [G4]. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { crossesMidnight, openReceipts } from '../../ingest/receipts.ts'
import { LINE_FORMAT, parseLines } from '../../model/message.ts'
import { isNewer } from '../../model/reading.ts'
import { utcDay } from '../../model/utc-day.ts'
import { NOW, open, publish, receipts } from './open-ingest.ts'

const NOON = NOW * 1000
const MIDNIGHT = Date.UTC(2026, 10, 21)

describe('a receipt', () => {
  it('follows the clock, and goes on by one µs where the clock stands still or was set back', async () => {
    const { ingest, pump } = await open()
    for (const receivedAt of [NOW, NOW, NOW, NOW + 1, NOW - 60_000, NOW + 1, NOW + 2]) {
      ingest.offer(publish('a', { receivedAt }))
    }
    const { batch } = await pump.next()
    expect(receipts(batch)).toEqual([NOON, NOON + 1, NOON + 2, NOON + 1000, NOON + 1001, NOON + 1002, NOON + 2000])
  })

  it('is of each element of a list its own, and the next message comes after all of them', async () => {
    const { ingest, pump, space } = await open()
    ingest.offer(publish('', { json: '[{"t":30},{"t":20,"u":1},{},{"t":25}]' }))
    ingest.offer(publish('', { json: '{"t":10}' }))
    const append = await pump.next()
    expect(receipts(append.batch)).toEqual([NOON, NOON + 1, NOON + 1, NOON + 2, NOON + 3])
    await append.succeed()
    const messages = parseLines(append.batch.lines.toString(), LINE_FORMAT)
    expect(messages.map(({ receivedAt }) => receivedAt)).toEqual([NOON, NOON + 3])
    expect(space.merged).toEqual(messages)
    const all = messages.flatMap(({ readings }) => readings).filter(({ metric }) => metric === 't')
    expect(all.reduce((a, b) => (isNewer(b, a) ? b : a)).value).toBe(10)
    expect(all.slice(0, 3).reduce((a, b) => (isNewer(b, a) ? b : a)).value).toBe(25)
  })

  it('is not used up by a message that is refused', async () => {
    const { ingest, pump } = await open()
    ingest.offer(publish('', { json: '[{"t":30},{"t":' }))
    ingest.offer(publish('', { json: '{"t":10}' }))
    expect(receipts((await pump.next()).batch)).toEqual([NOON])
  })

  it('grows strictly whatever comes, whenever, over restarts as well [G4]', async () => {
    const offers = fc.array(
      fc.record({
        at: fc.oneof(fc.integer({ min: -3, max: 3 }), fc.integer({ min: -90_000_000, max: 90_000_000 })),
        elements: fc.integer({ min: 1, max: 4 }),
        restart: fc.boolean(),
      }),
      { minLength: 1, maxLength: 30 },
    )
    await fc.assert(
      fc.property(offers, all => {
        let newest = 0
        let clock = openReceipts(newest)
        let before = 0
        for (const { at, elements, restart } of all) {
          if (restart) clock = openReceipts(newest)
          const now = NOW + at
          let first = clock.next(now)
          if (crossesMidnight(first, first + elements - 1)) first = clock.nextDay(first)
          const last = first + elements - 1
          clock.use(last)
          expect(first).toBeGreaterThan(before)
          expect(first).toBeGreaterThanOrEqual(now * 1000)
          expect(utcDay(first / 1000)).toBe(utcDay(last / 1000))
          expect(clock.aheadMs(now)).toBe(Math.max(0, Math.floor(last / 1000) - now))
          before = last
          newest = Math.max(newest, Math.floor(last / 1000))
        }
      }),
      { numRuns: 500 },
    )
  })

  it('begins above the last one of the log', async () => {
    const { ingest, pump, log } = await open({ newestReceivedAt: NOW + 5 })
    ingest.offer(publish('a'))
    ingest.offer(publish('b', { receivedAt: NOW + 7 }))
    expect(receipts((await pump.next()).batch)).toEqual([NOON + 6000, NOON + 7000])
    expect(log.lines).toEqual([])
  })

  it.each([
    [60_000, 0],
    [60_001, 1],
    [86_400_000, 1],
  ])(
    'of a log that is %d ms ahead of the clock is said as an error at each start, or not: %d',
    async (ahead, errors) => {
      for (let start = 0; start < 2; start++) {
        const { ingest, pump, log } = await open({ newestReceivedAt: NOW + ahead })
        expect(log.lines).toHaveLength(errors)
        if (errors > 0) {
          expect(log.lines[0]).toMatch(
            /^error: the last receipt in the log is ahead of the clock; .* set the clock right$/,
          )
          expect(log.fields[0]).toEqual({
            lastReceipt: new Date(NOW + ahead).toISOString(),
            aheadSeconds: Math.round(ahead / 1000),
          })
        }
        ingest.offer(publish('a'))
        expect(receipts((await pump.next()).batch)).toEqual([(NOW + ahead + 1) * 1000])
      }
    },
  )

  it('ahead of the clock is no reason to take a message for one of later: who waits for it is told when it came', async () => {
    const { ingest, space } = await open({ newestReceivedAt: NOW + 3_600_000 })
    ingest.offer(publish('a', { receivedAt: NOW + 5 }))
    ingest.offer(publish('b', { receivedAt: NOW + 9 }))
    expect([ingest.oldestHeldAt, space.unmergedAt()]).toEqual([NOW + 5, NOW + 5])
  })
})

describe('midnight', () => {
  it('is never inside of a message: its elements are of the day that begins', async () => {
    const { ingest, pump } = await open()
    // The clock stands still in the last ms of the day until less than three µs are left.
    const list = (elements: number) => `[${Array.from({ length: elements }, (_, at) => `{"t":${at}}`).join()}]`
    ingest.offer(publish('', { json: list(998), receivedAt: MIDNIGHT - 1 }))
    ingest.offer(publish('', { json: list(3), receivedAt: MIDNIGHT - 1 }))
    ingest.offer(publish('', { json: list(1), receivedAt: MIDNIGHT - 1 }))
    const before = await pump.next()
    expect(receipts(before.batch)).toHaveLength(998)
    expect(before.batch).toMatchObject({ firstReceivedAt: MIDNIGHT - 1, lastReceivedAt: MIDNIGHT - 1 })
    await before.succeed()
    const { batch } = await pump.next()
    const at = MIDNIGHT * 1000
    expect(receipts(batch)).toEqual([at, at + 1, at + 2, at + 3])
    expect(batch).toMatchObject({ firstReceivedAt: MIDNIGHT, lastReceivedAt: MIDNIGHT })
  })

  it('may come right after the last element of a message', async () => {
    const { ingest, pump } = await open()
    const list = `[${Array.from({ length: 1000 }, (_, at) => `{"t":${at}}`).join()}]`
    ingest.offer(publish('', { json: list, receivedAt: MIDNIGHT - 1 }))
    ingest.offer(publish('', { receivedAt: MIDNIGHT - 1 }))
    const before = await pump.next()
    expect(receipts(before.batch).at(-1)).toBe(MIDNIGHT * 1000 - 1)
    await before.succeed()
    expect(receipts((await pump.next()).batch)).toEqual([MIDNIGHT * 1000])
  })
})
