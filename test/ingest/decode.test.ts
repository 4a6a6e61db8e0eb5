import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodePayload, openWritten } from '../../ingest/decode.ts'
import { Refusal } from '../../ingest/refusal.ts'
import { encodeReadings, LINE_FORMAT, lineHead, parseLines } from '../../model/message.ts'
import type { Reading, Value } from '../../model/reading.ts'

/** µs. */
const NOW = Date.UTC(2026, 10, 20, 12) * 1000

const key = fc.oneof(
  fc.stringMatching(/^[a-z]{1,4}$/),
  fc.constantFrom('ts', 'values', 'seq', 'id', '__proto__', 'ä', 'a"b', 'x\\'),
)
const scalar = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.maxSafeInteger(),
  fc.integer({ min: -1000, max: 1000 }).map(whole => whole / 100),
  fc.boolean(),
  fc.constant(null),
  fc.string({ unit: 'grapheme', maxLength: 20 }),
)
const tree = fc.letrec(tie => ({
  value: fc.oneof({ maxDepth: 4 }, scalar, tie('object'), fc.array(tie('value'), { maxLength: 3 })),
  object: fc.dictionary(key, tie('value'), { maxKeys: 4, noNullPrototype: false }),
})).object as fc.Arbitrary<Record<string, unknown>>

