/**
 * What clients of these tests meet: one Surgetank as `npm start` runs it, or two brokers that share Kafka and Redis, behind a
 * balancer that gives each connection to the next of them. It is known only from outside.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePorts, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { sql } from '../journeys/observed.ts'
import { openPlainClient } from '../journeys/plain-client.ts'
import { startMachines } from '../machines/fleet-of-processes.ts'
import { until } from '../waits.ts'

export interface Endpoint {
  readonly mqttPort: number
  /** SIGKILL of what serves clients; resolves when it serves again. */
  killAndRestart(): Promise<void>
  /** Metric and value of each stored reading of a device, ordered. What it was acknowledged before is among them. */
  readings(device: string): Promise<readonly (readonly [metric: string, value: unknown])[]>
  /** Kept messages whose topic begins so, as `quarantine ls --json` tells. */
  quarantined(topic: string): Promise<readonly Readonly<Record<string, unknown>>[]>
  /** The sum over all brokers of a metric, over its labels; 0 when there is none. */
  metric(name: string): Promise<number>
  /** What the API says of a device; undefined when it knows none. */
  online(device: string): Promise<boolean | undefined>
  /** What was logged. */
  output(): string
  close(): Promise<void>
}

/** `TEST_DIST=…/dist npx vitest run test/clients/one-broker.test.ts` asks another build. */
const DIST = process.env.TEST_DIST ?? 'dist'

export async function openOneBroker(env: Readonly<Record<string, string>> = {}): Promise<Endpoint> {
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-met-'))
  const options: SystemOptions = { dataDir, ports: await freePorts(), dist: DIST, env }
  let running = await startSystem(options)
  let output = ''
  const metrics = () => [textOf(options.ports.http, '/metrics')]
  return {
    ...seenFromOutside(options, metrics),
    mqttPort: options.ports.mqtt,
    killAndRestart: async () => {
      await running.killTree()
      output += running.output()
      running = await startSystem(options)
    },
    output: () => output + running.output(),
    close: async () => {
      await running.stop()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

export interface TwoBrokers extends Endpoint {
  /** SIGKILL of Redis, and a start without what it held. */
  emptyRedis(): Promise<void>
  /** Whether Redis keeps something of this client's session. */
  isInRedis(name: string): Promise<boolean>
}

export async function openTwoBrokers(env: Readonly<Record<string, string>> = {}): Promise<TwoBrokers> {
  const machines = await startMachines(env)
  const { ports } = machines
  const options: SystemOptions = { dataDir: 'no-such-directory', ports, env: machines.env }
  // The writers make the tables, and devices are served before.
  const areThere = () =>
    sql(ports, 'SELECT 1 FROM telemetry.readings LIMIT 0').then(
      () => true,
      () => false,
    )
  await until(areThere, 'the tables are there')
  const brokers = ['broker-a', 'broker-b'] as const
  return {
    ...seenFromOutside(
      options,
      () => brokers.map(broker => machines.metrics(broker)),
      () => drainedOf(ports.http),
    ),
    mqttPort: ports.mqtt,
    killAndRestart: async () => {
      await Promise.all(brokers.map(broker => machines.killAndRestart(broker)))
    },
    emptyRedis: () => machines.killAndRestart('redis'),
    isInRedis: async name => {
      const keys = (await machines.redis.command('KEYS', '*')) as string[]
      return keys.some(key => key.includes('k:') && key.includes(name))
    },
    output: machines.output,
    close: machines.close,
  }
}

/** As the checker of the crash rounds waits: what is counted behind is looked at once a second. */
async function drainedOf(httpPort: number): Promise<void> {
  for (let still = 0; still < 3; await pause(500)) {
    const lag = /^telemetry_lag_readings (\S+)$/m.exec(await textOf(httpPort, '/metrics'))
    still = Number(lag?.[1]) === 0 ? still + 1 : 0
  }
}

function seenFromOutside(
  system: SystemOptions,
  metrics: () => readonly Promise<string>[],
  drained: () => Promise<void> = async () => undefined,
): Pick<Endpoint, 'readings' | 'quarantined' | 'metric' | 'online'> {
  const { ports } = system
  let asked = 0
  return { readings, quarantined, metric, online }

  /** One log keeps its order, so that all before the last reading is stored when that one is; of several, `drained` tells. */
  async function readings(device: string): Promise<[string, unknown][]> {
    const last = `asked${asked++}`
    const id = `asks-${process.pid}-${last}`
    await new Promise<void>((resolve, reject) => {
      openPlainClient(ports.mqtt, id, packet => packet.cmd === 'puback' && resolve()).then(client => {
        const payload = Buffer.from(`{"${last}":1}`)
        const topic = `devices/${device}/telemetry`
        client.send({ cmd: 'publish', qos: 1, messageId: 1, dup: false, retain: false, topic, payload })
        client.socket.once('close', () => reject(new Error(`${id} was closed without its PUBACK.`)))
      }, reject)
    })
    const of = `FROM telemetry.readings WHERE device = '${device}'`
    await until(
      async () => (await sql(ports, `SELECT 1 ${of} AND metric = '${last}'`)).length > 0,
      'the last is stored',
    )
    await drained()
    const rows = await sql(ports, `SELECT metric, value ${of} AND NOT match(metric, '^asked') ORDER BY metric, value`)
    return rows.map(([name, value]) => [String(name), value])
  }

  async function quarantined(topic: string): Promise<Record<string, unknown>[]> {
    const { code, stdout, stderr } = await runCommand(['quarantine', 'ls', '--json'], system)
    if (code !== 0) throw new Error(stderr)
    const entries = stdout.split('\n').filter(line => line !== '')
    return entries
      .map(line => JSON.parse(line) as Record<string, unknown>)
      .filter(({ where }) => `${where}`.startsWith(topic))
  }

  async function metric(name: string): Promise<number> {
    const texts = await Promise.all(metrics())
    const values = texts.flatMap(text => [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))])
    return values.reduce((sum, [, value]) => sum + Number(value), 0)
  }

  async function online(device: string): Promise<boolean | undefined> {
    const answer = await fetch(`http://127.0.0.1:${ports.http}/v1/devices/${encodeURIComponent(device)}`)
    const { online: isOnline } = (await answer.json()) as { online?: boolean }
    return isOnline
  }
}

async function textOf(port: number, path: string): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}${path}`)).text()
}
