/** What ill-willed or broken peers do to the whole system: it costs them, and nobody else. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import type { Packet } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { openFleet } from '../../bench/generator.ts'
import { LIMITS } from '../../model/limits.ts'
import {
  freePorts,
  isAlive,
  killProcess,
  type RunningSystem,
  runCommand,
  type SystemOptions,
  startSystem,
} from '../crash/system.ts'
import { stays, until } from '../waits.ts'
import { rssMb, sql } from './observed.ts'
import { openPlainClient, type PlainClient } from './plain-client.ts'

const SOCKETS = 100
/** CONNECT, and PUBLISH at QoS 1, of 268,435,455 bytes: the most that MQTT can claim [MQTT 3.1.1, 2.2.3]. */
const HUGE_CONNECT = Buffer.from([0x10, 0xff, 0xff, 0xff, 0x7f])
const HUGE_PUBLISH = Buffer.from([0x32, 0xff, 0xff, 0xff, 0x7f])
const BODY = Buffer.alloc(64 * 1024)
/** PUBLISH at QoS 1 of 8,388,000 bytes, and nearly all of them. */
const HALF_PUBLISH = Buffer.concat([Buffer.from([0x32, 0xa0, 0xfb, 0xff, 0x03, 0, 1, 0x78, 0, 1])])
const HALF_BODY = Buffer.alloc(8_380_000)
const GROWTH_MB_MAX = 64

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-hostile-'))
let system: SystemOptions
let running: RunningSystem

beforeAll(async () => {
  system = { dataDir, ports: await freePorts() }
  running = await startSystem(system)
})

afterAll(async () => {
  expect(await running.stop()).toBe(0)
  rmSync(dataDir, { recursive: true, force: true })
})

describe('a hundred sockets that claim 256 MB each', () => {
  it('cost next to nothing before they are connected, and are closed [G5]', async () => {
    const good = await openWell('good-0')
    const before = rssMb(running.pid)
    const sockets = await Promise.all(Array.from({ length: SOCKETS }, () => openSocket()))
    for (const socket of sockets) socket.write(Buffer.concat([HUGE_CONNECT, BODY]))
    await until(() => sockets.every(socket => socket.closed), 'all are closed')
    expect(rssMb(running.pid) - before).toBeLessThan(GROWTH_MB_MAX)
    await publishWell(good)
  })

  it('and the same when they claim it in a message [G5]', async () => {
    const good = await openWell('good-1')
    const before = rssMb(running.pid)
    const clients: PlainClient[] = []
    for (let n = 0; n < SOCKETS; n++) clients.push(await openPlainClient(running.ports.mqtt, `huge-${n}`, () => {}))
    for (const { socket } of clients) socket.write(Buffer.concat([HUGE_PUBLISH, BODY]))
    await until(() => clients.every(client => client.closed), 'all are closed')
    const growthMb = rssMb(running.pid) - before
    process.stdout.write(`${SOCKETS} connections that claimed 256 MB cost ${growthMb.toFixed(1)} MB\n`)
    expect(growthMb).toBeLessThan(GROWTH_MB_MAX)
    await publishWell(good)
  })
})

