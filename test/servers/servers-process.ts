/**
 * A real Kafka and a real Redis as a process of its own, for whoever measures with them: it starts both, tells where they
 * are, or what is missing here, and ends them with its parent.
 */
import type { ServersMessage } from '../../bench/servers-messages.ts'
import { startKafka } from './kafka-server.ts'
import { startRedis } from './redis-server.ts'
import { describe, NEEDS } from './setup.ts'

const missing = NEEDS.filter(({ name, isHere }) => ['Redis', 'Kafka'].includes(name) && !isHere)
if (missing.length > 0) {
  process.send?.({ kind: 'missing', what: describe(missing) } satisfies ServersMessage)
  process.disconnect()
} else {
  await start()
}

async function start(): Promise<void> {
  const [kafka, redis] = await Promise.all([startKafka(), startRedis()])
  process.once('disconnect', () => void stop())
  process.once('SIGTERM', () => void stop())
  const message: ServersMessage = {
    kind: 'started',
    kafka: { brokers: kafka.brokers, pid: kafka.pid },
    redis: { url: redis.url, pid: redis.pid },
  }
  // The parent has gone meanwhile.
  if (!process.connected) await stop()
  else process.send?.(message)

  async function stop(): Promise<void> {
    await Promise.all([kafka.stop(), redis.stop()])
    process.exit(0)
  }
}
