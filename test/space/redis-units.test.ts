/** Several processes on one space: who is online, who repairs, who rebuilds, and which reading wins. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { openReader } from '../../readers/reader.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import { openRedisSpace } from '../../space/redis-space.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { given, until } from '../waits.ts'
import { all, openModelSources } from './model-sources.ts'
import { freshPrefix, openSpace, reading, SILENT, spaceOptions } from './redis-spaces.ts'
import { startUnit } from './unit-child.ts'

const LEASE_MS = 5_000

describe.skipIf(!redisHere)('several units on one Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())

  test('three that update the same 500 devices out of order, with connections cut, leave no wrong value [G4]', async () => {
    const prefix = freshPrefix()
    const units = await Promise.all([0, 1, 2].map(() => openSpace(redis.url, { prefix })))
    const oracle = openMemorySpace({ devicesMax: 1_000 })
    const base = Date.now()
    const messages = Array.from({ length: 30_000 }, (_, i) => {
      const at = (i * 7919) % 30_000
      // Few times, so that many meet another of the same moment.
      const ts = base + (at % 200)
      return reading(`d${at % 500}`, ts, [at % 97, String(at % 89), at % 2 === 0, null][at % 4] ?? null, {
        metric: `m${at % 3}`,
        receivedAt: ts + (at % 2),
      })
    })
    await oracle.merge(messages)
    for (let from = 0; from < messages.length; from += 60) {
      for (const [at, unit] of units.entries()) {
        await unit.merge(messages.slice(from + at * 20, from + at * 20 + 20))
      }
      if (from % 6_000 === 3_000) await redis.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      if (from % 600 === 0) await Promise.all(units.map(unit => unit.settled().catch(() => {})))
    }
    for (const unit of units) await until(() => unit.settled().then(yes, no))
    const [first] = units
    expect(first && (await all(first))).toEqual(await all(oracle))
  })

  test('a unit that is killed takes its devices offline with its lease, everywhere and in every count', async () => {
    const prefix = freshPrefix()
    const other = await openSpace(redis.url, { prefix })
    const child = await startUnit(redis.url, prefix)
    const now = Date.now()
    await child.ask({ ask: 'merge', messages: [reading('a', now, 1), reading('a b', now, 1)] })
    await child.ask({ ask: 'presence', changes: ['a', 'a b'].map(device => ({ device, online: true, at: now })) })
    await other.merge([reading('c', now, 1)])
    await other.mergePresence([{ device: 'c', online: true, at: now }])
    expect(await other.counts()).toEqual({ devices: 3, online: 3 })
    expect((await online(other, true)).join()).toBe('a,a b,c')

    await child.kill()
    await until(async () => (await other.get('a'))?.online === false)
    expect(await other.counts()).toEqual({ devices: 3, online: 1 })
    expect((await online(other, true)).join()).toBe('c')
    expect((await online(other, false)).join()).toBe('a,a b')
  })

  test('a lost unit is given out again and again, to one process at a time, and watchers are told of its devices', async () => {
    const prefix = freshPrefix()
    const [first, second] = [
      await openSpace(redis.url, { prefix, unit: false }),
      await openSpace(redis.url, { prefix, unit: false }),
    ]
    const child = await startUnit(redis.url, prefix)
    const now = Date.now()
    await child.ask({ ask: 'merge', messages: [reading('a', now, 1)] })
    await child.ask({ ask: 'presence', changes: [{ device: 'a', online: true, at: now }] })
    const told = new Set<string>()
    second.watch(1, devices => {
      for (const device of devices) told.add(device)
    })
    expect(await first.claimLostUnits()).toBeNull()
    const before = Date.now()
    await child.kill()

    const lost = await given(first.claimLostUnits)
    expect(Date.now() - before).toBeGreaterThan(LEASE_MS - 4_000)
    expect(lost.units).toEqual([child.unit])
    expect(before - lost.mergedThrough).toBeLessThan(10_000)
    await until(() => told.has('a'))
    expect(await second.claimLostUnits()).toBeNull()
    expect((await first.claimLostUnits())?.mergedThrough).toBe(lost.mergedThrough)
    await lost.merged(before + 60_000)
    expect(await first.claimLostUnits()).toMatchObject({ units: [child.unit], mergedThrough: before + 60_000 })
    expect(await second.claimLostUnits()).toBeNull()
  })

  test('a unit that is lost for an hour is forgotten, and so is one of more than 200 at once [G5]', async () => {
    const prefix = freshPrefix()
    const space = await openSpace(redis.url, { prefix, unit: false })
    const now = Date.now()
    const lose = (tag: string, since: number) => redis.command('HSET', `${prefix}{units}lost`, tag, `${since} 0 `)
    await lose('old.0', now - 3_600_000)
    await lose('new.0', now)
    await (await given(space.claimLostUnits)).merged(now)
    expect(await redis.command('HKEYS', `${prefix}{units}lost`)).toEqual(['new.0'])
    expect(await redis.command('HKEYS', `${prefix}{units}merged-through`)).toEqual(['new.0'])
    for (let at = 0; at < 200; at++) await lose(`u${at}.0`, now)
    await (await given(space.claimLostUnits)).merged(now)
    expect(await space.claimLostUnits()).toBeNull()
    expect(await redis.command('EXISTS', `${prefix}{units}lost`, `${prefix}{units}merged-through`)).toBe(0)
  })

  test('a unit that was lost before it heard of its first lease does not live by it', async () => {
    const keys = ['leases', 'merged-through', 'lost', 'marks'].map(key => `${freshPrefix()}{units}${key}`)
    const script = readFileSync('space/lease.lua', 'utf8')
    const begin = (tag: string) =>
      redis.command('EVAL', script, 4, ...keys, tag, LEASE_MS, Date.now(), '1', '', 'a process', 10_000, 'a process 2')
    await redis.command('HSET', keys[2] as string, 'u.0', `${Date.now()} 0 `)
    expect(await begin('u.0')).toEqual([0])
    expect(await begin('u.1')).toEqual([1, 'u.1'])
  })

  test('what a killed unit made durable and had not merged, a reader brings from the log [G4]', async () => {
    const prefix = freshPrefix()
    const sources = openModelSources()
    const space = await openSpace(redis.url, { prefix })
    const reader = openReader({ space, database: sources.database, view: sources.view, log: SILENT })
    onTestFinished(() => reader.close())
    await until(() => space.warm)
    const child = await startUnit(redis.url, prefix)
    const now = Date.now()
    await sources.append([reading('a', now, 1)])
    await child.ask({ ask: 'merge', messages: [reading('a', now, 1)] })
    // Durable, and the unit ends before it merges it.
    await sources.append([reading('a', now + 5, 2), reading('b', now + 5, 3)])
    await child.kill()
    await until(async () => (await space.get('b')) !== null)
    expect(await all(space)).toEqual(await all(sources.oracle))
    expect(space.warm).toBe(true)
  })

  test('a unit that closes leaves nothing to repair, and its devices offline', async () => {
    const prefix = freshPrefix()
    const other = await openSpace(redis.url, { prefix })
    const child = await startUnit(redis.url, prefix)
    const now = Date.now()
    await child.ask({ ask: 'merge', messages: [reading('a', now, 1)] })
    await child.ask({ ask: 'presence', changes: [{ device: 'a', online: true, at: now }] })
    await child.ask({ ask: 'close' })
    await until(async () => (await other.get('a'))?.online === false)
    expect(await redis.command('ZCARD', `${prefix}{units}leases`)).toBe(1)
    expect(await redis.command('HLEN', `${prefix}{units}merged-through`)).toBe(1)
    expect(await other.claimLostUnits()).toBeNull()
  })

  test('a unit that ends while an append is in doubt keeps its lease until it ends, and is repaired from before the append', async () => {
    const prefix = freshPrefix()
    const other = await openSpace(redis.url, { prefix, unit: false })
    const unit = await openRedisSpace(spaceOptions(redis.url, { prefix }))
    const now = Date.now()
    const inDoubtSince = now - 3_600_000
    unit.trackUnmerged(() => inDoubtSince)
    await unit.merge([reading('a', now, 1)])
    await unit.mergePresence([{ device: 'a', online: true, at: now }])
    const heard = async () => Number(await redis.command('HGET', `${prefix}{units}merged-through`, `${unit.unit}.0`))
    await until(async () => (await heard()) === inDoubtSince)
    await unit.close()
    await until(async () => (await other.get('a'))?.online === false)
    const lost = await given(other.claimLostUnits)
    expect(lost).toMatchObject({ units: [unit.unit], mergedThrough: inDoubtSince })
  })

  test('a unit that ends with readings that were let go keeps its lease until it ends, and is repaired', async () => {
    const prefix = freshPrefix()
    const unit = await openRedisSpace(spaceOptions(redis.url, { prefix }))
    await unit.merge([reading('a', 1_000, 1)])
    await unit.settled()
    const [key = ''] = (await redis.command('KEYS', `${prefix}*d:a`)) as string[]
    await redis.command('SET', key, 'no state of ours')
    await unit.merge([reading('a', 2_000, 2)])
    await unit.close()
    expect(await redis.command('ZRANGE', `${prefix}{units}leases`, 0, -1)).toEqual([`${unit.unit}.0`])
  })

  test('a unit that was frozen past its lease has its devices online again when it wakes, repaired or not', async () => {
    const prefix = freshPrefix()
    const other = await openSpace(redis.url, { prefix, unit: false })
    const child = await startUnit(redis.url, prefix)
    const now = Date.now()
    await child.ask({ ask: 'merge', messages: [reading('a', now, 1)] })
    await child.ask({ ask: 'presence', changes: [{ device: 'a', online: true, at: now }] })
    child.freeze()
    await until(async () => (await other.get('a'))?.online === false)
    child.thaw()
    await until(async () => (await other.get('a'))?.online === true)
    child.freeze()
    await until(async () => (await other.get('a'))?.online === false)
    const lost = await given(other.claimLostUnits)
    await lost.merged(Date.now())
    child.thaw()
    await until(async () => (await other.get('a'))?.online === true)
    await (await given(other.claimLostUnits)).merged(Date.now())
    expect(await other.claimLostUnits()).toBeNull()
    expect(await other.counts()).toEqual({ devices: 1, online: 1 })
  })

  test('a unit that was frozen past its lease, and was repaired meanwhile, costs no rebuild when it wakes', async () => {
    const prefix = freshPrefix()
    const other = await openSpace(redis.url, { prefix, unit: false })
    const child = await startUnit(redis.url, prefix)
    const now = Date.now()
    await child.ask({ ask: 'merge', messages: [reading('a', now, 1)] })
    await child.ask({ ask: 'presence', changes: [{ device: 'a', online: true, at: now }] })
    await (await given(other.claimRebuild)).finish()
    expect(other.warm).toBe(true)
    child.freeze()
    await (await given(other.claimLostUnits)).merged(Date.now())
    child.thaw()
    // One that was frozen in the middle of a command has lost its connection; what it merges is kept until it has another.
    const asked = child.ask({ ask: 'merge', messages: [reading('a', now + 1, 2)] }).catch(() => null)
    const epochs = new Set<unknown>()
    // Under its next tag it has told its device, and begun its numbers anew.
    await until(async () => {
      epochs.add(await redis.command('HGET', `${prefix}{s10}meta`, 'e'))
      return (await other.get('a'))?.online === true
    })
    await asked
    await until(async () => (await other.get('a'))?.metrics[0]?.value === 2)
    expect(await other.get('a')).toMatchObject({ online: true })
    // Two heartbeats of the unit that woke.
    const lived = performance.now() + 2_500
    await until(() => {
      expect(other.warm).toBe(true)
      return performance.now() > lived
    })
    expect(epochs.size).toBe(1)
  })

  test('of units that were repaired, the flush numbers of the last 200 are kept [G5]', async () => {
    const prefix = freshPrefix()
    const space = await openSpace(redis.url, { prefix, unit: false })
    for (let at = 0; at < 210; at++) {
      await redis.command('HSET', `${prefix}{units}lost`, `u${at}.0`, `${Date.now() - 3_600_000} 0 `)
      await redis.command('HSET', `${prefix}{s10}meta`, `f:u${at}.0`, at)
      await (await given(space.claimLostUnits)).merged(Date.now())
    }
    const fields = (await redis.command('HKEYS', `${prefix}{s10}meta`)) as string[]
    expect(fields.filter(field => field.startsWith('f:u'))).toHaveLength(200)
    expect(fields).toContain('f:u209.0')
    expect(fields).not.toContain('f:u9.0')
    expect(await redis.command('ZCARD', `${prefix}{units}repaired`)).toBe(200)
  })

  test('when the process that rebuilds dies, another one has the right within its lock, and only one', async () => {
    const prefix = freshPrefix()
    const [first, second] = [await openSpace(redis.url, { prefix }), await openSpace(redis.url, { prefix })]
    const child = await startUnit(redis.url, prefix)
    expect(await child.ask({ ask: 'begin rebuild' })).toBe(true)
    expect(await first.claimRebuild()).toBeNull()
    await child.kill()
    const right = await given(first.claimRebuild)
    expect(await second.claimRebuild()).toBeNull()
    await right.finish()
    await until(() => second.warm)
  })

  test('a process that froze while it rebuilt and wakes after another one has begun cannot finish', async () => {
    const prefix = freshPrefix()
    const other = await openSpace(redis.url, { prefix })
    const child = await startUnit(redis.url, prefix)
    expect(await child.ask({ ask: 'begin rebuild' })).toBe(true)
    child.freeze()
    const right = await given(other.claimRebuild)
    child.thaw()
    const refused = await given(() =>
      child.ask({ ask: 'finish rebuild' }).then(
        () => 'finished',
        ({ message }: Error) => (message.includes('away') ? null : message),
      ),
    )
    expect(refused).toMatch(/begin anew/)
    expect(other.warm).toBe(false)
    expect(right.lost.aborted).toBe(false)
    await right.finish()
    expect(other.warm).toBe(true)
  })

  test('a rebuild during which any process let readings go cannot be finished [G5]', async () => {
    const prefix = freshPrefix()
    const [rebuilding, other] = [await openSpace(redis.url, { prefix }), await openSpace(redis.url, { prefix })]
    await other.merge([reading('a', 1_000, 1)])
    await other.settled()
    const right = await given(rebuilding.claimRebuild)
    const [key = ''] = (await redis.command('KEYS', `${prefix}*d:a`)) as string[]
    await redis.command('SET', key, 'no state of ours')
    await other.merge([reading('a', 2_000, 2)])
    await other.settled()
    const lost = new Promise<void>(resolve => right.lost.addEventListener('abort', () => resolve()))
    await lost
    await expect(right.finish()).rejects.toMatchObject({ fate: 'retry' })
    await (await given(rebuilding.claimRebuild)).finish()
    expect(rebuilding.warm).toBe(true)
  })

  test('a rebuild is lost when the space is emptied under it, and cannot be finished', async () => {
    const space = await openSpace(redis.url)
    const right = await space.claimRebuild()
    const lost = new Promise<void>(resolve => right?.lost.addEventListener('abort', () => resolve()))
    await redis.command('FLUSHALL')
    await lost
    await expect(right?.finish()).rejects.toMatchObject({ fate: 'retry' })
    expect(space.warm).toBe(false)
  })
})

async function online(space: { page: Awaited<ReturnType<typeof openSpace>>['page'] }, is: boolean): Promise<string[]> {
  const states = await space.page({ after: null, limit: 100, search: null, online: is })
  return states.map(({ device }) => device)
}

const yes = () => true
const no = () => false
