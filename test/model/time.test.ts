import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { timeText, toMs } from '../../model/time.ts'

describe('a time as text', () => {
  it.each([
    [1763640000000000, '2025-11-20T12:00:00.000Z'],
    [1763640000123000, '2025-11-20T12:00:00.123Z'],
    [1763640000123456, '2025-11-20T12:00:00.123456Z'],
    [1763640000000001, '2025-11-20T12:00:00.000001Z'],
    [0, '1970-01-01T00:00:00.000Z'],
    [Number.MAX_SAFE_INTEGER, '2255-06-05T23:47:34.740991Z'],
  ])('of %d is %s', (us, text) => {
    expect(timeText(us)).toBe(text)
  })

  it('loses nothing', () => {
    const time = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
    fc.assert(
      fc.property(time, us => {
        const [, seconds = '', fraction = ''] = /^(.*)\.(\d+)Z$/.exec(timeText(us)) ?? []
        expect(Date.parse(`${seconds}Z`) * 1000 + Number(fraction.padEnd(6, '0'))).toBe(us)
        expect(toMs(us)).toBe(Number(BigInt(us) / 1000n))
      }),
    )
  })
})
