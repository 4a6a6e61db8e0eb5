/** What clients hold, in Redis: the contract, over one Redis and over a Cluster, and what happens when Redis forgets or is away. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { nameOf, type SessionKey, type SessionStore } from '../../sessions/sessions.ts'
import { openRedisKeys, SHARDS, shardOf } from '../../space/redis-keys.ts'
import { openRedisSpace, type RedisSpace } from '../../space/redis-space.ts'
import { type SessionStoreHarness, sessionStoreContract } from '../contracts/session-store-contract.ts'
import { redisHere, startCluster, startRedis, type TestCluster, type TestRedis } from '../servers/redis-server.ts'
import { until } from '../waits.ts'
import { freshPrefix, spaceOptions } from './redis-spaces.ts'

const HOUR_MS = 3_600_000
const EXPIRY_MS = 168 * HOUR_MS
const FILTERS = [{ filter: 'devices/a/cmd/#', qos: 1 as const }]
const SHARD = 5

const nameOfKey = (key: SessionKey) => nameOf(key) ?? ''

/** Ids whose sessions lie in one shard, and so share its bound. */
function clientOf(number: number): string {
  let found = -1
  for (let at = 0; ; at++) {
    const client = `client-${at}`
    if (shardOf(nameOfKey({ principal: '', client })) === SHARD && ++found === number) return client
  }
}
const CLIENTS = Array.from({ length: 400 }, () => '')

function client(number: number): string {
  CLIENTS[number] ||= clientOf(number)
  return CLIENTS[number] as string
}

async function openHarness(
  redis: () => { url: string; nodeOf(key: string): Promise<TestRedis> },
): Promise<SessionStoreHarness> {
  const prefix = freshPrefix()
  const keys = openRedisKeys(prefix)
  const opened: { space: RedisSpace; store: SessionStore }[] = []
  let turn = 0
  return {
    open: async ({ sessionsMax = 1_000 } = {}) => {
      const space = await openRedisSpace(spaceOptions(redis().url, { prefix }))
      const store = space.openSessionStore({ sessionsMax: sessionsMax * SHARDS, expiryMs: EXPIRY_MS })
      opened.push({ space, store })
      return store
    },
    // The brokers before it never hear of it, and go on: nobody closes what was killed.
    crash: async () => {
      if (opened.length < 3) {
        const space = await openRedisSpace(spaceOptions(redis().url, { prefix }))
        opened.push({ space, store: space.openSessionStore({ sessionsMax: 16_000, expiryMs: EXPIRY_MS }) })
      }
      return (opened[++turn % opened.length] as { store: SessionStore }).store
    },
    read: async key => {
      const kept = keys.kept(nameOfKey(key))
      const text = (await (await redis().nodeOf(kept)).command('GET', kept)) as string | null
      return /^\d+ \S+ (.+)$/.exec(text ?? '')?.[1] ?? null
    },
    rewrite: async (key, text) => {
      const kept = keys.kept(nameOfKey(key))
      await (await redis().nodeOf(kept)).command('SET', kept, `1 nobody ${text}`)
    },
    client,
    destroy: async () => {
      for (const { space, store } of opened) {
        await store.close()
        await space.close()
      }
    },
  }
}

describe.skipIf(!redisHere)('Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())
  sessionStoreContract('redis-kept', () => openHarness(() => ({ url: redis.url, nodeOf: async () => redis })), {
    runs: 20,
  })
})

describe.skipIf(!redisHere)('Redis Cluster', () => {
  let cluster: TestCluster
  beforeAll(async () => {
    cluster = await startCluster()
  })
  afterAll(() => cluster.stop())
  const nodeOf = async (key: string) => {
    const slot = Number(await (cluster.nodes[0] as TestRedis).command('CLUSTER', 'KEYSLOT', key))
    return cluster.nodes[Math.min(2, Math.floor(slot / Math.ceil(16_384 / 3)))] as TestRedis
  }
  sessionStoreContract('redis-kept in a Cluster', () => openHarness(() => ({ url: cluster.url, nodeOf })), { runs: 10 })
})