describe('a device', () => {
  it('with 50,000 metric names keeps as many as it may, the rest is quarantined, and others go on [G5]', async () => {
    const acks: Packet[] = []
    const hostile = await openPlainClient(running.ports.mqtt, 'names', packet => acks.push(packet))
    const good = await openWell('good-2')
    const messages = 50_000 / LIMITS.readingsPerMessageMax
    for (let n = 0; n < messages; n++) {
      const names = Array.from({ length: LIMITS.readingsPerMessageMax }, (_, at) => [`m${n}_${at}`, n])
      publish(hostile, 'devices/names/telemetry', JSON.stringify(Object.fromEntries(names)), n + 1)
    }
    await publishWell(good)
    await until(() => acks.length === messages, 'all are acknowledged')
    const query = "SELECT uniqExact(metric), count() FROM telemetry.readings WHERE device = 'names'"
    const kept = LIMITS.metricsPerDeviceMax
    await until(async () => Number((await sql(running.ports, query))[0]?.[0]) >= kept, 'the first ones are stored')
    expect(await sql(running.ports, query)).toEqual([[kept, kept]])
    const { stdout } = await runCommand(['quarantine', 'ls', '--json'], system)
    const entries = stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as { device: string; reason: string })
    expect(entries.filter(({ device, reason }) => device === 'names' && reason === 'too_many_metrics')).toHaveLength(
      messages - 1,
    )
    hostile.close()
  })

  it('with a message that is too large goes on: it is quarantined with its size, and acknowledged in its turn [G5]', async () => {
    const answers: Packet[] = []
    const device = await openPlainClient(running.ports.mqtt, 'large', packet => answers.push(packet))
    const size = 3 * 1024 * 1024
    publish(device, 'devices/large/telemetry', '{"n":1}', 1)
    publish(device, 'devices/large/telemetry/blob', 'x'.repeat(size), 2)
    publish(device, 'devices/large/telemetry', '{"n":3}', 3)
    await until(() => answers.length === 3, 'all are acknowledged')
    expect(answers.map(packet => packet.messageId)).toEqual([1, 2, 3])
    expect(device.closed).toBe(false)
    const entries = (await runCommand(['quarantine', 'ls', '--json'], system)).stdout.trim().split('\n')
    const entry = entries.map(line => JSON.parse(line)).find(({ reason }) => reason === 'packet_too_large')
    expect(entry).toMatchObject({ device: 'large', where: 'devices/large/telemetry/blob', payload_bytes: size })
    expect(Buffer.from(entry.payload_base64, 'base64').toString()).toBe('x'.repeat(1024))
    expect((await runCommand(['quarantine', 'show', entry.id], system)).stdout).toContain(
      `bytes     ${size}, of which the first 1024 are kept`,
    )
    const verified = await runCommand(['verify'], system)
    expect(verified.stdout).toContain('The books balance.')
    device.close()
  })

  it('that is in the middle of a message that is too large costs nothing, a hundred of them either [G5]', async () => {
    const good = await openWell('good-3')
    const before = rssMb(running.pid)
    const clients: PlainClient[] = []
    for (let n = 0; n < SOCKETS; n++) clients.push(await openPlainClient(running.ports.mqtt, `half-${n}`, () => {}))
    for (const { socket } of clients) socket.write(HALF_PUBLISH)
    await Promise.all(clients.map(({ socket }) => new Promise(resolve => socket.write(HALF_BODY, resolve))))
    const growthMb = rssMb(running.pid) - before
    process.stdout.write(`${SOCKETS} connections in the middle of 8 MiB cost ${growthMb.toFixed(1)} MB\n`)
    // What was read and thrown away waits for the next collection of garbage.
    expect(growthMb).toBeLessThan((SOCKETS * HALF_BODY.length) / 2 ** 20 / 4)
    await publishWell(good)
    for (const client of clients) client.close()
  })

  it('with a message as large as it may be is acknowledged, kept with its reason, and goes on [G5]', async () => {
    const acks: Packet[] = []
    const wordy = await openPlainClient(running.ports.mqtt, 'wordy', packet => acks.push(packet))
    publish(wordy, 'devices/wordy/telemetry/blob', 'x'.repeat(LIMITS.packetBytesMax - 100), 1)
    await until(() => acks.length === 1, 'acknowledged')
    expect(wordy.closed).toBe(false)
    wordy.close()
  })
})

describe('subscribers that are frozen', () => {
  it('cost publishers nothing [G5]', async () => {
    const subscriber = await freezeSubscriber()
    const devices = Array.from({ length: 50 }, (_, n) => `flowing-${n}`)
    const fleet = await openFleet({ port: running.ports.mqtt, devices, connections: 50, window: 50, rate: 1_000 })
    onTestFinished(() => fleet.close())
    const before = rssMb(running.pid)
    fleet.start()
    await stays('frozen', () => isAlive(subscriber), 3_000)
    expect(await fleet.drain(30_000)).toBe(true)
    const p99Ms = fleet.latency.percentile(99) / 1_000
    const growthMb = rssMb(running.pid) - before
    process.stdout.write(
      `beside a frozen subscriber: ${fleet.counts().acked} acknowledged, p99 ${p99Ms.toFixed(1)} ms, ${growthMb.toFixed(1)} MB more\n`,
    )
    expect(fleet.counts().acked).toBeGreaterThan(2_500)
    expect(growthMb).toBeLessThan(GROWTH_MB_MAX)
  })
})

/** A process that follows the stream of all devices, and a command topic, and then reads nothing any more. */
async function freezeSubscriber(): Promise<number> {
  const { http, mqtt: port } = running.ports
  const script = `
    const stream = await fetch('http://127.0.0.1:${http}/v1/stream')
    const { default: mqtt } = await import('mqtt')
    const client = await mqtt.connectAsync('mqtt://127.0.0.1:${port}', { clientId: 'frozen' })
    await client.subscribeAsync('devices/frozen/cmd/go')
    console.log('subscribed', stream.status)
    for await (const _ of stream.body);`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const pid = child.pid ?? 0
  onTestFinished(() => killProcess(pid))
  await once(child.stdout, 'data')
  process.kill(pid, 'SIGSTOP')
  return pid
}

async function openSocket(): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: running.ports.mqtt })
  socket.on('error', () => undefined)
  socket.resume()
  await once(socket, 'connect')
  return socket
}

/** A client that behaves, until the end of the test. */
async function openWell(clientId: string): Promise<mqtt.MqttClient> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${running.ports.mqtt}`, { clientId, reconnectPeriod: 0 })
  onTestFinished(() => void client.end(true))
  return client
}

async function publishWell(client: mqtt.MqttClient): Promise<void> {
  await client.publishAsync(`devices/${client.options.clientId}/telemetry`, '{"n": 1}', { qos: 1 })
}

function publish({ send }: PlainClient, topic: string, payload: string, messageId: number): void {
  send({ cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false })
}
