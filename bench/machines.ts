/**
 * Surgetank on several machines, as processes of this one: a broker, a writer, a reader and the API over a real Kafka, a
 * real Redis and the ClickHouse engine behind HTTP. None of them has a lower priority, as on machines of their own.
 */
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startClickHouse } from '../test/servers/clickhouse-server.ts'
import { endProcess, nextMessage, pidOf, readOutput, START_MS_MAX, startScript } from './processes.ts'
import type { ServersMessage } from './servers-messages.ts'
import { openStoredTable } from './stored.ts'
import { type PartPids, type StoringVariant, startSurgetank } from './variants.ts'

export interface MachinesVariant extends StoringVariant {
  addWriter(): Promise<void>
  /** Readings that each writer has stored. */
  storedByWriter(): Promise<number[]>
}

interface Role {
  readonly child: ChildProcess
  readonly mqttPort: number
  readonly httpPort: number
}

/** A sentence when Kafka or Redis is not here. */
export async function openMachines(): Promise<MachinesVariant | string> {
  const servers = startScript('../test/servers/servers-process.js')
  const started = await nextMessage<ServersMessage>(servers, START_MS_MAX)
  if (started.kind === 'missing') return started.what
  const { kafka, redis } = started
  const dir = await mkdtemp(join(tmpdir(), 'bench-machines-'))
  const clickhouse = await startClickHouse(dir)
  const env = {
    ...process.env,
    KAFKA_BROKERS: kafka.brokers,
    REDIS_URL: redis.url,
    ...clickhouse.env,
    SURGETANK_MQTT_PORT: '0',
    SURGETANK_HTTP_PORT: '0',
    SURGETANK_LOG_LEVEL: 'warn',
  }
  const writers = [await startRole('writer')]
  const [broker, reader, api] = await Promise.all([startRole('broker'), startRole('reader'), startRole('api')])
  const table = openStoredTable({ url: `http://127.0.0.1:${clickhouse.sqlPort}`, table: 'telemetry.readings' })
  return { name: 'machines', port: broker.mqttPort, parts, table, addWriter, storedByWriter, close }

  async function startRole(name: string): Promise<Role> {
    const child = startSurgetank([name], env)
    const [, mqtt, http] = await readOutput(child, /ready.*?(?:mqtt:\/\/[^:]+:(\d+), .*?)?http:\/\/[^:]+:(\d+)/)
    return { child, mqttPort: Number(mqtt), httpPort: Number(http) }
  }

  function parts(): PartPids {
    return {
      broker: [pidOf(broker.child)],
      writer: writers.map(({ child }) => pidOf(child)),
      'reader and API': [pidOf(reader.child), pidOf(api.child)],
      Redis: [redis.pid],
      Kafka: [kafka.pid],
      ClickHouse: [clickhouse.pid],
    }
  }

  async function addWriter(): Promise<void> {
    writers.push(await startRole('writer'))
  }

  function storedByWriter(): Promise<number[]> {
    return Promise.all(writers.map(({ httpPort }) => readMetric(httpPort, 'telemetry_readings_persisted_total')))
  }

  async function close(): Promise<void> {
    await table.close()
    await Promise.all([broker, reader, api, ...writers].map(({ child }) => endProcess(child)))
    await Promise.all([endProcess(servers), clickhouse.close()])
    await rm(dir, { recursive: true, force: true })
  }
}

async function readMetric(httpPort: number, name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1])
}
