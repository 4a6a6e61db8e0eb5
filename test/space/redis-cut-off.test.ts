/** A unit that alone does not reach Redis, or a part of it, while everybody else does: what it takes is not forgotten. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { openReader } from '../../readers/reader.ts'
import { shardOf } from '../../space/redis-keys.ts'
import { redisHere, startCluster, startRedis, type TestCluster, type TestRedis } from '../servers/redis-server.ts'
import { given, until } from '../waits.ts'
import { all, openModelSources } from './model-sources.ts'
import { freshPrefix, openSpace, reading, SILENT } from './redis-spaces.ts'

describe.skipIf(!redisHere)('a unit that alone is cut off', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())

  test('what it makes durable is in the state also after the first repair, and it is lost until it is back [G4]', async () => {
    const prefix = freshPrefix()
    const [sources, space] = [openModelSources(), await openSpace(redis.url, { prefix })]
    const reader = openReader({ space, database: sources.database, view: sources.view, log: SILENT })
    onTestFinished(() => reader.close())
    await until(() => space.warm)
    await letIn(redis)
    const unit = await openSpace(urlOf(redis), { prefix })
    const now = Date.now()
    const take = async (value: number) => {
      const message = reading('a', now + value, value)
      await sources.append([message])
      await unit.merge([message])
    }
    const valueIs = (value: number) => async () => (await space.get('a'))?.metrics[0]?.value === value
    await unit.mergePresence([{ device: 'a', online: true, at: now }])
    await take(1)
    await until(valueIs(1))

    await shutOut(redis)
    await take(2)
    await until(valueIs(2))
    // After the end of the log that this repair had noted.
    await take(3)
    await until(valueIs(3))
    expect(space.warm).toBe(true)
    expect((await space.get('a'))?.online).toBe(false)
    expect(await redis.command('HKEYS', `${prefix}{units}lost`)).toContain(`${unit.unit}.0`)

    await letIn(redis)
    await until(async () => (await redis.command('EXISTS', `${prefix}{units}lost`)) === 0)
    await until(async () => (await space.get('a'))?.online === true)
    expect(await all(space)).toMatchObject([{ metrics: [{ value: 3 }] }])
  })

  test('from some shards makes the whole cold for everybody, until they take what it holds', async () => {
    const prefix = freshPrefix()
    const space = await openSpace(redis.url, { prefix })
    await (await given(space.claimRebuild)).finish()
    await letIn(redis)
    const unit = await openSpace(urlOf(redis), { prefix })
    await until(() => unit.warm)
    // Of the shards it reaches all but five, whose tags begin with s1.
    await redis.command('ACL', 'SETUSER', 'tank', 'resetkeys', `~${prefix}{units}*`, `~${prefix}{s[^1]*`)
    await unit.merge([reading(deviceOf(0), 1_000, 1)])
    await until(() => !space.warm)
    await letIn(redis)
    // One that was refused a moment before rejects.
    await until(() =>
      unit.settled().then(
        () => true,
        () => false,
      ),
    )
    await until(async () => {
      const right = await space.claimRebuild()
      await right?.finish().catch(() => {})
      return space.warm && unit.warm
    })
    expect(await all(space)).toHaveLength(1)
  })
})

describe.skipIf(!redisHere)('a unit that alone is cut off from a node of a Cluster', () => {
  let cluster: TestCluster
  beforeAll(async () => {
    cluster = await startCluster()
  })
  afterAll(() => cluster.stop())

  test('makes the whole cold for everybody, though the shards that it reaches are as they were', async () => {
    const prefix = freshPrefix()
    for (const node of cluster.nodes) await letIn(node)
    const space = await openSpace(cluster.url, { prefix })
    await (await given(space.claimRebuild)).finish()
    const unit = await openSpace(cluster.nodes.map(urlOf).join(), { prefix })
    await until(() => unit.warm)
    const [first] = cluster.nodes
    await shutOut(first as TestRedis)
    for (let shard = 0; shard < 16; shard++) await unit.merge([reading(deviceOf(shard), 1_000, 1)])
    await until(() => !space.warm)
  })
})

/** The user of the unit, who may do all that a unit needs. */
async function letIn(redis: TestRedis): Promise<void> {
  await redis.command('ACL', 'SETUSER', 'tank', 'on', '>pw', 'resetkeys', '~*', '&*', '+@all', '-@dangerous', '+info')
}

async function shutOut(redis: TestRedis): Promise<void> {
  await redis.command('ACL', 'SETUSER', 'tank', 'off')
  await redis.command('CLIENT', 'KILL', 'USER', 'tank')
}

function urlOf({ url }: TestRedis): string {
  return url.replace('//', '//tank:pw@')
}

function deviceOf(shard: number): string {
  for (let at = 0; ; at++) if (shardOf(`d${at}`) === shard) return `d${at}`
}
