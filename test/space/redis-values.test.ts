/** What stands in Redis is what was sent [G3], and which of two stands there is decided as everywhere [G4]. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Message } from '../../model/message.ts'
import { isNewer, type Moment, type Value } from '../../model/reading.ts'
import { openRedisBuffer } from '../../space/redis-buffer.ts'
import { openRedisSpace, type RedisSpace } from '../../space/redis-space.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { all } from './model-sources.ts'
import { spaceOptions } from './redis-spaces.ts'

/** Half of a surrogate pair: no UTF-8 can hold it, and ingest refuses it. */
const LONE_SURROGATE = /\p{Surrogate}/u

const digits = fc.stringMatching(/^[1-9]\d{15,62}$/).map(text => BigInt(text))
const integers = fc
  .tuple(fc.boolean(), digits)
  .map(([negative, value]) => (negative ? -value : value))
  .filter(value => !Number.isSafeInteger(Number(value)))
const value: fc.Arbitrary<Value> = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-0, 0, 1e300, 5e-324, 2 ** 53, 2 ** 53 + 2, 1.7976931348623157e308),
  integers,
  fc.constantFrom(2n ** 53n + 1n, 2n ** 53n + 2n, -(2n ** 53n) - 1n, 10n ** 63n, 10n ** 63n + 1n),
  fc.boolean(),
  fc.string({ unit: 'binary', maxLength: 40 }).filter(text => !LONE_SURROGATE.test(text)),
  fc.constantFrom('', '\u0000', 'a\nb', '"', '\\', '\uffff', '😀', 'é', 'e\u0301', ' 1:2', 'Z', 'a', 'B', '_'),
  fc.constant(null),
)
const time = fc.oneof(
  fc.constantFrom(1, 999, 1000, 1001, 2000),
  fc.constantFrom(1_763_640_000_123_000, 1_763_640_000_123_456, 1_763_640_000_123_457, 4_386_000_000_000_001),
)
const moment: fc.Arbitrary<Moment> = fc.record({ ts: time, receivedAt: time, value }, { noNullPrototype: true })
const name = fc.oneof(
  fc.constantFrom('~', '@', '', '.', '__proto__', 'constructor', 'hasOwnProperty', '😀', '~ 1', 'e', 'f:'),
  fc.string({ unit: 'binary', maxLength: 20 }).filter(text => !LONE_SURROGATE.test(text)),
)

