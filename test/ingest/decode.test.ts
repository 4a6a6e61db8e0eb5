import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodePayload } from '../../ingest/decode.ts'
import { Refusal } from '../../ingest/refusal.ts'
import { encodeReadings, lineHead, parseLines } from '../../model/message.ts'
import type { Reading, Value } from '../../model/reading.ts'

const NOW = Date.UTC(2026, 10, 20, 12)

const key = fc.oneof(
  fc.stringMatching(/^[a-z]{1,4}$/),
  fc.constantFrom('ts', 'values', 'seq', '__proto__', 'ä', 'a"b', 'x\\'),
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
    )
    fc.assert(
      fc.property(number, shape, (literal, json) => {
        const written: (string | null)[] = []
        const readings = decodePayload(Buffer.from(json.replaceAll('X', literal)), null, NOW, written)
        if (readings instanceof Refusal) return
        expect(written.filter(text => text !== null)).toEqual(
          readings.flatMap(({ value }) => (isNumber(value) ? [literal] : [])),
        )
        const line = `${lineHead('d', NOW)}${encodeReadings(readings, written)}}`
        expect(parseLines(line)).toEqual([{ device: 'd', receivedAt: NOW, readings }])
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

  it('gives the readings of {ts, values} its time, wherever ts and seq stand', () => {
    const members = [`"ts":${NOW - 5}`, '"values":{"a":1,"b":{"c":"x"}}', '"seq":9']
    fc.assert(
      fc.property(fc.shuffledSubarray(members, { minLength: 2 }), order => {
        if (!order.some(member => member.startsWith('"ts"')) || !order.some(member => member.startsWith('"values"')))
          return
        expect(decodePayload(Buffer.from(`{${order.join()}}`), null, NOW)).toEqual([
          { metric: 'a', ts: NOW - 5, value: 1, sentTs: NOW - 5 },
          { metric: 'b.c', ts: NOW - 5, value: 'x', sentTs: NOW - 5 },
        ])
      }),
    )
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
