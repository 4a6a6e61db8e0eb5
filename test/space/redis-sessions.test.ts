/** Who serves a client when Redis stalls, is emptied or says nonsense while it moves from one unit to another. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { RedisSpace } from '../../space/redis-space.ts'
import { ODD_DEVICE_IDS } from '../model/odd-ids.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { until } from '../waits.ts'
import { freshPrefix, openSpace, reading } from './redis-spaces.ts'

describe.skipIf(!redisHere)('sessions of units on one Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())

  test('a unit that could not settle in time what a client had sent says so to the next one [G2]', async () => {
    const { first, second } = await openUnits(redis)
    first.space.sessions.onTaken(async () => false)
    await first.space.sessions.take('c')
    expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: false })
    first.space.sessions.onTaken(() => new Promise(() => {}))
    await first.space.sessions.take('c')
    expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: false })
  })

  test('a client of any id is let go of by name', async () => {
    const { first, second } = await openUnits(redis)
    const clients = [
      'tenant/device',
      '+',
      '#',
      '{s10}',
      'c}{x',
      '\u202e',
      '\u2028',
      '\ue000',
      '\u{1f321}'.repeat(64),
      ...ODD_DEVICE_IDS,
    ]
    for (const client of clients) await first.space.sessions.take(client)
    for (const client of clients) {
      expect(await second.space.sessions.take(client), client).toEqual({ moved: true, settled: true })
    }
    expect(first.taken).toEqual(clients)
    for (const client of clients) expect(await second.space.sessions.release(client), client).toBe('ours')
  })

  test('a client that connected more than once is let go of with its last connection', async () => {
    const { first, second } = await openUnits(redis)
    await first.space.sessions.take('c')
    await first.space.sessions.take('c')
    expect(await first.space.sessions.release('c')).toBe('ours')
    await second.space.sessions.take('c')
    expect(first.taken).toEqual([])
  })

  test('a client that left is of the unit that it connected to last, whether the one before was told or not', async () => {
    const { first, second, prefix } = await openUnits(redis)
    await first.space.sessions.take('c')
    await redis.command('SET', await keyOf(redis, prefix), `${second.space.unit} ${Date.now() + 1} `)
    expect(await first.space.sessions.release('c')).toBe('theirs')
    await first.space.sessions.take('c')
    await redis.command('SET', await keyOf(redis, prefix), `${second.space.unit} ${Date.now() - 1_000} `)
    expect(await first.space.sessions.release('c')).toBe('ours')
    await first.space.sessions.take('c')
    await redis.command('DEL', await keyOf(redis, prefix))
    expect(await first.space.sessions.release('c')).toBe('unknown')
  })

  test.each(['no JSON', '{', 'null', '7', '[]', '{}', '{"done":"1"}', '{"take":1,"from":"x","id":1}', '{"take":"c"}'])(
    '%s on the channel of a unit is ignored, and what comes after it is heard',
    async text => {
      const { first, second, prefix } = await openUnits(redis)
      await first.space.sessions.take('c')
      const channel = `${prefix}{${first.space.unit}}unit`
      await until(async () => (await redis.command('SPUBLISH', channel, text)) === 1)
      expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: true })
      expect(first.taken).toEqual(['c'])
    },
  )

  test('while Redis stalls a client is served at once, and the unit before is told as soon as it answers', async () => {
    const own = await startRedis()
    onTestFinished(() => own.stop())
    const { first, second } = await openUnits(own)
    await first.space.sessions.take('c')
    own.freeze()
    expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: false })
    own.thaw()
    await until(() => first.taken.includes('c'))
    expect(second.taken).toEqual([])
    expect(await second.space.sessions.release('c')).toBe('ours')
  })

  test('a unit that is told of a take-over, and cannot ask whose the client is, lets it go as soon as it can', async () => {
    const { first, second } = await openUnits(redis, { first: 'told' })
    await first.space.sessions.take('c')
    await redis.command('ACL', 'SETUSER', 'told', '-get')
    expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: false })
    await until(async () => String(await redis.command('ACL', 'LOG')).includes(',toplevel,object,get,'))
    expect(first.taken).toEqual([])
    await redis.command('ACL', 'SETUSER', 'told', '+get')
    await until(() => first.taken.includes('c'))
    expect(second.taken).toEqual([])
  })

  test('a unit whose lease has just run out is told of a take-over all the same', async () => {
    const { first, second, prefix } = await openUnits(redis, { first: 'late' })
    await first.space.sessions.take('c')
    // It cannot renew its lease, which has run out and waits for a reader.
    await redis.command('ACL', 'SETUSER', 'late', '-zadd')
    const [lease = ''] = ((await redis.command('ZRANGE', `${prefix}{units}leases`, 0, -1)) as string[]).filter(tag =>
      tag.startsWith(first.space.unit),
    )
    await redis.command('ZADD', `${prefix}{units}leases`, 1, lease)
    expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: true })
    await until(() => first.taken.includes('c'))
  })

  test('of two units that serve a client after Redis was emptied, without a word, the one with the newer CONNECT keeps it', async () => {
    const { first, second } = await openUnits(redis)
    await first.space.sessions.take('c')
    await redis.command('FLUSHALL')
    expect(await second.space.sessions.take('c')).toMatchObject({ moved: true })
    await until(() => first.taken.includes('c'))
    expect(second.taken).toEqual([])
  })

  test.each(['first', 'second'])(
    'of two units that serve a client when an emptied Redis starts, the newer CONNECT wins, also when the %s asks first',
    async asksFirst => {
      const own = await startRedis()
      onTestFinished(() => own.stop())
      const { first, second, prefix } = await openUnits(own)
      await first.space.sessions.take('c')
      const key = await keyOf(own, prefix)
      await own.kill()
      expect(await second.space.sessions.take('c')).toEqual({ moved: true, settled: false })
      await own.start({ emptied: true })
      // What the other one would find then.
      const { unit } = asksFirst === 'first' ? first.space : second.space
      await own.command('SET', key, `${unit} ${asksFirst === 'first' ? Date.now() - 60_000 : Date.now()} `)
      await until(() => first.taken.includes('c'))
      expect(second.taken).toEqual([])
      expect(String(await own.command('GET', key))).toContain(second.space.unit)
    },
  )

  test('an emptied Redis is not told of a device that another unit speaks for', async () => {
    const own = await startRedis()
    onTestFinished(() => own.stop())
    const { first, second } = await openUnits(own)
    const spaces = [first.space, second.space]
    const now = Date.now()
    for (const space of spaces) await space.merge([reading('moved', now, 1), reading('kept', now, 1)])
    await first.space.mergePresence(['moved', 'kept'].map(device => ({ device, online: true, at: now })))
    await first.space.settled()
    // It moves, and leaves the second one.
    first.space.sessions.disown('moved')
    await second.space.mergePresence([{ device: 'moved', online: true, at: now + 10 }])
    await second.space.mergePresence([{ device: 'moved', online: false, at: now + 20 }])
    await second.space.settled()
    await own.kill()
    await own.start({ emptied: true })
    await until(() => second.space.merge([reading('moved', now, 1), reading('kept', now, 1)]).then(yes, no))
    await until(async () => (await second.space.get('kept').catch(() => null))?.online === true)
    await first.space.settled()
    expect((await second.space.get('moved'))?.online).toBe(false)
  })
})

const yes = () => true
const no = () => false

interface Unit {
  readonly space: RedisSpace
  /** Clients that it was told to let go. */
  readonly taken: string[]
}

