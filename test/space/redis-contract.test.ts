/** The contract of the space, over a real Redis and over a real Cluster of three nodes. */
import { afterAll, beforeAll, describe } from 'vitest'
import { openRedisSpace } from '../../space/redis-space.ts'
import { spaceContract } from '../contracts/space-contract.ts'
import { redisHere, startCluster, startRedis, type TestCluster, type TestRedis } from '../servers/redis-server.ts'
import { spaceOptions } from './redis-spaces.ts'

describe.skipIf(!redisHere)('Redis', () => {
  let redis: TestRedis
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.stop())
  spaceContract('redis-space', ({ devicesMax }) => openRedisSpace(spaceOptions(redis.url, { devicesMax })), {
    runs: 60,
  })
})

describe.skipIf(!redisHere)('Redis Cluster', () => {
  let cluster: TestCluster
  beforeAll(async () => {
    cluster = await startCluster()
  })
  afterAll(() => cluster.stop())
  spaceContract(
    'redis-space in a Cluster',
    ({ devicesMax }) => openRedisSpace(spaceOptions(cluster.url, { devicesMax })),
    {
      runs: 30,
    },
  )
})
