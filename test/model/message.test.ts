import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  encodeLine,
  encodeSent,
  encodeValue,
  LINE_FORMAT,
  type LineExtras,
  lineHead,
  type Message,
  parseLines,
} from '../../model/message.ts'
import { effectiveTs, type Value } from '../../model/reading.ts'
import { ODD_DEVICE_IDS } from './odd-ids.ts'

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
/** What a device says of an element, as the decoder writes it. */
const sent = fc.oneof(
  fc.constant(''),
  fc
    .record({
      time: fc.constantFrom('', '1763640000', '1763640000.123', '1763640000123', '2025-11-20T12:00:00.123456Z'),
      seq: fc.option(value, { nil: undefined }),
      id: fc.option(value, { nil: undefined }),
    })
    .map(({ time, seq, id }) => encodeSent(time, seq, id)),
)
const sentTs = fc.option(fc.integer({ min: 946_684_800_000_000, max: Number.MAX_SAFE_INTEGER }))
const reading = fc.record({ metric: text, value })
interface Given {
  readonly message: Message
  readonly extras: LineExtras
}
/** A list of elements, each received one µs after the one before. */
const given: fc.Arbitrary<Given> = fc
  .record({
    device: fc.oneof(fc.stringMatching(/^[A-Za-z0-9._:-]{1,20}$/), fc.constantFrom(...ODD_DEVICE_IDS)),
    receivedAt: fc.integer({ min: 1_000_000_000_000_000, max: 4_000_000_000_000_000 }),
    packet: fc.integer({ min: 0, max: 65_535 }),
    elements: fc.array(fc.tuple(sentTs, fc.array(reading, { minLength: 1, maxLength: 4 }), sent), {
      minLength: 1,
      maxLength: 4,
    }),
  })
  .map(({ device, receivedAt, packet, elements }) => {
    const readings = elements.flatMap(([sentTs, of], place) =>
      of.map(({ metric, value }) => {
        const at = receivedAt + place
        return { metric, ts: effectiveTs(sentTs, at), receivedAt: at, value, sentTs }
      }),
    )
    return { message: { device, receivedAt, readings }, extras: { packet, sent: elements.map(([, , of]) => of) } }
  })