describe('a payload', () => {
  it('becomes exactly the leaves of its object [G3]', () => {
    fc.assert(
      fc.property(tree, fc.constantFrom(undefined, 1, '\t'), (object, indent) => {
        const decoded = decodePayload(Buffer.from(JSON.stringify(object, null, indent)), null, NOW)
        const leaves = leavesOf(JSON.parse(JSON.stringify(object)))
        const isTimedShape = Object.hasOwn(object, 'ts') && Object.hasOwn(object, 'values')
        if (isTimedShape) return
        if (leaves.length === 0) expect(decoded).toMatchObject({ reason: 'empty' })
        else expect(pairs(decoded)).toEqual(leaves)
      }),
      { numRuns: 3000 },
    )
  })

  it('keeps every number that JSON can write, or refuses it [G3]', () => {
    const digits = (max: number) => fc.stringMatching(new RegExp(`^[0-9]{1,${max}}$`))
    const whole = fc.oneof(
      fc.constant('0'),
      digits(20).map(text => `1${text}`),
      digits(15).map(text => `9${text}`),
    )
    const literal = fc
      .tuple(fc.constantFrom('', '-'), whole, fc.option(digits(20)), fc.option(fc.integer({ min: -340, max: 320 })))
      .map(([sign, int, decimals, exponent]) => {
        return `${sign}${int}${decimals === null ? '' : `.${decimals}`}${exponent === null ? '' : `e${exponent}`}`
      })
    fc.assert(
      fc.property(literal, text => {
        const decoded = decodePayload(Buffer.from(`{"v":${text}}`), null, NOW)
        const near = Number(text)
        const isLost = !Number.isFinite(near) || (near === 0 && /[1-9]/.test(text.split('e')[0] ?? ''))
        if (isLost) expect(decoded).toMatchObject({ reason: 'number_out_of_range' })
        else expect(pairs(decoded)).toEqual([['v', exact(text)]])
        expect(decodePayload(Buffer.from(text), 'v', NOW)).toEqual(decoded)
      }),
      { numRuns: 3000 },
    )
  })

  it('is never accepted when JSON.parse would refuse it, and never read otherwise than JSON.parse reads it', () => {
    const bite = fc.record({
      at: fc.nat(200),
      cut: fc.nat(3),
      put: fc.string({ unit: fc.constantFrom(...'{}[]",:\\0.e-ntu \n\u0001é'), maxLength: 3 }),
    })
    fc.assert(
      fc.property(tree, fc.array(bite, { minLength: 1, maxLength: 3 }), (object, bites) => {
        let text = JSON.stringify(object)
        for (const { at, cut, put } of bites) {
          const place = at % (text.length + 1)
          text = text.slice(0, place) + put + text.slice(place + cut)
        }
        const payload = Buffer.from(text)
        const decoded = decodePayload(payload, null, NOW)
        if (decoded instanceof Refusal) return
        const parsed = JSON.parse(payload.toString()) as unknown
        if (Array.isArray(parsed) || decoded[0]?.sentTs !== null) return
        // JSON.parse puts keys that are whole numbers first.
        const expected = leavesOf(parsed as Record<string, unknown>)
        expect(byName(rounded(pairs(decoded)))).toEqual(byName(rounded(expected)))
      }),
      { numRuns: 3000 },
    )
  })

  it('makes a line that is read back as it was decoded, with its numbers as the device wrote them [G3]', () => {
    const number = fc.stringMatching(/^-?(0|[1-9]\d{0,20})(\.\d{1,20})?([eE][+-]?\d{1,2})?$/)
    const shape = fc.constantFrom(
      '{"a":X,"b":"t","c":[X,null]}',
      '{"ts":1763640000123,"values":{"a":X,"b":{"c":X}}}',
      '[{"a":X},{"b":X}]',
      '[{"ts":1763640000.123456,"seq":7,"values":{"a":X}},{},{"b":X,"c":X},{"id":"x","ts":1763640000,"values":{"a":X}}]',
    )
    fc.assert(
      fc.property(number, shape, fc.integer({ min: 0, max: 65_535 }), (literal, json, packet) => {
        const written = openWritten()
        const readings = decodePayload(Buffer.from(json.replaceAll('X', literal)), null, NOW, written)
        if (readings instanceof Refusal) return
        expect(written.values.filter(text => text !== null)).toEqual(
          readings.flatMap(({ value }) => (isNumber(value) ? [literal] : [])),
        )
        const line = `${lineHead('d', NOW, packet, null)}${encodeReadings(readings, written.values, written.sent)}}`
        expect(parseLines(line, LINE_FORMAT)).toEqual([{ device: 'd', receivedAt: NOW, readings }])
        expect(JSON.parse(line)).toMatchObject(packet === 0 ? {} : { packet })
      }),
      { numRuns: 3000 },
    )
  })

  it('of any bytes is answered with readings or a refusal', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.option(fc.constant('v')), (given, metric) => {
        const decoded = decodePayload(Buffer.from(given), metric, NOW)
        expect(decoded instanceof Refusal || decoded.length > 0).toBe(true)
      }),
      { numRuns: 3000 },
    )
  })

  it('gives the readings of {ts, values} its time, wherever ts, seq and id stand', () => {
    const members = [`"ts":${(NOW - 5000) / 1000}`, '"values":{"a":1,"b":{"c":"x"}}', '"seq":9', '"id":"x"']
    fc.assert(
      fc.property(fc.shuffledSubarray(members, { minLength: 2 }), order => {
        if (!order.some(member => member.startsWith('"ts"')) || !order.some(member => member.startsWith('"values"')))
          return
        const written = openWritten()
        expect(decodePayload(Buffer.from(`{${order.join()}}`), null, NOW, written)).toEqual([
          { metric: 'a', ts: NOW - 5000, receivedAt: NOW, value: 1, sentTs: NOW - 5000 },
          { metric: 'b.c', ts: NOW - 5000, receivedAt: NOW, value: 'x', sentTs: NOW - 5000 },
        ])
        const has = (member: string) => order.some(one => one.startsWith(member))
        expect(written.sent).toEqual([`${has('"seq"') ? ' seq=9' : ''}${has('"id"') ? ' id="x"' : ''}`])
      }),
    )
  })

  it('gives each element of a list the next µs of receipt, and one without readings none', () => {
    const payload = '[{"a":1,"b":2},{},{"ts":1763640000,"values":{"a":2}},{"ts":1763640000,"values":{}},{"a":3}]'
    expect(decodePayload(Buffer.from(payload), null, NOW)).toEqual([
      { metric: 'a', ts: NOW, receivedAt: NOW, value: 1, sentTs: null },
      { metric: 'b', ts: NOW, receivedAt: NOW, value: 2, sentTs: null },
      { metric: 'a', ts: 1763640000000000, receivedAt: NOW + 1, value: 2, sentTs: 1763640000000000 },
      { metric: 'a', ts: NOW + 2, receivedAt: NOW + 2, value: 3, sentTs: null },
    ])
  })

  it.each([
    ['of an element without a time, nothing', '{"a":1}', ['']],
    ['nothing of a plain time in ms', `{"ts":1763640000123,"values":{"a":1}}`, ['']],
    [
      'a time in s, ms with a fraction, µs, ns and ISO 8601 as it stands',
      times('1763640000', '1763640000123.0', '1763640000123000', '1763640000123000001', '"2025-11-20T12:00:00Z"'),
      ['1763640000', '1763640000123.0', '1763640000123000', '1763640000123000001', '2025-11-20T12:00:00Z'],
    ],
    [
      'seq and id',
      `[{"ts":1763640000,"seq":1,"values":{"a":1}},{"ts":1763640000123,"id":"x","values":{"a":1}},{"a":1}]`,
      ['1763640000 seq=1', ' id="x"', ''],
    ],
    ['nothing of seq and id that are metrics', '[{"seq":1,"a":1},{"id":1}]', ['', '']],
    ['nothing of elements without readings', '[{"ts":1763640000,"seq":1,"values":{}},{"a":1}]', ['']],
  ])('says beside its readings %s', (_, payload, sent) => {
    const written = openWritten()
    expect(decodePayload(Buffer.from(payload), null, NOW, written)).not.toBeInstanceOf(Refusal)
    expect(written.sent).toEqual(sent)
    // Nothing of one message stays for the next.
    decodePayload(Buffer.from('21.5'), 'v', NOW, written)
    expect(written).toEqual({ values: [], sent: [] })
  })

  it('does not keep its text alive through the name or the value of a reading', () => {
    const count = 2_000
    const kept: Reading[] = []
    const before = heapUsed()
    for (let index = 0; index < count; index++) {
      const filler = ' '.repeat(50_000)
      const payload = Buffer.from(`{"a long metric name":"a long text value, number ${index}"${filler}}`)
      const decoded = decodePayload(payload, null, NOW)
      if (!(decoded instanceof Refusal)) kept.push(...decoded)
    }
    expect(kept).toHaveLength(count)
    expect(heapUsed() - before).toBeLessThan(count * 5_000)
  })
})

