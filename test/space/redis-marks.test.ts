/** Which processes on one Redis are older, as far as they leave a trace. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LINE_FORMAT } from '../../model/message.ts'
import { olderOf, type Traces } from '../../space/redis-marks.ts'
import { openRedisSpace } from '../../space/redis-space.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { freshPrefix, openSpace, spaceOptions } from './redis-spaces.ts'

const NONE: Traces = { marks: [], tags: [], lost: [], now: 10_000, lines: 2 }

describe('who is older', () => {
  it.each([
    ['nobody, where nobody is', {}, [], []],
    ['a unit without a mark', { tags: ['a.0', 'b.3'], marks: ['a 2'] }, ['b'], []],
    ['a unit that reads older lines only', { tags: ['a.0'], marks: ['a 1'] }, ['a'], []],
    ['no unit that reads newer ones', { tags: ['a.0'], marks: ['a 3'] }, [], []],
    ['whoever repairs without a mark', { lost: ['9000 12000 r', '9000 12000 s'], marks: ['s 2'] }, [], ['r']],
    ['nobody who repaired once', { lost: ['9000 9999 r', '9000 0 '] }, [], []],
  ] as const)('%s', (_, traces, brokers, readers) => {
    expect(olderOf({ ...NONE, ...traces })).toEqual({ brokers, readers })
  })
})

describe.skipIf(!redisHere)('on a Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())

  it('every process has a mark while it lives, and a lease without one is an older unit', async () => {
    const prefix = freshPrefix()
    const [unit, reader] = await Promise.all([true, false].map(unit => openSpace(redis.url, { prefix, unit })))
    const marks = () => redis.command('ZRANGE', `${prefix}{units}marks`, 0, -1) as Promise<string[]>
    const names = [unit, reader].map(space => `${space?.unit} ${LINE_FORMAT}`)
    expect((await marks()).sort()).toEqual(names.sort())
    expect(await unit?.older()).toEqual({ brokers: [], readers: [] })
    const ends = Date.now() + 60_000
    await redis.command('ZADD', `${prefix}{units}leases`, ends, 'from-before.2')
    await redis.command('HSET', `${prefix}{units}lost`, 'gone.0', `${Date.now()} ${ends} repairs-it`)
    expect(await unit?.older()).toEqual({ brokers: ['from-before'], readers: ['repairs-it'] })
  })

  it('a mark goes with its process, and with its lease', async () => {
    const prefix = freshPrefix()
    const other = await openRedisSpace(spaceOptions(redis.url, { prefix, unit: false }))
    await redis.command('ZADD', `${prefix}{units}marks`, Date.now() - 1, 'ended-long-ago 2')
    await other.older()
    const marks = () => redis.command('ZRANGE', `${prefix}{units}marks`, 0, -1)
    expect(await marks()).toEqual([`${other.unit} ${LINE_FORMAT}`])
    await other.close()
    expect(await marks()).toEqual([])
  })
})
