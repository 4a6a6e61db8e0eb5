/** One `surgetank` with any of its parts elsewhere: each setting by itself, and in company. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePorts, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { startClickHouse, type WholeClickHouse } from '../servers/clickhouse-server.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { until } from '../waits.ts'

const PARTS = ['kafka', 'redis', 'clickhouse'] as const
type Part = (typeof PARTS)[number]
/** All but none: that one is everywhere else. */
const COMBINATIONS: readonly (readonly Part[])[] = Array.from({ length: 7 }, (_, at) =>
  PARTS.filter((_, bit) => ((at + 1) >> bit) & 1),
)

describe.skipIf(!redisHere || (!kafkaHere && kafkaGiven === undefined))('one surgetank', () => {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-combinations-'))
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let redis: TestRedis
  let clickhouse: WholeClickHouse
  beforeAll(async () => {
    ;[kafka, redis, clickhouse] = await Promise.all([
      useKafka(),
      startRedis(),
      startClickHouse(join(folder, 'clickhouse')),
    ])
  })
  afterAll(async () => {
    await Promise.all([kafka.stop(), redis.stop(), clickhouse.close()])
    rmSync(folder, { recursive: true, force: true })
  })

  it.each(COMBINATIONS.map(parts => [parts.join(' and '), parts] as const))(
    'with %s elsewhere takes, stores and serves readings, and goes on after a restart [G1] [G2] [G4] [G7]',
    async (_, parts) => {
      const name = parts.join('-')
      const system = await systemOf(name, parts)
      const device = `with-${name}`
      let running = await startSystem(system)
      await publish(running.ports.mqtt, device, { temperature: 21.5, serial: 17 })
      await publish(running.ports.mqtt, device, 'no json')
      await until(async () => (await rowsOf(system, device)) === 2, 'it is stored')
      await until(async () => (await stateOf(system, device)).metrics?.temperature?.value === 21.5, 'it is the state')
      expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
      expect((await runCommand(['quarantine', 'ls'], system)).stdout).toContain(device)
      expect(await running.stop()).toBe(0)

      running = await startSystem(system)
      await publish(running.ports.mqtt, device, { temperature: 22.25 })
      await until(async () => {
        const state = await stateOf(system, device)
        return state.rehydrating === false && state.metrics?.temperature?.value === 22.25
      }, 'the state is whole')
      expect(await stateOf(system, device)).toMatchObject({ metrics: { serial: { value: 17 } } })
      await until(async () => (await rowsOf(system, device)) === 3, 'it is stored')
      expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
      expect(await running.stop()).toBe(0)
    },
  )

  async function systemOf(name: string, parts: readonly Part[]): Promise<SystemOptions> {
    const ports = await freePorts()
    const sql = parts.includes('clickhouse') ? clickhouse.sqlPort : ports.sql
    const settings: Record<Part, Record<string, string>> = {
      kafka: { KAFKA_BROKERS: kafka.brokers, SURGETANK_KAFKA_TOPIC: `test.${name}.${Date.now()}` },
      redis: { REDIS_URL: redis.url, SURGETANK_REDIS_PREFIX: `${name}:` },
      clickhouse: { CLICKHOUSE_URL: `http://${clickhouse.user}:${clickhouse.password}@127.0.0.1:${clickhouse.port}` },
    }
    const env = Object.assign({}, ...parts.map(part => settings[part]))
    return { dataDir: join(folder, name), ports: { ...ports, sql }, env }
  }
})

async function publish(port: number, device: string, payload: object | string): Promise<void> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: device })
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload)
  await client.publishAsync(`devices/${device}/telemetry`, text, { qos: 1 })
  await client.endAsync()
}

async function rowsOf({ ports }: SystemOptions, device: string): Promise<number> {
  const body = `SELECT count() FROM telemetry.readings WHERE device = '${device}' FORMAT TSV`
  const answer = await fetch(`http://127.0.0.1:${ports.sql}/`, { method: 'POST', body })
  return Number(await answer.text())
}

interface StateDocument {
  readonly rehydrating: boolean
  /** Not in the answer of one that is not known yet. */
  readonly metrics?: Readonly<Record<string, { readonly value: unknown }>>
}

async function stateOf({ ports }: SystemOptions, device: string): Promise<StateDocument> {
  return (await fetch(`http://127.0.0.1:${ports.http}/v1/devices/${device}`)).json() as Promise<StateDocument>
}
