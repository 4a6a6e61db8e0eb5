/** Live changes and sessions between processes that share a Redis. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Space } from '../../space/space.ts'
import { redisHere, startCluster, startRedis, type TestCluster, type TestRedis } from '../servers/redis-server.ts'
import { timed, until } from '../waits.ts'
import { freshPrefix, openSpace, reading } from './redis-spaces.ts'
import { startUnit } from './unit-child.ts'

describe.skipIf(!redisHere)('between spaces on one Redis', () => {
  let redis: TestRedis
  let cluster: TestCluster
  beforeAll(async () => {
    redis = await startRedis()
    cluster = await startCluster()
  })
  afterAll(async () => {
    await redis.stop()
    await cluster.stop()
  })

  test.each(['single', 'cluster'])(
    'a watcher is told what another process changed, of every shard (%s)',
    async kind => {
      const { writer, watcher } = await openPair(kind === 'single' ? redis.url : cluster.url)
      const told = follow(watcher, 20)
      await until(async () => {
        await writer.merge([reading('first', Date.now(), 1)])
        return told.has('first')
      })
      told.clear()
      const names = Array.from({ length: 200 }, (_, at) => `press-${at}`)
      await writer.merge(names.map(name => reading(name, Date.now(), 1)))
      await until(() => names.every(name => told.has(name)))
      expect([...told].filter(name => !names.includes(name) && name !== 'first')).toEqual([])
    },
  )

  test('nothing is published while nobody watches', async () => {
    const { writer, watcher, prefix } = await openPair(redis.url)
    const channels = async () => (await redis.command('PUBSUB', 'SHARDCHANNELS', `${prefix}{s*`)) as string[]
    await writer.merge([reading('a', Date.now(), 1)])
    await writer.settled()
    expect(await channels()).toEqual([])
    const stop = watcher.watch(20, () => {})
    await until(async () => (await channels()).length === 16)
    stop()
    await until(async () => (await channels()).length === 0)
  })

  test('what changes between a first read and the first subscription is told nevertheless', async () => {
    const { writer, watcher } = await openPair(redis.url)
    await writer.merge([reading('a', Date.now(), 1)])
    await writer.settled()
    const told = follow(watcher, 1)
    const [read] = await Promise.all([watcher.get('a'), writer.merge([reading('a', Date.now() + 1, 2)])])
    expect(read?.device).toBe('a')
    await until(() => told.has('a'))
  })

  test('a watcher whose subscription was cut is told all that it may have missed', async () => {
    const { writer, watcher } = await openPair(redis.url)
    const told = follow(watcher, 1)
    await until(async () => {
      await writer.merge([reading('first', Date.now(), 1)])
      return told.has('first')
    })
    await writer.settled()
    told.clear()
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
    // Published while nobody hears it, or heard after all: it must be told.
    await writer.merge([reading('missed', Date.now(), 1)])
    await until(() => told.has('missed'))
  })

  test('what a Redis that stalled has changed without an answer is told nevertheless', async () => {
    const own = await startRedis()
    onTestFinished(() => own.stop())
    const { writer, watcher } = await openPair(own.url)
    const told = [follow(watcher, 1), follow(writer, 1)]
    await until(async () => {
      await writer.merge([reading('first', Date.now(), 1)])
      return told.every(devices => devices.has('first'))
    })
    await writer.settled()
    for (const devices of told) devices.clear()
    own.freeze()
    await writer.merge([reading('stalled', Date.now(), 1)])
    // Given up; Redis has it all the same, and the next try finds nothing new.
    await expect(writer.settled()).rejects.toMatchObject({ code: 'space_unavailable' })
    own.thaw()
    await until(() => told.every(devices => devices.has('stalled')))
  })

  test('a watcher that cannot read what it may have missed reads it as soon as it can', async () => {
    const prefix = freshPrefix()
    await redis.command('ACL', 'SETUSER', 'watcher', 'on', '>pw', '+@all', '~*', '&*')
    const writer = await openSpace(redis.url, { prefix })
    const watcher = await openSpace(redis.url.replace('//', '//watcher:pw@'), { prefix })
    const told = follow(watcher, 1)
    const many = Array.from({ length: 100 }, (_, at) => reading(`press-${at}`, 1_000, 1))
    await until(async () => {
      await writer.merge([reading('first', Date.now(), 1), ...many])
      return told.has('first')
    })
    await writer.settled()
    await until(
      async () => ((await redis.command('PUBSUB', 'SHARDCHANNELS', `${prefix}{s*`)) as string[]).length === 16,
    )
    const publish = (n: number) =>
      redis.command('SPUBLISH', `${prefix}{s10}changes`, JSON.stringify({ p: 'another', n, d: [`x${n}`] }))
    await publish(1)
    await until(() => told.has('x1'))
    await redis.command('ACL', 'SETUSER', 'watcher', '-zrange')
    told.clear()
    await publish(3)
    await until(async () => String(await redis.command('ACL', 'LOG')).includes(',toplevel,object,zrange,'))
    await redis.command('ACL', 'SETUSER', 'watcher', '+zrange')
    const [missed = ''] = (await redis.command('ZRANGE', `${prefix}{s10}ids`, 0, -1)) as string[]
    await until(() => told.has(missed))
  })

  test('a publication that failed is noticed without another change', async () => {
    const prefix = freshPrefix()
    await redis.command('ACL', 'SETUSER', 'writer', 'on', '>pw', '+@all', '~*', '&*')
    const writer = await openSpace(redis.url.replace('//', '//writer:pw@'), { prefix, unit: false })
    const watcher = await openSpace(redis.url, { prefix })
    const told = follow(watcher, 1)
    await until(async () => {
      await writer.merge([reading('a', Date.now(), 1)])
      return told.has('a')
    })
    await writer.settled()
    await redis.command('ACL', 'SETUSER', 'writer', '-spublish')
    await redis.command('ACL', 'LOG', 'RESET')
    await writer.merge([reading('a', Date.now() + 1_000, 1)])
    await until(async () => String(await redis.command('ACL', 'LOG')).includes(',spublish,'))
    // What was published before may be told until now.
    told.clear()
    await redis.command('ACL', 'SETUSER', 'writer', '+spublish')
    await until(() => told.has('a'))
  })

  test('a publication that was lost is noticed at the next one of the same shard', async () => {
    const { writer, watcher, prefix } = await openPair(redis.url)
    const told = follow(watcher, 1)
    await until(async () => {
      await writer.merge([reading('first', Date.now(), 1)])
      return told.has('first')
    })
    await writer.settled()
    const [channel = ''] = (await redis.command('PUBSUB', 'SHARDCHANNELS', `${prefix}{s10}*`)) as string[]
    const publish = (n: number, d: string[]) =>
      redis.command('SPUBLISH', channel, JSON.stringify({ p: 'another', n, d }))
    await publish(1, ['x'])
    await until(() => told.has('x'))
    const listed = (await redis.command('ZRANGE', channel.replace('changes', 'ids'), 0, -1)) as string[]
    const device = listed[0] ?? (await deviceOf(writer, redis, channel.replace('changes', 'ids')))
    await writer.settled()
    await until(() => told.has(device))
    told.clear()
    await publish(3, ['z'])
    await until(() => told.has('z') && told.has(device))
  })

  test('what is published and is none of ours is passed over, and what follows is told', async () => {
    const { writer, watcher, prefix } = await openPair(redis.url)
    const told = follow(watcher, 1)
    await until(async () => {
      await writer.merge([reading('first', Date.now(), 1)])
      return told.has('first')
    })
    const [channel = ''] = (await redis.command('PUBSUB', 'SHARDCHANNELS', `${prefix}{s10}*`)) as string[]
    const many = Array.from({ length: 501 }, (_, at) => `d${at}`)
    const foreign = [
      { p: 'x', n: 1, d: 'ids' },
      { p: 'x', n: 1, d: [1] },
      { p: 7, n: 1, d: ['d'] },
      { p: 'x', n: '1', d: ['d'] },
    ]
    for (const text of ['hello', '', 'null', '7', '[]', ...[...foreign, { p: 'x', n: 1, d: many }].map(json)]) {
      expect(await redis.command('SPUBLISH', channel, text)).toBe(1)
    }
    await redis.command('SPUBLISH', channel, json({ p: 'x', n: 1, d: ['told'] }))
    await until(() => told.has('told'))
    expect(told).toEqual(new Set(['first', 'told']))
  })

  test('a watcher is not blind to what changed before an emptied Redis knew again that it watches', async () => {
    const { writer, watcher, prefix } = await openPair(redis.url)
    const told = follow(watcher, 1)
    await until(async () => {
      await writer.merge([reading('first', Date.now(), 1)])
      return told.has('first')
    })
    await writer.settled()
    // As if emptied, without the flush that follows: nobody is known to watch any more.
    for (const key of (await redis.command('KEYS', `${prefix}*meta`)) as string[]) await redis.command('HDEL', key, 'w')
    told.clear()
    await writer.merge([reading('unpublished', Date.now(), 1)])
    await until(() => told.has('unpublished'))
  })

  test('a client that comes to another broker is let go by the first before the take-over resolves [MQTT-3.1.4-2]', async () => {
    const { writer: first, watcher: second } = await openPair(redis.url)
    const events: string[] = []
    first.sessions.onTaken(async client => {
      events.push(`closing ${client}`)
      for (let trip = 0; trip < 5; trip++) await redis.command('PING')
      events.push(`closed ${client}`)
      return true
    })
    expect(await first.sessions.take('gateway é 1')).toEqual({ moved: true, settled: true })
    expect(await first.sessions.take('gateway é 1')).toEqual({ moved: false, settled: true })
    expect(await second.sessions.take('gateway é 1')).toEqual({ moved: true, settled: true })
    expect(events).toEqual(['closing gateway é 1', 'closed gateway é 1'])
    expect(await second.sessions.take('gateway é 1')).toEqual({ moved: false, settled: true })
  })

  test('a client that comes back after its connection ended is known for five minutes, by who served it [G5]', async () => {
    const { writer: first, watcher: second, prefix } = await openPair(redis.url)
    await first.sessions.take('c')
    await first.sessions.take('c')
    expect(await first.sessions.release('c')).toBe('ours')
    const [key = ''] = (await redis.command('KEYS', `${prefix}*c:c`)) as string[]
    expect(Number(await redis.command('PTTL', key))).toBeLessThanOrEqual(5 * 60_000)
    expect(await first.sessions.take('c')).toEqual({ moved: false, settled: true })
    expect(Number(await redis.command('PTTL', key))).toBeGreaterThan(29 * 60_000)
    expect(await first.sessions.release('c')).toBe('ours')
    expect(await second.sessions.take('c')).toEqual({ moved: true, settled: true })
  })

  test('a broker that is frozen, or dead, holds up a take-over for a second at most', async () => {
    const prefix = freshPrefix()
    const space = await openSpace(redis.url, { prefix })
    const child = await startUnit(redis.url, prefix)
    await child.ask({ ask: 'take', client: 'c1' })
    await child.ask({ ask: 'take', client: 'c2' })
    child.freeze()
    expect(await withinASecond(() => space.sessions.take('c1'))).toEqual({
      answer: { moved: true, settled: false },
      inTime: true,
    })
    child.thaw()
    await until(async () => ((await child.ask({ ask: 'taken' })) as string[]).includes('c1'))
    await child.kill()
    expect(await withinASecond(() => space.sessions.take('c2'))).toEqual({
      answer: { moved: true, settled: false },
      inTime: true,
    })
  })

  test('a broker that did not hear of a take-over lets the client go as soon as it hears again', async () => {
    const { writer: first, watcher: second, prefix } = await openPair(redis.url)
    const taken: string[] = []
    first.sessions.onTaken(async client => {
      taken.push(client)
      return true
    })
    await first.sessions.take('c')
    // The second writes the key, and its message is lost.
    const [key = ''] = (await redis.command('KEYS', `${prefix}*c:c`)) as string[]
    await redis.command('SET', key, `${second.unit} ${Date.now() + 1} ${first.unit}`)
    expect(taken).toEqual([])
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await until(() => taken.includes('c'))
  })

  test('while Redis is away a client is taken as moved, within a second', async () => {
    const own = await startRedis()
    const space = await openSpace(own.url)
    await own.kill()
    expect(await withinASecond(() => space.sessions.take('c'))).toEqual({
      answer: { moved: true, settled: false },
      inTime: true,
    })
    await own.stop()
  })

  test('a Redis that hangs holds up a take-over and a read for about a second', async () => {
    const own = await startRedis()
    const space = await openSpace(own.url)
    await space.merge([reading('a', 1_000, 1)])
    await space.settled()
    own.freeze()
    expect(await withinASecond(() => space.sessions.take('c'))).toEqual({
      answer: { moved: true, settled: false },
      inTime: true,
    })
    await expect(space.get('a')).rejects.toMatchObject({ code: 'space_unavailable' })
    own.thaw()
    await own.stop()
  })
})

async function openPair(url: string) {
  const prefix = freshPrefix()
  return { writer: await openSpace(url, { prefix }), watcher: await openSpace(url, { prefix }), prefix }
}

function follow(space: Space, everyMs: number): Set<string> {
  const told = new Set<string>()
  space.watch(everyMs, devices => {
    for (const device of devices) told.add(device)
  })
  return told
}

/** A device of the shard of this sorted set. */
async function deviceOf(space: Space, redis: TestRedis, ids: string): Promise<string> {
  for (let at = 0; ; at++) {
    await space.merge([reading(`n${at}`, Date.now(), 1)])
    await space.settled()
    const listed = (await redis.command('ZRANGE', ids, 0, -1)) as string[]
    if (listed[0] !== undefined) return listed[0]
  }
}

/** Whether it takes a second, and not the three that a call may take elsewhere. */
async function withinASecond<T>(ask: () => Promise<T>): Promise<{ answer: T; inTime: boolean }> {
  const { answer, ms } = await timed(ask)
  return { answer, inTime: ms < 1_500 }
}

const json = (value: unknown) => JSON.stringify(value)