describe.skipIf(!redisHere)('values in Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())

  test('any value of any name comes back exactly [G3]', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(name, moment), { minLength: 1, maxLength: 200 }), async taken => {
        const space = await openRedisSpace(spaceOptions(redis.url))
        const newest = new Map(taken)
        await space.merge(
          [...newest].map(([metric, { ts, receivedAt, value }]) =>
            single('press-1', metric, { ts, receivedAt, value }),
          ),
        )
        const held = (await space.get('press-1'))?.metrics ?? []
        await space.close()
        expect(held).toHaveLength(newest.size)
        for (const { metric, ...found } of held) expect(found).toStrictEqual(newest.get(metric))
      }),
      { numRuns: 40 },
    )
  })

  test('of any two readings Redis keeps the one that is newer everywhere, whichever came first [G4]', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(moment, moment), { minLength: 1, maxLength: 500 }), async pairs => {
        const space = await openRedisSpace(spaceOptions(redis.url))
        for (const at of [0, 1] as const) {
          // A second metric of a later time keeps the script from taking all of an entry as newer without a look.
          await space.merge(
            pairs.flatMap((pair, i) => [single(`a${i}`, 'm', pair[at]), single(`b${i}`, 'm', pair[1 - at] as Moment)]),
          )
          await space.settled()
        }
        await expectNewest(space, pairs)
        await space.close()
      }),
      { numRuns: 20 },
    )
  })

  test('of each two values of the same moment Redis keeps the greater one, down to the last digit, sign and byte [G4]', async () => {
    const numbers = [-1e300, -1, -5e-324, -0, 0, 5e-324, 0.1, 1, 10, 9, 2 ** 53, 1e300]
    const exact = [
      2n ** 53n + 1n,
      2n ** 60n,
      2n ** 60n + 1n,
      2n ** 60n + 7n,
      -(2n ** 60n),
      -(2n ** 60n) - 1n,
      10n ** 63n,
    ]
    const texts = ['', '\u0000', 'A', 'B', '_', 'a', 'ab', 'a\u0000', 'b', 'é', 'e\u0301', '\uffff', '😀', '10', '9']
    const values: Value[] = [...numbers, ...exact, false, true, ...texts, null]
    const pairs = values.flatMap(a => values.map(b => [a, b] as const))
    const moments = pairs.map(
      ([a, b]) => [a, b].map(value => ({ ts: 900, receivedAt: 1_000, value })) as [Moment, Moment],
    )
    const space = await openRedisSpace(spaceOptions(redis.url))
    for (const at of [0, 1] as const) {
      await space.merge(
        moments.flatMap((pair, i) => [single(`a${i}`, 'm', pair[at]), single(`b${i}`, 'm', pair[1 - at] as Moment)]),
      )
      await space.settled()
    }
    await expectNewest(space, moments)
    await space.close()
  })

  async function expectNewest(space: RedisSpace, pairs: readonly (readonly [Moment, Moment])[]): Promise<void> {
    const held = new Map((await all(space)).map(({ device, metrics }) => [device, metrics[0]]))
    for (const [i, [a, b]] of pairs.entries()) {
      const newest = isNewer(a, b) ? a : b
      for (const device of [`a${i}`, `b${i}`]) expect(held.get(device)).toStrictEqual({ metric: 'm', ...newest })
    }
  }

  test('an entry with late and new readings together replaces only what it is newer than [G4]', async () => {
    const space = await openRedisSpace(spaceOptions(redis.url))
    await space.merge([
      single('a', 'x', { ts: 100, receivedAt: 100, value: 1 }),
      single('a', 'y', { ts: 50, receivedAt: 50, value: 1 }),
    ])
    await space.settled()
    await space.merge([
      single('a', 'x', { ts: 90, receivedAt: 110, value: 2 }),
      single('a', 'y', { ts: 200, receivedAt: 200, value: 2 }),
    ])
    expect((await space.get('a'))?.metrics.map(({ value }) => value)).toEqual([1, 2])
    await space.close()
  })

  test('what is in the hash can be read by a person', async () => {
    const options = spaceOptions(redis.url)
    const space = await openRedisSpace(options)
    await space.merge([
      single('press-1', 'temperature', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_140_000, value: 21.5 }),
    ])
    await space.settled()
    const [key = ''] = (await redis.command('KEYS', `${options.prefix}*d:press-1`)) as string[]
    expect(await redis.command('HGET', key, '.temperature')).toBe('1763640000123 17 1:21.5')
    expect(await redis.command('HGET', key, '~')).toBe('1763640000123 1763640000140')
    await space.merge([
      single('press-1', 'temperature', { ts: 1_763_640_000_123_456, receivedAt: 1_763_640_000_123_406, value: 22 }),
    ])
    await space.settled()
    expect(await redis.command('HGET', key, '.temperature')).toBe('1763640000123.456 -0.050 1:22')
    expect(await redis.command('HGET', key, '~')).toBe('1763640000123.456 1763640000140')
    await space.close()
  })

  test('a µs more or less decides, of the time and of the receipt, also when a device is ahead [G4]', async () => {
    const at = 1_763_640_000_123_456
    const moments = [at - 1000, at - 1, at, at + 1, at + 44, at + 1000].flatMap(ts =>
      [at - 1, at, at + 1, at + 17_000].map(receivedAt => ({ ts, receivedAt })),
    )
    const pairs = moments.flatMap((a, i) =>
      moments.map(
        (b, j) =>
          [
            { ...a, value: i },
            { ...b, value: j },
          ] as const,
      ),
    )
    const space = await openRedisSpace(spaceOptions(redis.url))
    for (const which of [0, 1] as const) {
      await space.merge(
        pairs.flatMap((pair, i) => [
          single(`a${i}`, 'm', pair[which]),
          single(`b${i}`, 'm', pair[1 - which] as Moment),
        ]),
      )
      await space.settled()
    }
    await expectNewest(space, pairs)
    await space.close()
  })

  test.each([
    // Written by a version that knew ms only; what a newer one merges; whether that stays.
    ['1763640000123 17 1:21.5', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_140_000, value: 21.6 }, true],
    ['1763640000123 17 1:21.5', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_140_000, value: 21.4 }, false],
    ['1763640000123 17 1:21.5', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_140_001, value: 21.4 }, true],
    ['1763640000123 17 1:21.5', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_139_999, value: 99 }, false],
    ['1763640000123 17 1:21.5', { ts: 1_763_640_000_123_001, receivedAt: 1_763_640_000_123_002, value: 1 }, true],
    ['1763640000123 17 1:21.5', { ts: 1_763_640_000_122_999, receivedAt: 1_763_640_000_999_999, value: 99 }, false],
    ['1763640000123 -5 3:1', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_118_001, value: false }, true],
    ['1763640000123 -5 3:1', { ts: 1_763_640_000_123_000, receivedAt: 1_763_640_000_117_999, value: true }, false],
  ] as const)('beside %s of an older version %o is compared as everywhere [G4]', async (older, moment, stays) => {
    const options = spaceOptions(redis.url)
    const space = await openRedisSpace(options)
    await space.merge([single('press-1', 'm', { ts: 1000, receivedAt: 1000, value: 0 })])
    await space.settled()
    const [key = ''] = (await redis.command('KEYS', `${options.prefix}*d:press-1`)) as string[]
    await redis.command('HSET', key, '.m', older, '~', '1763640000123 1763640000140')
    await space.merge([single('press-1', 'm', moment)])
    await space.settled()
    const [ts = '', delay = ''] = older.split(' ')
    const before = { ts: Number(ts) * 1000, receivedAt: (Number(ts) + Number(delay)) * 1000 }
    const newest = (await space.get('press-1'))?.metrics[0]
    expect(newest).toMatchObject(stays ? moment : before)
    const lastSeen = Math.max(1_763_640_000_140_000, moment.receivedAt)
    expect((await space.get('press-1'))?.lastSeen).toBe(lastSeen)
    await space.close()
  })

  test('device ids and clients fall evenly on the nodes of a Cluster, and each shard of a space on a slot of its own', async () => {
    const options = spaceOptions(redis.url)
    const space = await openRedisSpace(options)
    await space.merge(
      Array.from({ length: 1_000 }, (_, at) => single(`press-${at}`, 'm', { ts: 1, receivedAt: 1, value: at })),
    )
    await space.settled()
    const keys = (await redis.command('KEYS', `${options.prefix}*ids`)) as string[]
    const slots = await Promise.all(keys.map(key => redis.command('CLUSTER', 'KEYSLOT', key).catch(() => null)))
    const sizes = await Promise.all(keys.map(key => redis.command('ZCARD', key)))
    expect(keys).toHaveLength(16)
    expect(new Set(slots).size === 16 || slots.every(slot => slot === null)).toBe(true)
    expect(Math.min(...sizes.map(Number))).toBeGreaterThan(30)
    await space.close()
  })
})