/** `users`: the first one comes as a user of this name, from whom rights may be taken. */
async function openUnits(
  redis: TestRedis,
  users: { readonly first?: string } = {},
): Promise<{ first: Unit; second: Unit; prefix: string }> {
  const prefix = freshPrefix()
  let url = redis.url
  if (users.first !== undefined) {
    await redis.command('ACL', 'SETUSER', users.first, 'on', '>pw', '+@all', '~*', '&*')
    url = redis.url.replace('//', `//${users.first}:pw@`)
  }
  const units = { first: await openUnit(url, prefix), second: await openUnit(redis.url, prefix), prefix }
  // Both are heard: only then is one of them told at once.
  for (const { space } of [units.first, units.second]) {
    const channel = `${prefix}{${space.unit}}unit`
    const heard = async () => (await redis.command('PUBSUB', 'SHARDNUMSUB', channel)) as [string, number]
    await until(async () => (await heard())[1] === 1)
  }
  return units
}

async function openUnit(url: string, prefix: string): Promise<Unit> {
  const space = await openSpace(url, { prefix })
  const taken: string[] = []
  space.sessions.onTaken(async client => {
    taken.push(client)
    return true
  })
  return { space, taken }
}

async function keyOf(redis: TestRedis, prefix: string): Promise<string> {
  const [key = ''] = (await redis.command('KEYS', `${prefix}*c:c`)) as string[]
  return key
}