describe('the time of readings', () => {
  const FIRST = 946_684_800_000_000n
  const fraction = (max: number) => fc.stringMatching(new RegExp(`^[0-9]{1,${max}}$`))
  const numbers = (min: number, max: number) =>
    fc.tuple(fc.integer({ min, max }), fc.option(fraction(20)), fc.constantFrom('number', 'text'))

  /** By the digits alone, exactly: the whole amount and its fraction, cut off at the µs. */
  const usOf = (whole: bigint, decimals: string | null, digits: number): bigint =>
    whole * 10n ** BigInt(digits) + BigInt((decimals ?? '').slice(0, digits).padEnd(digits, '0') || '0')

  it.each<[string, fc.Arbitrary<readonly [number, string | null, string]>, number]>([
    ['s', numbers(946_684_800, 9_007_199_253), 6],
    ['ms', numbers(946_684_800_000, 9_007_199_253_999).filter(([ms]) => ms >= 1e11), 3],
    ['µs', numbers(946_684_800_000_000, Number.MAX_SAFE_INTEGER), 0],
  ])('in %s keeps every µs, as a number and as a text [G3]', (_, amount, digits) => {
    fc.assert(
      fc.property(amount, ([whole, decimals, as]) => {
        const literal = decimals === null ? String(whole) : `${whole}.${decimals}`
        const [sentTs, sent] = decodeTime(as === 'text' ? `"${literal}"` : literal)
        expect(BigInt(sentTs as number)).toBe(usOf(BigInt(whole), decimals, digits))
        expect(sent).toBe(/^\d{13}$/.test(literal) ? '' : literal)
      }),
      { numRuns: 2000 },
    )
  })

  it('is cut off at the µs, and not rounded, where the nearest double is a whole number of ms [G3]', () => {
    expect(decodeTime('1099511627776.9999')[0]).toBe(1_099_511_627_776_999)
    expect(decodeTime('"1099511627776.9999"')[0]).toBe(1_099_511_627_776_999)
  })

  it('in ns is cut off at the µs, and stands in the log with all of its digits [G3]', () => {
    const ns = fc.bigInt({ min: FIRST * 1000n, max: BigInt(Number.MAX_SAFE_INTEGER) * 1000n + 999n })
    fc.assert(
      fc.property(ns, fc.constantFrom('', '"'), (whole, quote) => {
        const [sentTs, sent] = decodeTime(`${quote}${whole}${quote}`)
        expect(BigInt(sentTs as number)).toBe(whole / 1000n)
        expect(sent).toBe(String(whole))
      }),
      { numRuns: 2000 },
    )
  })

  it('with an exponent keeps every µs that the double does', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1_000_000_000_000_000, max: 4_000_000_000_000_000 }), us => {
        const digits = `${String(us)[0]}.${String(us).slice(1)}`
        expect(decodeTime(`${digits}e15`)[0]).toBe(us)
        expect(decodeTime(`${digits}E+12`)[0]).toBe(us)
        expect(decodeTime(`${digits}e9`)[0]).toBe(us)
        expect(decodeTime(`${digits}e18`)[0]).toBe(us)
      }),
      { numRuns: 2000 },
    )
  })

  it('in ISO 8601 keeps every µs of 1 to 20 digits, under any offset [G3]', () => {
    const offset = fc.constantFrom('Z', '+01:30', '-0500', '+14', '-23:59')
    const seconds = fc.integer({ min: 946_771_200, max: 9_007_100_000 })
    fc.assert(
      fc.property(seconds, fc.option(fraction(20)), offset, fc.constantFrom('.', ','), (at, decimals, zone, point) => {
        const [, sign = '+', hours = '0', minutes = '0'] = /^([+-])(\d\d):?(\d\d)?$/.exec(zone) ?? []
        const ahead = (Number(hours) * 60 + Number(minutes ?? 0)) * (sign === '-' ? -60 : 60)
        const local = new Date((at + ahead) * 1000).toISOString().slice(0, 19)
        const text = `${local}${decimals === null ? '' : `${point}${decimals}`}${zone}`
        const [sentTs, sent] = decodeTime(`"${text}"`)
        expect(BigInt(sentTs as number)).toBe(usOf(BigInt(at), decimals, 6))
        expect(sent).toBe(text)
      }),
      { numRuns: 2000 },
    )
  })

  it('after 2255 is kept to the ms, and never used as the time of a reading', () => {
    const far = decodePayload(Buffer.from('{"ts":"9999-12-31T23:59:59.999999Z","values":{"a":1}}'), null, NOW)
    expect(far).toEqual([{ metric: 'a', ts: NOW, receivedAt: NOW, value: 1, sentTs: 253_402_300_799_999_000 }])
  })

  function decodeTime(literal: string): [sentTs: number | null, sent: string] {
    const written = openWritten()
    const readings = decodePayload(Buffer.from(`{"ts":${literal},"values":{"a":1}}`), null, NOW, written)
    if (readings instanceof Refusal) throw readings
    return [readings[0]?.sentTs ?? null, written.sent[0] ?? '']
  }
})

