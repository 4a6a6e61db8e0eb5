/** Readers: a space is rebuilt whenever it is not whole, from ClickHouse and the log, and as often as it takes. */
import { setTimeout as pause } from 'node:timers/promises'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import { openReader } from '../../readers/reader.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import type { Space } from '../../space/space.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { all, type ModelSources, openModelSources } from '../space/model-sources.ts'
import { openSpace, reading } from '../space/redis-spaces.ts'
import { timed, until } from '../waits.ts'

const log = pino({ level: 'silent' })

describe('a reader of a space in memory', () => {
  test('brings what is in ClickHouse and what is only in the log [G4]', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1), reading('b', 1_000, 2)])
    await sources.writeOut()
    await sources.append([reading('a', 2_000, 3), reading('c', 2_000, 4)])
    read(space, sources)
    await until(() => space.warm)
    expect(await all(space)).toEqual(await all(sources.oracle))
  })

  test('a device was last heard of when its last reading came, though that one was late; and who is online stays so', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1, { receivedAt: 1_010 }), reading('a', 500, 2, { receivedAt: 9_000 })])
    await sources.append([reading('b', 1_000, 1, { receivedAt: 1_010 })])
    await sources.writeOut()
    // It connected after the start, and before its newest reading was rebuilt.
    await space.mergePresence([{ device: 'a', online: true, at: 2_000 }])
    read(space, sources)
    await until(() => space.warm)
    expect(await space.get('a')).toMatchObject({
      online: true,
      lastSeen: 9_000_000,
      metrics: [{ ts: 1_000_000, value: 1 }],
    })
    expect(await space.get('b')).toMatchObject({ online: false, lastSeen: 1_010_000 })
  })

  test('tries again until ClickHouse answers, and is not warm before', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1)])
    await sources.writeOut()
    let tries = 0
    const latest = () => {
      if (++tries < 3) throw new SurgetankError('database_unavailable', 'It is away.')
      return sources.database.latest()
    }
    const database = { ...sources.database, latest }
    read(space, { ...sources, database })
    await until(() => tries === 2)
    expect(space.warm).toBe(false)
    await until(() => space.warm)
    expect(tries).toBe(3)
    expect((await space.get('a'))?.metrics[0]?.value).toBe(1)
  })

  test('a replica of ClickHouse that lags is asked for what the log no longer holds only when it has caught up [G4]', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1)])
    await sources.writeOut()
    let hasCaughtUp = false
    const catchUp = async () => {
      hasCaughtUp = true
    }
    async function* latest() {
      if (hasCaughtUp) yield* sources.database.latest()
    }
    read(space, { ...sources, database: { ...sources.database, catchUp, latest } })
    await until(() => space.warm)
    expect(await all(space)).toEqual(await all(sources.oracle))
  })

  test('a rebuild that fails on the way leaves no query open', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1)])
    await sources.writeOut()
    let [begun, ended] = [0, 0]
    async function* latest() {
      begun++
      try {
        yield* sources.database.latest()
      } finally {
        ended++
      }
    }
    const merge = async (messages: Parameters<Space['merge']>[0]) => {
      if (begun === 1) throw new SurgetankError('space_unavailable', 'It is away.')
      await space.merge(messages)
    }
    read(
      {
        ...space,
        merge,
        get warm() {
          return space.warm
        },
      },
      { ...sources, database: { ...sources.database, latest } },
    )
    await until(() => space.warm)
    expect({ begun, ended }).toEqual({ begun: 2, ended: 2 })
  })

  test('for lost units it reads each chunk of the log once, and anew only when one of them was lost earlier [G4]', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await (await space.claimRebuild())?.finish()
    const reads: number[] = []
    const view = {
      ...sources.view,
      read: (...args: Parameters<typeof sources.view.read>) => {
        reads.push(args[1])
        return sources.view.read(...args)
      },
    }
    let lost = { units: ['u'], mergedThrough: Date.now(), merged: async () => {} }
    await sources.append([reading('a', 1_000, 1)])
    read({ ...space, warm: true, claimLostUnits: async () => lost }, { ...sources, view })
    await until(() => reads.length === 1)
    await sources.append([reading('a', 2_000, 2)])
    await until(() => reads.length === 2)
    lost = { ...lost, units: ['u', 'v'], mergedThrough: lost.mergedThrough - 1 }
    await until(() => reads.length === 3)
    expect(reads).toEqual([0, 1, 0])
    await until(async () => (await space.get('a'))?.metrics[0]?.value === 2)
  })

  test('a repair that takes long holds up no rebuild', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1)])
    let endRepair: (() => void) | null = null
    const merged = () =>
      new Promise<void>(resolve => {
        endRepair = resolve
      })
    const lost = { units: ['u'], mergedThrough: Date.now(), merged }
    const warmed = {
      ...space,
      claimLostUnits: async () => lost,
      claimRebuild: async () => (endRepair === null ? null : space.claimRebuild()),
      get warm() {
        return space.warm
      },
    }
    read(warmed, sources)
    await until(() => space.warm)
    ;(endRepair as (() => void) | null)?.()
  })

  test('while ClickHouse does not answer, the log is left alone, and it is asked ever more seldom', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    await sources.append([reading('a', 1_000, 1)])
    const asked: number[] = []
    const ping = async () => asked.push(performance.now()) > 4
    let reads = 0
    const view = {
      ...sources.view,
      read: (...args: Parameters<typeof sources.view.read>) => {
        reads++
        return sources.view.read(...args)
      },
    }
    read(space, { view, database: { ...sources.database, ping } })
    await until(() => asked.length === 4)
    expect(reads).toBe(0)
    expect(space.warm).toBe(false)
    await until(() => space.warm)
    expect(reads).toBe(1)
    const pauses = asked.slice(1).map((at, i) => at - (asked[i] ?? 0))
    for (const [at, ms] of pauses.entries()) expect(ms).toBeGreaterThan(500 * 2 ** at - 10)
    expect((await space.get('a'))?.metrics[0]?.value).toBe(1)
  })

  test('closes at once while ClickHouse does not even answer whether it is there', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    let asked = false
    const ping = () => {
      asked = true
      return new Promise<never>(() => {})
    }
    const reader = openReader({ space, view: sources.view, database: { ...sources.database, ping }, log })
    await until(() => asked)
    expect((await timed(() => reader.close())).ms).toBeLessThan(5_000)
  })

  test('closes at once while ClickHouse hangs', async () => {
    const [sources, space] = [openModelSources(), openMemorySpace({ devicesMax: 100 })]
    let asked = false
    const latest = (signal?: AbortSignal) => ({
      [Symbol.asyncIterator]: () => ({
        next: () => {
          asked = true
          return new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
        },
      }),
    })
    const reader = openReader({ space, view: sources.view, database: { ...sources.database, latest }, log })
    await until(() => asked)
    expect((await timed(() => reader.close())).ms).toBeLessThan(5_000)
    expect(space.warm).toBe(false)
  })
})