describe.skipIf(!redisHere)('what clients hold, in a Redis', () => {
  const key = { principal: '', client: 'a' }

  test('that was emptied is there again for connected clients, and one that was away hears of none', async () => {
    const { redis, keys, stores } = await openBrokers(1)
    const [store] = stores
    const [here, away] = [await opened(store, key), await opened(store, { ...key, client: 'away' })]
    await here.save({ ...here.record, filters: FILTERS })
    await away.leave()
    await redis.command('FLUSHALL')
    await until(async () => (await redis.command('GET', keys.kept(nameOfKey(key)))) !== null)
    expect(await opened(store, key)).toMatchObject({ isPresent: true, record: { filters: FILTERS } })
    expect(await opened(store, { ...key, client: 'away' })).toMatchObject({ isPresent: false })
  })

  test('that was started again, empty, is there again for connected clients, and of the broker that opened it last', async () => {
    const { redis, stores } = await openBrokers(2)
    const [first, second] = stores
    const before = await opened(first, key)
    await before.save({ ...before.record, opened: 1 })
    const session = await opened(second, key)
    await session.save({ ...session.record, filters: FILTERS })
    await redis.kill()
    await redis.start({ emptied: true })
    await until(async () => (await second?.count().catch(() => 0)) === 1)
    // Both believe to have it for a while, because nobody could tell the first one.
    await until(async () => (await before.save({ ...before.record, opened: 9 })) === false)
    const third = await given(first, key)
    expect(third).toMatchObject({ isPresent: true, record: { filters: FILTERS, opened: 1 } })
  })

  test('of a node of a Cluster that was emptied is there again', async () => {
    const cluster = await startCluster()
    onTestFinished(() => cluster.stop())
    const space = await openRedisSpace(spaceOptions(cluster.url))
    const store = space.openSessionStore({ sessionsMax: 16_000, expiryMs: EXPIRY_MS })
    onTestFinished(() => space.close())
    onTestFinished(() => store.close())
    const clients = Array.from({ length: 60 }, (_, at) => ({ principal: '', client: `c${at}` }))
    const sessions = await Promise.all(clients.map(one => opened(store, one)))
    for (const session of sessions) await session.save({ ...session.record, filters: FILTERS })
    await cluster.nodes[1]?.command('FLUSHALL')
    expect(await store.count()).toBeLessThan(60)
    await until(async () => (await store.count()) === 60)
    const again = await Promise.all(clients.map(one => opened(store, one)))
    expect(again.filter(({ isPresent, record }) => isPresent && record.filters.length === 1)).toHaveLength(60)
  })

  test('is of the broker that opened it last, and the one before changes nothing', async () => {
    const { stores } = await openBrokers(2)
    const [first, second] = stores
    const before = await opened(first, key)
    expect(await before.save({ ...before.record, filters: FILTERS })).toBe(true)
    const session = await opened(second, key)
    expect(session).toMatchObject({ isPresent: true, record: { filters: FILTERS } })
    expect(await before.save({ ...before.record, filters: [] })).toBe(false)
    await before.leave()
    expect(await session.save({ ...session.record, opened: 3 })).toBe(true)
    await session.leave()
    expect(await opened(first, key)).toMatchObject({ isPresent: true, record: { filters: FILTERS, opened: 3 } })
  })

  test('is not brought back by a broker that does not know that its client discarded it', async () => {
    const { redis, keys, stores } = await openBrokers(2)
    const [first, second] = stores
    const before = await opened(first, key)
    await second?.discard(key)
    expect(await before.save({ ...before.record, filters: FILTERS })).toBe(false)
    await before.leave()
    expect(String(await redis.command('GET', keys.kept(nameOfKey(key))))).toMatch(/ $/)
    expect(await opened(first, key)).toMatchObject({ isPresent: false })
  })

  test('expires with its client away, counted from when it left, and not while it is connected', async () => {
    const { redis, keys, stores } = await openBrokers(1)
    const [store] = stores
    const session = await opened(store, key)
    const kept = keys.kept(nameOfKey(key))
    const ttl = async () => Number(await redis.command('PTTL', kept))
    expect(await ttl()).toBeGreaterThan(EXPIRY_MS - 60_000)
    await redis.command('PEXPIRE', kept, 60_000)
    await session.save(session.record)
    expect(await ttl()).toBeGreaterThan(EXPIRY_MS - 60_000)
    await redis.command('PEXPIRE', kept, 60_000)
    await session.leave()
    expect(await ttl()).toBeGreaterThan(EXPIRY_MS - 60_000)
    await redis.command('DEL', kept)
    expect(await opened(store, key)).toMatchObject({ isPresent: false })
    expect(await store?.count()).toBe(1)
  })

  test('of clients that stay connected is confirmed, so that it neither expires nor makes room', async () => {
    const { redis, keys, open } = await openBrokers(0)
    let now = Date.now()
    const store = await open({ clock: () => now, expiryMs: HOUR_MS })
    await opened(store, key)
    const [kept, seen] = [keys.kept(nameOfKey(key)), keys.keptSeen(shardOf(nameOfKey(key)))]
    await redis.command('PEXPIRE', kept, 1_000_000)
    const until30Min = Number(await redis.command('ZSCORE', seen, nameOfKey(key)))
    expect(until30Min).toBeGreaterThan(Date.now() + 25 * 60_000)
    now += 11 * 60_000
    await until(async () => Number(await redis.command('PTTL', kept)) > 1_000_000)
    expect(Number(await redis.command('ZSCORE', seen, nameOfKey(key)))).toBeGreaterThan(until30Min)
  })

  test('that does not answer is not waited for, saves are refused, and a client that heard of none finds none later', async () => {
    const { redis, stores } = await openBrokers(2)
    const [store, other] = stores
    const [session, another] = [await opened(store, key), await opened(store, { ...key, client: 'b' })]
    await session.save({ ...session.record, filters: FILTERS })
    await session.leave()
    redis.freeze()
    expect(await store?.open(key)).toBeNull()
    expect(await store?.discard({ ...key, client: 'c' })).toBe(false)
    await expect(another.save({ ...another.record, filters: FILTERS })).rejects.toMatchObject({
      code: 'sessions_unavailable',
      fate: 'retry',
    })
    expect(another.record.filters).toEqual([])
    redis.thaw()
    await until(async () => (await store?.count()) === 1)
    expect(await opened(other, key)).toMatchObject({ isPresent: false, record: { filters: [] } })
  })

  test('in which one client has what no broker wrote brings back and refreshes the others all the same', async () => {
    const { redis, keys, stores } = await openBrokers(1)
    const [store] = stores
    const spoilt = { ...key, client: 'spoilt' }
    await redis.command('LPUSH', keys.kept(nameOfKey(spoilt)), 'what no broker wrote')
    expect(await store?.open(spoilt)).toBeNull()
    const session = await opened(store, key)
    await redis.command('DEL', keys.kept(nameOfKey(key)), keys.keptSeen(shardOf(nameOfKey(key))))
    await until(async () => (await redis.command('EXISTS', keys.kept(nameOfKey(key)))) === 1)
    await session.leave()
  })

  test('that is away at all is as one that does not answer', async () => {
    const { redis, stores } = await openBrokers(1)
    const [store] = stores
    await opened(store, key)
    await redis.kill()
    await until(async () => (await store?.open(key)) === null)
    expect(await store?.discard(key)).toBe(false)
    await redis.start({ emptied: true })
    await until(async () => (await store?.open(key)) !== null)
  })

  test('10,000 clients that connect at once get their sessions in one call each', async () => {
    const { redis, stores } = await openBrokers(1)
    const [store] = stores
    const clients = Array.from({ length: 10_000 }, (_, at) => ({ principal: '', client: `c${at}` }))
    const before = await callsOf(redis)
    const sessions = await Promise.all(clients.map(one => store?.open(one)))
    expect((await callsOf(redis)) - before).toBeLessThan(11_000)
    // What took longer than a second is none, and says so.
    expect(sessions.filter(session => session !== null).length).toBeGreaterThan(0)
    await Promise.all(sessions.map(session => session?.leave()))
  })
})

async function openBrokers(number: number) {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const prefix = freshPrefix()
  const stores: SessionStore[] = []
  for (let at = 0; at < number; at++) stores.push(await open())
  return { redis, keys: openRedisKeys(prefix), stores, open }

  async function open(more: Partial<Parameters<RedisSpace['openSessionStore']>[0]> = {}): Promise<SessionStore> {
    const space = await openRedisSpace(spaceOptions(redis.url, { prefix }))
    onTestFinished(() => space.close())
    const store = space.openSessionStore({ sessionsMax: 160_000, expiryMs: EXPIRY_MS, ...more })
    onTestFinished(() => store.close())
    return store
  }
}

async function opened(store: SessionStore | undefined, key: SessionKey) {
  const session = await store?.open(key)
  if (session === null || session === undefined) throw new Error(`Nothing is kept of ${key.client}.`)
  return session
}

async function given(store: SessionStore | undefined, key: SessionKey) {
  let session = await store?.open(key)
  await until(async () => {
    session ??= await store?.open(key)
    return session !== null
  })
  return session
}

async function callsOf(redis: TestRedis): Promise<number> {
  const stats = String(await redis.command('INFO', 'commandstats'))
  const calls = (name: string) => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0)
  return calls('evalsha') + calls('eval')
}