function times(...literals: readonly string[]): string {
  return `[${literals.map(literal => `{"ts":${literal},"values":{"a":1}}`).join()}]`
}

function heapUsed(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

function pairs(decoded: Reading[] | Refusal): [string, Value][] | Refusal {
  return decoded instanceof Refusal ? decoded : decoded.map(({ metric, value }) => [metric, value])
}

/** As JSON.parse keeps numbers; that we keep them better is another test. */
function rounded(leaves: [string, Value][] | Refusal): unknown {
  if (leaves instanceof Refusal) return leaves
  return leaves.map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value])
}

function isNumber(value: Value): boolean {
  return typeof value === 'number' || typeof value === 'bigint'
}

function byName(leaves: unknown): unknown {
  return leaves instanceof Refusal ? leaves : (leaves as [string, Value][]).sort(([a], [b]) => (a < b ? -1 : 1))
}

/** What JSON.parse sees, with the whole numbers that it rounded put right: they print as digits only when they are exact. */
function leavesOf(object: Record<string, unknown>, prefix = ''): [string, Value][] {
  return Object.entries(object).flatMap(([name, value]): [string, Value][] => {
    const path = `${prefix}${name}`
    if (typeof value === 'object' && value !== null) return leavesOf(value as Record<string, unknown>, `${path}.`)
    return [[path, typeof value === 'number' ? exact(JSON.stringify(value), value) : (value as Value)]]
  })
}

function exact(literal: string, double = Number(literal)): number | bigint {
  return /^-?\d+$/.test(literal) && !Number.isSafeInteger(double) ? BigInt(literal) : double
}
