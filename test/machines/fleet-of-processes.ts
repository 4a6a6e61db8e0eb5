/**
 * Surgetank on several machines, as processes of this one: a real Kafka, a real Redis, the ClickHouse engine behind HTTP, two
 * brokers behind a balancer, two writers, a reader, the API. Each can be killed and comes back on its ports.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePorts, type SystemPorts } from '../crash/system.ts'
import { startClickHouse } from '../servers/clickhouse-server.ts'
import { type KafkaServer, startKafka } from '../servers/kafka-server.ts'
import { startRedis, type TestRedis } from '../servers/redis-server.ts'
import { type Balancer, openBalancer } from './balancer.ts'

export const PARTS = [
  'broker-a',
  'broker-b',
  'writer-a',
  'writer-b',
  'reader',
  'api',
  'kafka',
  'redis',
  'clickhouse',
] as const
export type PartName = (typeof PARTS)[number]

export interface Machines {
  /** The balancer's, the API's and ClickHouse's. */
  readonly ports: SystemPorts
  /** Settings that every role is given. */
  readonly env: Readonly<Record<string, string>>
  readonly redis: TestRedis
  readonly kafka: KafkaServer
  pidOf(part: PartName): number
  /** Where a broker listens itself, past the balancer. */
  mqttPortOf(part: PartName): number
  /** `/readyz` of a role. */
  ready(part: PartName): Promise<{ readonly status: number; readonly body: unknown }>
  metrics(part: PartName): Promise<string>
  /** SIGKILL, and a start on the same ports; resolves when it serves again. Redis comes back empty. */
  killAndRestart(part: PartName): Promise<void>
  /** SIGSTOP, and SIGCONT after a while. */
  freeze(part: PartName, ms: number): Promise<void>
  /** SIGTERM; resolves with the exit code. */
  stop(part: PartName): Promise<number | null>
  /** What the roles wrote to stderr. */
  output(): string
  close(): Promise<void>
}

interface Role {
  readonly words: readonly string[]
  readonly ports: { readonly mqtt: number; readonly http: number }
  child: ChildProcess
}

const READY_MS_MAX = 120_000

export async function startMachines(more: Readonly<Record<string, string>> = {}): Promise<Machines> {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-machines-'))
  const [kafka, redis] = await Promise.all([startKafka(), startRedis()])
  const clickhouse = await startClickHouse(dir)
  const env = {
    KAFKA_BROKERS: kafka.brokers,
    REDIS_URL: redis.url,
    ...clickhouse.env,
    SURGETANK_LOG_LEVEL: 'warn',
    ...more,
  }
  let output = ''
  const roles = new Map<PartName, Role>()
  for (const part of PARTS.slice(0, 6)) {
    const { mqtt, http } = await freePorts()
    const words = [part.split('-')[0] ?? '']
    roles.set(part, { words, ports: { mqtt, http }, child: launch(words, { mqtt, http }) })
  }
  const balancer: Balancer = await openBalancer(['broker-a', 'broker-b'].map(part => role(part as PartName).ports.mqtt))
  await Promise.all([...roles.keys()].map(untilReady))
  const ports = { mqtt: balancer.port, http: role('api').ports.http, sql: clickhouse.sqlPort }
  return {
    ports,
    env,
    redis,
    kafka,
    pidOf,
    mqttPortOf,
    ready,
    metrics,
    killAndRestart,
    freeze,
    stop,
    output: () => output,
    close,
  }

  function launch(words: readonly string[], { mqtt, http }: Role['ports']): ChildProcess {
    const own = { SURGETANK_MQTT_PORT: String(mqtt), SURGETANK_HTTP_PORT: String(http) }
    const child = spawn(process.execPath, ['dist/main.js', ...words], {
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env, ...own },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', chunk => {
        output += `${words[0]} ${chunk}`
      })
    }
    return child
  }

  function role(part: PartName): Role {
    const found = roles.get(part)
    if (found === undefined) throw new Error(`${part} is no role.`)
    return found
  }

  function pidOf(part: PartName): number {
    if (part === 'clickhouse') return clickhouse.pid
    if (part === 'redis') return redis.pid
    return part === 'kafka' ? kafka.pid : (role(part).child.pid ?? 0)
  }

  function mqttPortOf(part: PartName): number {
    return role(part).ports.mqtt
  }

  async function ready(part: PartName): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(`http://127.0.0.1:${role(part).ports.http}/readyz`)
    return { status: answer.status, body: await answer.json() }
  }

  async function metrics(part: PartName): Promise<string> {
    return (await fetch(`http://127.0.0.1:${role(part).ports.http}/metrics`)).text()
  }

  async function untilReady(part: PartName): Promise<void> {
    const until = performance.now() + READY_MS_MAX
    for (;;) {
      const isReady = await ready(part).then(
        ({ status }) => status === 200,
        () => false,
      )
      if (isReady) return
      const { child } = role(part)
      if (child.exitCode !== null || performance.now() > until) {
        throw new Error(`${part} is not ready (exit code ${child.exitCode}):\n${output.slice(-4_000)}`)
      }
      await pause(50)
    }
  }

  async function killAndRestart(part: PartName): Promise<void> {
    if (part === 'kafka') {
      await kafka.kill()
      return kafka.restart()
    }
    if (part === 'redis') {
      await redis.kill()
      return redis.start({ emptied: true })
    }
    if (part === 'clickhouse') {
      return clickhouse.killAndRestart()
    }
    const killed = role(part)
    await end(killed.child, 'SIGKILL')
    killed.child = launch(killed.words, killed.ports)
    await untilReady(part)
  }

  async function freeze(part: PartName, ms: number): Promise<void> {
    const pid = pidOf(part)
    process.kill(pid, 'SIGSTOP')
    await pause(ms)
    process.kill(pid, 'SIGCONT')
  }

  function stop(part: PartName): Promise<number | null> {
    return end(role(part).child, 'SIGTERM')
  }

  async function close(): Promise<void> {
    await Promise.all([...roles.values()].map(({ child }) => end(child, 'SIGKILL')))
    await balancer.close()
    await Promise.all([kafka.stop(), redis.stop(), clickhouse.close()])
    rmSync(dir, { recursive: true, force: true })
  }
}

function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode)
  return new Promise(resolve => {
    child.once('exit', code => resolve(code))
    child.kill(signal)
  })
}
