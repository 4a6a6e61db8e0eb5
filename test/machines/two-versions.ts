/**
 * Processes of two versions on one Kafka, one Redis and one ClickHouse: today's build, and an older one that is packed in
 * `test/data/upgrade`. The engine stands in for a ClickHouse server; it is known only by its HTTP.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RoleName } from '../../manager/roles.ts'
import type { SystemPorts } from '../crash/system.ts'
import { freePort } from '../free-port.ts'
import { startClickHouse } from '../servers/clickhouse-server.ts'
import { startKafka } from '../servers/kafka-server.ts'
import { startRedis } from '../servers/redis-server.ts'
import { unpackBuild } from '../upgrade/packed.ts'
import { until } from '../waits.ts'
import { openBalancer } from './balancer.ts'

export type Version = 'old' | 'new'

export interface Process {
  /** Of MQTT, for a broker; of HTTP. */
  readonly mqtt: number
  readonly http: number
  /** The exit code, once it has ended; null before. */
  readonly code: number | null
  /** What it wrote to stdout and stderr. */
  output(): string
  /** Resolves when `/readyz` says so. */
  ready(): Promise<void>
  /** Resolves with the exit code. */
  ended(): Promise<number | null>
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>
}

export interface TwoVersions {
  /** What every process is given. */
  readonly env: Readonly<Record<string, string>>
  /** The port before the brokers. */
  readonly mqtt: number
  readonly sql: number
  start(version: Version, role: RoleName): Process
  /** The broker takes connections from the balancer, or does so no more. */
  balance(broker: Process): void
  unbalance(broker: Process): void
  /** Rows of a query, by the user whom the processes are. */
  ask<Row>(sql: string): Promise<Row[]>
  /** What every process wrote. */
  output(): string
  /** What those of one version wrote. */
  outputOf(version: Version): string
  close(): Promise<void>
}

export async function openTwoVersions(oldBuild: string): Promise<TwoVersions> {
  const dir = mkdtempSync(join(tmpdir(), 'surgetank-versions-'))
  const dists: Record<Version, string> = { old: unpackBuild(oldBuild, join(dir, 'old')), new: 'dist' }
  const [kafka, redis, clickhouse] = await Promise.all([
    startKafka(),
    startRedis(),
    startClickHouse(join(dir, 'clickhouse')),
  ])
  const targets: number[] = []
  const balancer = await openBalancer(targets)
  const env = {
    KAFKA_BROKERS: kafka.brokers,
    REDIS_URL: redis.url,
    ...clickhouse.env,
  }
  const children: ChildProcess[] = []
  let output = ''
  const outputs: Record<Version, (() => string)[]> = { old: [], new: [] }
  // Ports are chosen beforehand: `start` waits for nothing.
  const ports = await Promise.all(Array.from({ length: 40 }, freePort))
  return {
    env,
    mqtt: balancer.port,
    sql: clickhouse.sqlPort,
    start,
    balance: ({ mqtt }) => void targets.push(mqtt),
    unbalance: ({ mqtt }) => void targets.splice(targets.indexOf(mqtt), 1),
    ask,
    output: () => output,
    outputOf: version => outputs[version].map(said => said()).join(''),
    close,
  }

  async function ask<Row>(sql: string): Promise<Row[]> {
    const headers = { 'x-clickhouse-user': clickhouse.user, 'x-clickhouse-key': clickhouse.password }
    const body = `${sql} FORMAT JSONCompactEachRow`
    const answer = await fetch(clickhouse.url, { method: 'POST', headers, body })
    const text = await answer.text()
    if (!answer.ok) throw new Error(text)
    return text.split('\n').flatMap(line => (line === '' ? [] : [JSON.parse(line) as Row]))
  }

  function start(version: Version, role: RoleName): Process {
    const [mqtt = 0, http = 0] = ports.splice(0, 2)
    const own = { SURGETANK_MQTT_PORT: String(mqtt), SURGETANK_HTTP_PORT: String(http) }
    const child = spawn(process.execPath, [join(dists[version], 'main.js'), role], {
      env: { PATH: process.env.PATH, ...env, ...own },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    children.push(child)
    let said = ''
    outputs[version].push(() => said)
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', text => {
        said += text
        output += `${version} ${role}: ${text}`
      })
    }
    return {
      mqtt,
      http,
      get code() {
        return child.exitCode
      },
      output: () => said,
      ready: () => ready(child, http, () => said),
      ended: () => ended(child),
      stop: () => {
        child.kill('SIGTERM')
        return ended(child)
      },
    }
  }

  async function close(): Promise<void> {
    for (const child of children) child.kill('SIGKILL')
    await Promise.all(children.map(ended))
    await balancer.close()
    await Promise.all([kafka.stop(), redis.stop(), clickhouse.close()])
    rmSync(dir, { recursive: true, force: true })
  }
}

async function ready(child: ChildProcess, http: number, said: () => string): Promise<void> {
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`It ended with ${child.exitCode}:\n${said()}`)
    const answer = await fetch(`http://127.0.0.1:${http}/readyz`).catch(() => null)
    return answer?.status === 200
  }, 'it is ready').catch((error: Error) => {
    throw new Error(`${error.message}\n${said()}`)
  })
}

function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode)
  return new Promise(resolve => child.once('exit', code => resolve(code)))
}

/** The ports by which a check asks. */
export function portsOf({ mqtt, sql }: TwoVersions, api: Process): SystemPorts {
  return { mqtt, http: api.http, sql }
}
