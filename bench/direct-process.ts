/**
 * The direct baseline: the same Aedes, and one ClickHouse insert for each message before its PUBACK. What is built first
 * when telemetry must be in the database before it is acknowledged, and no log stands between.
 */
import { Agent, type AgentOptions } from 'node:http'
import { ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { openBareBroker } from './bare-broker.ts'

interface Payload {
  readonly ts: number
  readonly values: Readonly<Record<string, number>>
}

const CONNECTIONS_MAX = 32

process.once('message', (socketPath: string) => void run(socketPath))
process.once('disconnect', () => process.exit(0))

async function run(socketPath: string): Promise<void> {
  const agent: AgentOptions & { socketPath: string } = { keepAlive: true, maxSockets: CONNECTIONS_MAX, socketPath }
  const client = createClient({
    url: 'http://localhost',
    http_agent: new Agent(agent),
    request_timeout: 120_000,
    log: { level: ClickHouseLogLevel.OFF },
  })
  await client.command({ query: 'CREATE DATABASE IF NOT EXISTS direct ENGINE = Atomic' })
  await client.command({
    query: `CREATE TABLE IF NOT EXISTS direct.readings
      (device LowCardinality(String), metric LowCardinality(String), ts DateTime64(3, 'UTC'), value Float64)
      ENGINE = MergeTree ORDER BY (metric, device, ts)`,
  })
  const broker = await openBareBroker(0, {
    authorizePublish(_client, packet, done) {
      insert(packet.topic, packet.payload.toString()).then(
        () => done(null),
        (error: Error) => done(error),
      )
    },
  })
  process.send?.({ port: broker.port })

  async function insert(topic: string, text: string): Promise<void> {
    const { ts, values } = JSON.parse(text) as Payload
    const device = topic.split('/')[1]
    const rows = Object.entries(values).map(([metric, value]) => ({ device, metric, ts, value }))
    const clickhouse_settings = { async_insert: 0 } as const
    await client.insert({ table: 'direct.readings', values: rows, format: 'JSONEachRow', clickhouse_settings })
  }
}