describe('a line of the log', () => {
  it('brings back every message exactly, whatever stands beside it in the chunk [G3]', () => {
    fc.assert(
      fc.property(fc.array(given, { maxLength: 6 }), all => {
        const messages = all.map(({ message }) => message)
        const lines = all.map(({ message, extras }) => encodeLine(message, extras))
        for (const line of lines) expect(line).not.toContain('\n')
        expect(parseLines(lines.join('\n'), LINE_FORMAT)).toEqual(messages)
        expect(parseLines(lines.map(line => `${line}\n`).join(''), LINE_FORMAT)).toEqual(messages)
      }),
      { numRuns: 2000 },
    )
  })

  it('is JSON that any other consumer can read', () => {
    fc.assert(
      fc.property(given, ({ message, extras }) => {
        const line = JSON.parse(encodeLine(message, extras)) as {
          device: string
          receivedAt: number
          packet?: number
          readings: unknown[][]
          times?: (number | null)[]
          elements?: number[]
          sent?: string[]
        }
        expect(line.device).toBe(message.device)
        expect(lineHead(message.device, message.receivedAt, 7, null)).toMatch(/^[\x20-\x7e]+$/)
        expect(line.receivedAt).toBe(message.receivedAt)
        expect(line.packet ?? 0).toBe(extras.packet)
        expect(line.readings.map(([metric]) => metric)).toEqual(message.readings.map(({ metric }) => metric))
        const firsts = message.readings.filter(({ receivedAt }, at, all) => receivedAt !== all[at - 1]?.receivedAt)
        expect(line.times ?? firsts.map(() => null)).toEqual(firsts.map(({ sentTs }) => sentTs))
        const starts = message.readings.flatMap(({ receivedAt }, place, all) =>
          place > 0 && receivedAt !== all[place - 1]?.receivedAt ? [place] : [],
        )
        expect(line.elements ?? []).toEqual(starts)
        expect(line.sent ?? extras.sent?.map(() => '')).toEqual(extras.sent)
      }),
    )
  })

  it('stands as the papers say', () => {
    const at = 1763640000140000
    const readings = [
      { metric: 'temperature', ts: 1763640000123000, receivedAt: at, value: 21.5, sentTs: 1763640000123000 },
      { metric: 'count', ts: at + 1, receivedAt: at + 1, value: 9007199254740993n, sentTs: null },
    ]
    const message = { device: 'press-17', receivedAt: at, readings }
    expect(encodeLine(message, { packet: 17, sent: [encodeSent('1763640000.123', 7, undefined), ''] })).toBe(
      '{"device":"press-17","receivedAt":1763640000140000,"packet":17,"readings":[["temperature",21.5],' +
        '["count",9007199254740993]],"times":[1763640000123000,null],"elements":[1],"sent":["1763640000.123 seq=7",""]}',
    )
  })

  it('leaves out what there is nothing to say of: no packet identifier, one element, times in whole ms', () => {
    const at = 1763640000140000
    const readings = [{ metric: 't', ts: at - 1000, receivedAt: at, value: 1, sentTs: at - 1000 }]
    expect(encodeLine({ device: 'd', receivedAt: at, readings }, { packet: 0, sent: [''] })).toBe(
      '{"device":"d","receivedAt":1763640000140000,"readings":[["t",1]],"times":[1763640000139000]}',
    )
  })

  it('of format 1, as versions wrote it that counted in ms, is read in µs', () => {
    const line =
      '{"device":"press-17","receivedAt":1763640000140,"readings":[["temperature",1763640000123,21.5],["count",null,9007199254740993]]}'
    const receivedAt = 1763640000140000
    expect(parseLines(`${line}\n${line}\n`, 1)).toEqual(
      Array(2).fill({
        device: 'press-17',
        receivedAt,
        readings: [
          { metric: 'temperature', ts: 1763640000123000, receivedAt, value: 21.5, sentTs: 1763640000123000 },
          { metric: 'count', ts: receivedAt, receivedAt, value: 9007199254740993n, sentTs: null },
        ],
      }),
    )
  })

  it('of format 1 whose device was more than five minutes ahead keeps the time that it sent, and the receipt as its own', () => {
    const line = '{"device":"d","receivedAt":1763640000000,"readings":[["t",1763640300001,1],["u",1763640300000,1]]}'
    const receivedAt = 1763640000000000
    expect(parseLines(line, 1)[0]?.readings).toEqual([
      { metric: 't', ts: receivedAt, receivedAt, value: 1, sentTs: 1763640300001000 },
      { metric: 'u', ts: 1763640300000000, receivedAt, value: 1, sentTs: 1763640300000000 },
    ])
  })

  it('tells a double beyond 2^53 from an exact integer', () => {
    expect(encodeValue(2 ** 53)).toBe('9.007199254740992e+15')
    expect(encodeValue(2n ** 53n)).toBe('9007199254740992')
    expect(encodeValue(2 ** 53 - 1)).toBe('9007199254740991')
    expect(encodeValue(-0)).toBe('-0')
  })

  it('is refused when it is no line', () => {
    for (const format of [1, 2] as const) {
      expect(parseLines('', format)).toEqual([])
      expect(() => parseLines('{"device":"a"', format)).toThrow(SyntaxError)
    }
  })
})

describe('what an element says of itself', () => {
  it.each<[string, string, Value | undefined, Value | undefined, string]>([
    ['a time in whole ms and no more', '1763640000123', undefined, undefined, ''],
    ['a time in seconds', '1763640000', undefined, undefined, '1763640000'],
    ['a time in seconds with a fraction', '1763640000.000', undefined, undefined, '1763640000.000'],
    ['ms with a fraction', '1763640000123.0', undefined, undefined, '1763640000123.0'],
    ['µs', '1763640000123000', undefined, undefined, '1763640000123000'],
    ['ISO 8601', '2025-11-20T12:00:00Z', undefined, undefined, '2025-11-20T12:00:00Z'],
    ['a number', '1763640000123', 7, undefined, ' seq=7'],
    ['a name', '1763640000123', undefined, 'a "b"', ' id="a \\"b\\""'],
    ['both', '1763640000', 1n, null, '1763640000 seq=1 id=null'],
    ['a number as a text', '1763640000123', '7', undefined, ' seq="7"'],
  ])('%s', (_, time, seq, id, expected) => {
    expect(encodeSent(time, seq, id)).toBe(expected)
  })
})
