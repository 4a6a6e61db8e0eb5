/**
 * Measures the space in Redis on this machine, with a redis-server of its own: `node dist/test/space/measure-redis.js [devices]`.
 * Prints what one update of a device with five metrics costs, of Redis and of this process, and how long a rebuild takes.
 */
import { performance } from 'node:perf_hooks'
import { pino } from 'pino'
import type { Message } from '../../model/message.ts'
import { openReader } from '../../readers/reader.ts'
import { ALL_SHARDS, shardOf } from '../../space/redis-keys.ts'
import { openRedisSpace } from '../../space/redis-space.ts'
import { startRedis, type TestRedis } from '../servers/redis-server.ts'
import { openModelSources } from './model-sources.ts'

const METRICS = ['temperature', 'pressure', 'vibration.x', 'vibration.y', 'rpm']
const DEVICES = Number(process.argv[2] ?? 100_000)
const BATCH = 64
const ROUNDS = 60
const log = pino({ level: 'silent' })

const names = Array.from({ length: DEVICES }, (_, at) => `press-${String(at).padStart(7, '0')}`)
const base = Date.now() - 3_600_000

const redis = await startRedis()
try {
  const rebuilt = await measureRebuild(redis)
  const updates = await measureUpdates(redis)
  process.stdout.write(
    `${JSON.stringify({ devices: DEVICES, metrics: METRICS.length, ...rebuilt, ...updates }, null, 2)}\n`,
  )
} finally {
  await redis.stop()
}

async function measureRebuild(server: TestRedis) {
  const sources = openModelSources()
  for (let at = 0; at < names.length; at += 5_000)
    await sources.append(names.slice(at, at + 5_000).map(name => fiveMetrics(name, 0)))
  await sources.writeOut()
  const space = await openRedisSpace(options(server))
  const [since, cpu] = [performance.now(), await redisCpu(server)]
  const reader = openReader({ space, database: sources.database, view: sources.view, log })
  while (!space.warm) await new Promise(resolve => setTimeout(resolve, 5))
  const rebuildMs = Math.round(performance.now() - since)
  const redisMs = Math.round(((await redisCpu(server)) - cpu) / 1e3)
  const { devices } = await space.counts()
  if (devices !== DEVICES) throw new Error(`${devices} devices came back.`)
  await reader.close()
  await space.close()
  return { rebuildMs, rebuildRedisMs: redisMs, redisBytesPerDevice: Math.round((await usedMemory(server)) / DEVICES) }
}

/** Each round updates `BATCH` devices of each shard, once, and waits for it: so each script has just so many. */
async function measureUpdates(server: TestRedis) {
  const space = await openRedisSpace(options(server))
  const byShard = new Map<number, string[]>(ALL_SHARDS.map(shard => [shard, []]))
  for (const name of names) byShard.get(shardOf(name))?.push(name)
  const results: Record<string, number> = {}
  for (const [kind, late] of [
    ['newer', 0],
    ['late30', 0.3],
  ] as const) {
    let updates = 0
    const [cpu, own, since] = [await redisCpu(server), process.cpuUsage(), performance.now()]
    for (let round = 1; round <= ROUNDS; round++) {
      const messages = [...byShard.values()].flatMap(ids =>
        Array.from({ length: BATCH }, (_, i) => {
          const isLate = (i * 7 + round) % 10 < late * 10
          return fiveMetrics(
            ids[(round * BATCH + i) % ids.length] as string,
            isLate ? -1_000 : round * 1_000 + 10_000_000 * late,
          )
        }),
      )
      await space.merge(messages)
      await space.settled()
      updates += messages.length
    }
    const { user, system } = process.cpuUsage(own)
    results[`${kind}RedisMicrosPerUpdate`] = tenths(((await redisCpu(server)) - cpu) / updates)
    results[`${kind}NodeMicrosPerUpdate`] = tenths((user + system) / updates)
    results[`${kind}UpdatesPerSecond`] = Math.round(updates / ((performance.now() - since) / 1e3))
  }
  await space.close()
  return results
}

function fiveMetrics(device: string, at: number): Message {
  const ts = (base + at) * 1000
  const receivedAt = ts + 15_123
  const readings = METRICS.map((metric, i) => ({ metric, ts, receivedAt, value: at * 0.1 + i, sentTs: ts }))
  return { device, receivedAt, readings }
}

function options({ url }: TestRedis) {
  return { url, prefix: 'measure:', ca: null, devicesMax: 10_000_000, unit: true, log }
}

/** µs of the server's main thread. */
async function redisCpu(server: TestRedis): Promise<number> {
  const info = String(await server.command('INFO', 'cpu'))
  const part = (name: string) => Number(new RegExp(`${name}:([\\d.]+)`).exec(info)?.[1] ?? 0)
  return (part('used_cpu_user_main_thread') + part('used_cpu_sys_main_thread')) * 1e6
}

async function usedMemory(server: TestRedis): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(String(await server.command('INFO', 'memory')))?.[1] ?? 0)
}

function tenths(value: number): number {
  return Math.round(value * 10) / 10
}
