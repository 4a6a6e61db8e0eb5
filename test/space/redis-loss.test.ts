/** What Redis loses is noticed, is never served as whole, and comes back from ClickHouse and the log [G4]. */
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { openReader } from '../../readers/reader.ts'
import type { RedisSpace } from '../../space/redis-space.ts'
import type { Space } from '../../space/space.ts'
import { openBalancer } from '../machines/balancer.ts'
import { redisHere, startCluster, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { timed, until } from '../waits.ts'
import { all, type ModelSources, openModelSources } from './model-sources.ts'
import { freshPrefix, openSpace, reading, SILENT } from './redis-spaces.ts'

const DEVICES = 10_000
const names = Array.from({ length: DEVICES }, (_, at) => `press-${at}`)

describe.skipIf(!redisHere)('Redis that loses its data', () => {
  const opened: { stop(): Promise<void> }[] = []
  afterAll(async () => {
    for (const server of opened) await server.stop()
  })

  test('killed and started again empty under load, it is noticed at once and equals the oracle within ten seconds [G4]', async () => {
    const redis = held(await startRedis())
    const { units, sources, load } = await startFleet(redis.url)
    const observer = await openSpace(redis.url, { unit: false, prefix: units.prefix })
    await until(() => observer.warm)
    const witness = openWitness(observer)

    await redis.kill()
    await redis.start({ emptied: true })
    expect(observer.warm).toBe(false)
    const { ms: equalAfter } = await timed(async () => {
      await load.run(100)
      await until(() => observer.warm && units.spaces.every(({ warm }) => warm))
      await load.stop()
      await settle(units.spaces)
    })

    expect(await all(observer)).toEqual(await all(sources.oracle))
    expect(equalAfter).toBeLessThan(10_000)
    expect(await witness.stop()).toEqual([])
    process.stdout.write(`emptied: equal after ${equalAfter} ms\n`)
  })

  test('emptied while it runs, without any connection that breaks, it is noticed by the next read, or within a second', async () => {
    const redis = held(await startRedis())
    const { units, sources, load } = await startFleet(redis.url, { devices: 100, readers: 0 })
    await load.stop()
    const [reading, idle] = [
      await openSpace(redis.url, { unit: false, prefix: units.prefix }),
      await openSpace(redis.url, { unit: false, prefix: units.prefix }),
    ]
    await (await reading.claimRebuild())?.finish()
    await until(() => idle.warm)
    await redis.command('FLUSHALL')
    expect(await reading.get('press-1')).toBeNull()
    expect(reading.warm).toBe(false)
    const { answer: noticedMs, ms } = await timed(() => until(() => !idle.warm))
    expect(ms).toBeLessThan(5_000)
    process.stdout.write(`emptied, noticed by one that does not read after ${Math.round(noticedMs)} ms\n`)
    const reader = openReader({ space: reading, database: sources.database, view: sources.view, log: SILENT })
    await until(() => idle.warm)
    await reader.close()
    const online = (await sources.oracle.counts()).online
    await until(async () => (await idle.counts()).online === online)
    expect(await all(idle)).toEqual(await all(sources.oracle))
  })

  test('started again with an older copy of the data, it is not believed [G4]', async () => {
    const redis = held(await startRedis(['--dbfilename', 'dump.rdb']))
    const { units, sources, load } = await startFleet(redis.url, { devices: 500 })
    const observer = await openSpace(redis.url, { unit: false, prefix: units.prefix })
    await until(() => observer.warm)
    await units.spaces[0]?.mergePresence([{ device: 'press-7', online: true, at: Date.now() + 10_000 }])
    await units.spaces[0]?.settled()
    await redis.command('SAVE')
    // Taken back after the copy was made: must not be online again when the copy comes back.
    const gone = { device: 'press-7', online: false, at: Date.now() + 20_000 }
    await units.spaces[0]?.mergePresence([gone])
    await sources.oracle.mergePresence([gone])
    await load.run(50)
    await settle(units.spaces)
    const witness = openWitness(observer)

    await redis.kill()
    await redis.start()
    expect(observer.warm).toBe(false)
    expect(Number(await redis.command('DBSIZE'))).toBeGreaterThan(500)
    await until(() => observer.warm)
    await load.stop()
    await settle(units.spaces)
    const online = (await sources.oracle.counts()).online
    await until(async () => (await observer.counts()).online === online)
    expect((await all(observer)).map(withoutSeen)).toEqual((await all(sources.oracle)).map(withoutSeen))
    expect(await witness.stop()).toEqual([])
  })

  test('that knows fewer flushes of a unit than it answered has lost data, and is cold at the next one', async () => {
    const redis = held(await startRedis())
    const { units, sources } = await startFleet(redis.url, { devices: 100, readers: 0 })
    const [space] = units.spaces as [RedisSpace]
    const rebuild = await space.claimRebuild()
    await rebuild?.finish()
    await until(() => units.spaces.every(({ warm }) => warm))
    for (const key of (await redis.command('KEYS', '*meta')) as string[]) {
      const fields = (await redis.command('HKEYS', key)) as string[]
      const own = fields.find(field => field.startsWith(`f:${space.unit}`))
      if (own !== undefined) await redis.command('HSET', key, own, 0)
    }
    await space.merge([reading('press-1', Date.now(), 1)])
    await space.settled()
    expect(space.warm).toBe(false)
    const reader = openReader({ space, database: sources.database, view: sources.view, log: SILENT })
    await until(() => space.warm)
    await reader.close()
  })

  test('a node of a Cluster that comes back empty makes the whole cold, and is filled again [G4]', async () => {
    const cluster = await startCluster()
    opened.push(cluster)
    const { units, sources, load } = await startFleet(cluster.url, { devices: 2_000 })
    const observer = await openSpace(cluster.url, { unit: false, prefix: units.prefix })
    await until(() => observer.warm)
    const witness = openWitness(observer)
    const node = cluster.nodes[1] as TestRedis
    await node.kill()
    await load.run(50)
    expect(observer.warm).toBe(false)
    await node.start({ emptied: true })
    await until(() => observer.warm && units.spaces.every(({ warm }) => warm))
    await load.stop()
    await settle(units.spaces)
    expect(await all(observer)).toEqual(await all(sources.oracle))
    expect(await witness.stop()).toEqual([])
  })

  test('a replica that takes over from a master that died is not believed, and the whole is rebuilt [G4]', async () => {
    const cluster = await startCluster()
    opened.push(cluster)
    const [master] = cluster.nodes as [TestRedis]
    const replica = await cluster.addReplica(master)
    const { units, sources, load } = await startFleet(cluster.url, { devices: 1_000 })
    const observer = await openSpace(cluster.url, { unit: false, prefix: units.prefix })
    await until(() => observer.warm)
    const witness = openWitness(observer)
    await master.kill()
    await until(async () => String(await replica.command('ROLE')).startsWith('master'))
    expect(observer.warm).toBe(false)
    await load.run(20)
    await until(() => observer.warm && units.spaces.every(({ warm }) => warm))
    await load.stop()
    await settle(units.spaces)
    const online = (await sources.oracle.counts()).online
    await until(async () => (await observer.counts()).online === online)
    expect(await all(observer)).toEqual(await all(sources.oracle))
    expect(await witness.stop()).toEqual([])
  })

  test('a master that becomes a replica and keeps its connections is left for the new one at the same address [G4]', async () => {
    const [old, young] = [held(await startRedis()), held(await startRedis())]
    await young.command('REPLICAOF', '127.0.0.1', old.port)
    const targets = [old.port]
    const balancer = await openBalancer(targets)
    onTestFinished(() => balancer.close())
    const { units, sources, load } = await startFleet(`redis://127.0.0.1:${balancer.port}`, { devices: 100 })
    await until(() => units.spaces.every(({ warm }) => warm))
    await young.command('REPLICAOF', 'NO', 'ONE')
    await old.command('REPLICAOF', '127.0.0.1', young.port)
    await until(() => units.spaces.every(({ warm }) => !warm))
    targets[0] = young.port
    await load.run(20)
    await until(() => units.spaces.every(({ warm }) => warm))
    await load.stop()
    await settle(units.spaces)
    const [observer] = units.spaces as [RedisSpace]
    const online = (await sources.oracle.counts()).online
    await until(async () => (await observer.counts()).online === online)
    expect(await all(observer)).toEqual(await all(sources.oracle))
  })

  test('slots that move to another node under load cost a rebuild and no value, and watchers hear of all shards [G4]', async () => {
    const cluster = await startCluster()
    opened.push(cluster)
    const { units, sources, load } = await startFleet(cluster.url, { devices: 500 })
    const observer = await openSpace(cluster.url, { unit: false, prefix: units.prefix })
    const told = new Set<string>()
    observer.watch(10, devices => {
      for (const device of devices) told.add(device)
    })
    await until(() => observer.warm)
    const witness = openWitness(observer)
    const [to, from] = cluster.nodes as [TestRedis, TestRedis]
    await cluster.moveSlots(from, to)
    await load.run(50)
    await until(() => observer.warm && units.spaces.every(({ warm }) => warm))
    await load.stop()
    await settle(units.spaces)
    const online = (await sources.oracle.counts()).online
    await until(async () => (await observer.counts()).online === online)
    expect(await all(observer)).toEqual(await all(sources.oracle))
    expect(await witness.stop()).toEqual([])
    told.clear()
    const last = names.slice(0, 500).map(name => reading(name, Date.now() + 60_000, 'last'))
    await units.spaces[2]?.merge(last)
    await until(() => last.every(({ device }) => told.has(device)))
  })

  function held(redis: TestRedis): TestRedis {
    opened.push(redis)
    return redis
  }
})

/** Three units under load, each device online through one of them, and readers beside the first two. */
async function startFleet(url: string, { devices = DEVICES, readers = 2 } = {}) {
  const prefix = freshPrefix()
  const sources = openModelSources()
  const spaces = [await openSpace(url, { prefix }), await openSpace(url, { prefix }), await openSpace(url, { prefix })]
  const fleet = names.slice(0, devices)
  const base = Date.now() - 60_000
  await sources.append(fleet.map(device => reading(device, base, 0)))
  await sources.writeOut()
  for (const [at, space] of spaces.entries()) {
    const changes = fleet.filter((_, i) => i % 3 === at).map(device => ({ device, online: true, at: base + 20 }))
    await space.mergePresence(changes)
    await sources.oracle.mergePresence(changes)
  }
  for (const space of spaces.slice(0, readers)) {
    const reader = openReader({ space, database: sources.database, view: sources.view, log: SILENT })
    onTestFinished(() => reader.close())
  }
  if (readers > 0) await until(() => spaces.every(({ warm }) => warm))
  return { units: { spaces, prefix }, sources, load: openLoad(spaces, sources, fleet, base) }
}

/** Messages of any device through any unit, some of them late; durable first, merged then, as ingest does. */
function openLoad(spaces: readonly RedisSpace[], sources: ModelSources, fleet: readonly string[], base: number) {
  let sent = 0
  let stopped = false
  const ended = (async () => {
    while (!stopped) {
      await batch()
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  })()
  return {
    /** Resolves when so many more batches were sent. */
    run: async (batches: number) => {
      const goal = sent + batches
      await until(() => sent >= goal)
    },
    stop: async () => {
      stopped = true
      await ended
    },
  }

  async function batch(): Promise<void> {
    const number = sent + 1
    const messages = Array.from({ length: 50 }, (_, i) => {
      const device = fleet[(number * 7919 + i * 104_729) % fleet.length] as string
      const late = i % 5 === 0 ? 1_000 : 0
      return reading(device, base + 100 + number * 10 - late, number * 100 + i, { metric: `m${i % 3}` })
    })
    await sources.append(messages)
    await spaces[number % spaces.length]?.merge(messages)
    sent = number
  }
}

async function settle(spaces: readonly Space[]): Promise<void> {
  for (const space of spaces) await space.settled()
}

/** Reads all the time, and notes each value that was served as whole though a newer one had been before. */
function openWitness(space: Space) {
  const newest = new Map<string, number>()
  const older: string[] = []
  let stopped = false
  let reads = 0
  const ended = (async () => {
    while (!stopped) {
      const device = names[(reads++ * 31) % 500] as string
      try {
        const state = await space.get(device)
        if (space.warm) note(device, state?.metrics.map(({ metric, ts }) => [metric, ts] as const) ?? [])
      } catch {
        // Away: nothing was served.
      }
      await new Promise(resolve => setImmediate(resolve))
    }
  })()
  return {
    stop: async () => {
      stopped = true
      await ended
      expect(reads).toBeGreaterThan(20)
      return older
    },
  }

  function note(device: string, served: readonly (readonly [string, number])[]): void {
    const now = new Map(served)
    for (const [key, ts] of newest) {
      const [of, metric] = key.split(' ') as [string, string]
      if (of === device && (now.get(metric) ?? 0) < ts) older.push(`${key}: ${now.get(metric)} after ${ts}`)
    }
    for (const [metric, ts] of served) newest.set(`${device} ${metric}`, ts)
  }
}

function withoutSeen({ device, online, metrics }: Awaited<ReturnType<typeof all>>[number]) {
  return { device, online, metrics }
}