describe('the buffer', () => {
  test('holds devices and bytes up to its bounds, and says what it let go [G5]', () => {
    const buffer = openRedisBuffer({ devicesMax: 2, bytesMax: 10_000 })
    expect(buffer.merge(single('a', 'm', { ts: 1, receivedAt: 1, value: 1 }))).toBe(0)
    expect(buffer.merge(single('b', 'm', { ts: 1, receivedAt: 1, value: 'x'.repeat(2_000) }))).toBe(0)
    expect(buffer.merge(single('c', 'm', { ts: 1, receivedAt: 1, value: 1 }))).toBe(1)
    expect(buffer.merge(single('a', 'n', { ts: 1, receivedAt: 1, value: 'x'.repeat(4_000) }))).toBe(1)
    for (let ts = 2; ts < 1_000; ts++) expect(buffer.merge(single('a', 'm', { ts, receivedAt: ts, value: ts }))).toBe(0)
    expect(buffer.size).toBe(2)
  })

  test('gives back first what came first, also after it was put back, and merges what came meanwhile [G4]', () => {
    const buffer = openRedisBuffer({ devicesMax: 10, bytesMax: 10_000 })
    for (const device of ['a', 'b', 'c']) buffer.merge(single(device, 'm', { ts: 5, receivedAt: 5, value: 5 }))
    const taken = buffer.take({ devicesMax: 2, readingsMax: 10 })
    expect(taken.map(({ device }) => device)).toEqual(['a', 'b'])
    buffer.merge(single('b', 'm', { ts: 4, receivedAt: 9, value: 4 }))
    buffer.merge(single('a', 'm', { ts: 6, receivedAt: 6, value: 6 }))
    expect(buffer.putBack(taken)).toBe(2)
    const again = buffer.take({ devicesMax: 10, readingsMax: 10 })
    expect(again.map(({ device }) => device)).toEqual(['a', 'b', 'c'])
    expect(again.map(({ readings }) => readings.get('m')?.value)).toEqual([6, 5, 5])
    expect(again[1]?.heardAt).toBe(9)
    expect(buffer.since).toBeNull()
  })
})

function single(device: string, metric: string, { ts, receivedAt, value }: Moment): Message {
  return { device, receivedAt, readings: [{ metric, ts, receivedAt, value, sentTs: ts }] }
}
