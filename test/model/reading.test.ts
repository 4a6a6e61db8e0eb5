import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  CLOCK_AHEAD_US_MAX,
  compareValues,
  effectiveTs,
  isNewer,
  type Moment,
  type Value,
} from '../../model/reading.ts'

const value: fc.Arbitrary<Value> = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.integer({ min: -2, max: 2 }),
  fc.bigInt(2n ** 53n, 2n ** 53n + 3n),
  fc.bigInt(-(2n ** 70n), -(2n ** 53n)),
  fc.boolean(),
  fc.constant(null),
  fc.string({ unit: 'binary', maxLength: 3 }),
)
const few = fc.integer({ min: 1, max: 2 })
const moment: fc.Arbitrary<Moment> = fc.record({ ts: few, receivedAt: few, value })

describe('the newest reading [G4]', () => {
  it('is decided by the time of the reading first, then by its receipt, then by its value', () => {
    expect(isNewer({ ts: 2, receivedAt: 1, value: 0 }, { ts: 1, receivedAt: 9, value: 9 })).toBe(true)
    expect(isNewer({ ts: 1, receivedAt: 2, value: 0 }, { ts: 1, receivedAt: 1, value: 9 })).toBe(true)
    expect(isNewer({ ts: 1, receivedAt: 1, value: 2 }, { ts: 1, receivedAt: 1, value: 1 })).toBe(true)
    expect(isNewer({ ts: 1, receivedAt: 1, value: 1 }, { ts: 1, receivedAt: 1, value: 1 })).toBe(false)
  })

  it('is the same in any order of arrival', () => {
    fc.assert(
      fc.property(
        fc
          .array(moment, { minLength: 2, maxLength: 6 })
          .chain(given => fc.tuple(fc.constant(given), fc.shuffledSubarray(given, { minLength: given.length }))),
        ([given, shuffled]) => {
          const newest = (all: readonly Moment[]) => all.reduce((a, b) => (isNewer(b, a) ? b : a))
          expect(compareValues(newest(given).value, newest(shuffled).value)).toBe(0)
          expect(newest(given).ts).toBe(newest(shuffled).ts)
        },
      ),
      { numRuns: 1000 },
    )
  })

  it('has an order that is the same from both sides', () => {
    fc.assert(
      fc.property(moment, moment, (a, b) => {
        expect(isNewer(a, b) && isNewer(b, a)).toBe(false)
        expect(Math.sign(compareValues(a.value, b.value))).toBe(0 - Math.sign(compareValues(b.value, a.value)))
      }),
    )
  })
})

describe('the time of a reading', () => {
  it('is the one that the device gave, unless it is more than five minutes ahead', () => {
    expect(CLOCK_AHEAD_US_MAX).toBe(300_000_000)
    expect(effectiveTs(1000, 5000)).toBe(1000)
    expect(effectiveTs(5000 + CLOCK_AHEAD_US_MAX, 5000)).toBe(5000 + CLOCK_AHEAD_US_MAX)
    expect(effectiveTs(5001 + CLOCK_AHEAD_US_MAX, 5000)).toBe(5000)
    expect(effectiveTs(null, 5000)).toBe(5000)
  })
})