describe.skipIf(!redisHere)('a reader of a space in Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())

  test('begins anew when the space is emptied while it rebuilds [G4]', async () => {
    const [sources, space] = [openModelSources(), await openSpace(redis.url)]
    await sources.append(Array.from({ length: 300 }, (_, at) => reading(`d${at}`, 1_000, at)))
    await sources.writeOut()
    await sources.append([reading('d1', 2_000, 'newer')])
    let tries = 0
    async function* latest() {
      const isFirst = ++tries === 1
      for await (const page of sources.database.latest()) {
        yield page
        if (!isFirst) continue
        await space.settled()
        await redis.command('FLUSHALL')
      }
    }
    read(space, { ...sources, database: { ...sources.database, latest } })
    await until(() => space.warm)
    expect(tries).toBe(2)
    expect(await all(space)).toEqual(await all(sources.oracle))
  })

  test('of two, one rebuilds and the other waits', async () => {
    const sources = openModelSources()
    const prefix = `pair-${process.pid}:`
    const [first, second] = [await openSpace(redis.url, { prefix }), await openSpace(redis.url, { prefix })]
    await sources.append([reading('a', 1_000, 1)])
    await sources.writeOut()
    let [underWay, most] = [0, 0]
    async function* latest() {
      most = Math.max(most, ++underWay)
      // A while, in which the other asks again and again.
      await pause(1_500)
      yield* sources.database.latest()
      underWay--
    }
    for (const space of [first, second]) read(space, { ...sources, database: { ...sources.database, latest } })
    await until(() => first.warm && second.warm)
    expect(most).toBe(1)
    expect((await second.get('a'))?.metrics[0]?.value).toBe(1)
  })
})

function read(space: Space, { view, database }: Pick<ModelSources, 'view' | 'database'>): void {
  const reader = openReader({ space, view, database, log })
  onTestFinished(() => reader.close())
}
