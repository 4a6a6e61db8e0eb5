import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeLine, encodeValue, type Message, parseLines } from '../../model/message.ts'
import { effectiveTs, type Value } from '../../model/reading.ts'

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.string({ unit: 'grapheme', maxLength: 30 }),
  fc.constantFrom(
    ',12345678901234567]',
    '",null,',
    '\\',
    '"',
    '\\"',
    '","',
    ']]}\n',
    '\u2028',
    '\0',
    '__proto__',
    '-0',
  ),
)
const large = fc.bigInt(2n ** 53n, 10n ** 64n - 1n)
const value: fc.Arbitrary<Value> = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.maxSafeInteger(),
  fc.constantFrom(0, -0, 2 ** 53, -(2 ** 53), 1e21, 123456789012345680000, 5e-324, Number.MAX_VALUE),
  large,
  large.map(whole => -whole),
  fc.boolean(),
  fc.constant(null),
  text,
)
const receivedAt = fc.integer({ min: 1_000_000_000_000, max: 4_000_000_000_000 })
const message: fc.Arbitrary<Message> = receivedAt.chain(at =>
  fc.record({
    device: fc.stringMatching(/^[A-Za-z0-9._:-]{1,20}$/),
    receivedAt: fc.constant(at),
    readings: fc.array(
      fc
        .record({
          metric: text,
          sentTs: fc.option(fc.integer({ min: 946_684_800_000, max: 253_402_300_799_999 })),
          value,
        })
        .map(given => ({
          metric: given.metric,
          ts: effectiveTs(given.sentTs, at),
          value: given.value,
          sentTs: given.sentTs,
        })),
      { minLength: 1, maxLength: 5 },
    ),
  }),
)

describe('a line of the log', () => {
  it('brings back every message exactly, whatever stands beside it in the chunk [G3]', () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 6 }), messages => {
        const lines = messages.map(encodeLine)
        for (const line of lines) expect(line).not.toContain('\n')
        expect(parseLines(lines.join('\n'))).toEqual(messages)
        expect(parseLines(lines.map(line => `${line}\n`).join(''))).toEqual(messages)
      }),
      { numRuns: 2000 },
    )
  })

  it('is JSON that any other consumer can read', () => {
    fc.assert(
      fc.property(message, given => {
        const line = JSON.parse(encodeLine(given)) as { device: string; receivedAt: number; readings: unknown[][] }
        expect(line.device).toBe(given.device)
        expect(line.receivedAt).toBe(given.receivedAt)
        expect(line.readings.map(reading => reading.slice(0, 2))).toEqual(
          given.readings.map(reading => [reading.metric, reading.sentTs]),
        )
      }),
    )
  })

  it('stands as the papers say', () => {
    const readings = [
      { metric: 'temperature', ts: 1763640000123, value: 21.5, sentTs: 1763640000123 },
      { metric: 'count', ts: 1763640000140, value: 9007199254740993n, sentTs: null },
    ]
    expect(encodeLine({ device: 'press-17', receivedAt: 1763640000140, readings })).toBe(
      '{"device":"press-17","receivedAt":1763640000140,"readings":[["temperature",1763640000123,21.5],["count",null,9007199254740993]]}',
    )
  })

  it('tells a double beyond 2^53 from an exact integer', () => {
    expect(encodeValue(2 ** 53)).toBe('9.007199254740992e+15')
    expect(encodeValue(2n ** 53n)).toBe('9007199254740992')
    expect(encodeValue(2 ** 53 - 1)).toBe('9007199254740991')
    expect(encodeValue(-0)).toBe('-0')
  })

  it('is refused when it is no line', () => {
    expect(parseLines('')).toEqual([])
    expect(() => parseLines('{"device":"a"')).toThrow(SyntaxError)
  })
})
