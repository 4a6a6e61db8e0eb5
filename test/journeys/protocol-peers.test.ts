/** Clients that others wrote: Debian's mosquitto_pub and mqtt.js, at every quality of service, and what they leave behind. */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePorts, killProcess, type RunningSystem, startSystem } from '../crash/system.ts'
import { until } from '../waits.ts'
import { metric, sql } from './observed.ts'

const present = hasMosquitto()
if (!present) process.stderr.write('SKIPPED: mosquitto_pub is not installed (Debian: mosquitto-clients).\n')

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-peers-'))
let running: RunningSystem

beforeAll(async () => {
  running = await startSystem({ dataDir, ports: await freePorts() })
})

afterAll(async () => {
  await running.stop()
  rmSync(dataDir, { recursive: true, force: true })
})

describe.skipIf(!present)('mosquitto_pub', () => {
  it('is stored at QoS 0, 1 and 2, retained or not [G1]', async () => {
    for (const qos of ['0', '1', '2']) {
      await mosquitto('-q', qos, '-t', `devices/mosquitto-${qos}/telemetry`, '-m', `{"qos": ${qos}}`)
      await mosquitto('-q', qos, '-r', '-t', `devices/mosquitto-${qos}/telemetry/retained`, '-m', `1${qos}`)
    }
    const expected = ['0', '1', '2'].flatMap(qos => [
      [`mosquitto-${qos}`, 'qos', Number(qos)],
      [`mosquitto-${qos}`, 'retained', 10 + Number(qos)],
    ])
    const query =
      "SELECT device, metric, value FROM telemetry.readings WHERE device LIKE 'mosquitto-%' ORDER BY device, metric"
    await until(async () => (await sql(running.ports, query)).length >= expected.length, 'all are stored')
    expect(await sql(running.ports, query)).toEqual(expected)
  })

  it('sends a stream of lines over one connection, each stored once [G2]', async () => {
    const { mqtt: port } = running.ports
    const child = spawn('mosquitto_pub', [
      ...['-h', '127.0.0.1', '-p', String(port), '-q', '1', '-i', 'lines', '-l'],
      ...['-t', 'devices/lines/telemetry/n'],
    ])
    const exited = new Promise(resolve => child.once('exit', resolve))
    child.stdin.end(Array.from({ length: 500 }, (_, n) => `${n}\n`).join(''))
    expect(await exited).toBe(0)
    const query = "SELECT count(), uniqExact(value), max(value) FROM telemetry.readings WHERE device = 'lines'"
    await until(async () => Number((await sql(running.ports, query))[0]?.[0]) >= 500, 'all are stored')
    expect(await sql(running.ports, query)).toEqual([[500, 500, 499]])
  })

  it('may speak MQTT 3.1.1 only: version 5 is refused, and it says so', async () => {
    const refused = await mosquitto('-V', 'mqttv5', '-t', 'devices/five/telemetry', '-m', '1').catch(error => error)
    expect(`${refused.stderr}`).toMatch(/protocol version/i)
  })

  it('that is killed with a will leaves its device offline', async () => {
    const { mqtt: port } = running.ports
    const will = ['--will-topic', 'devices/killed/status', '--will-payload', 'offline', '--will-qos', '1']
    const child = spawn('mosquitto_pub', [
      ...['-h', '127.0.0.1', '-p', String(port), '-q', '1', '-i', 'gateway-of-killed', ...will, '-l'],
      ...['-t', 'devices/killed/telemetry/n'],
    ])
    child.stdin.write('1\n')
    await until(async () => (await device('killed')).online === true, 'online')
    killProcess(child.pid ?? 0)
    await until(async () => (await device('killed')).online === false, 'offline')
  })
})

describe('mqtt.js', () => {
  it('is online while it is connected, and offline when it left, politely or not', async () => {
    const url = `mqtt://127.0.0.1:${running.ports.mqtt}`
    const will = { topic: 'devices/ungraceful/status', payload: Buffer.from('offline'), qos: 1 as const, retain: true }
    const ungraceful = await mqtt.connectAsync(url, { clientId: 'ungraceful', will, reconnectPeriod: 0 })
    const polite = await mqtt.connectAsync(url, { clientId: 'polite' })
    for (const client of [ungraceful, polite]) {
      await client.publishAsync(`devices/${client.options.clientId}/telemetry`, '{"n": 1}', { qos: 2 })
    }
    const online = async () => `${(await device('ungraceful')).online} ${(await device('polite')).online}`
    await until(async () => (await online()) === 'true true', 'both online')
    ungraceful.stream.destroy()
    await until(async () => (await online()) === 'false true', 'one offline')
    await polite.endAsync()
    await until(async () => (await online()) === 'false false', 'both offline')
    const listed = await get('/v1/devices?online=false&search=ungraceful')
    expect(JSON.stringify(listed)).toContain('"ungraceful"')
  })

  it('sees its change in the stream within two seconds', async () => {
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${running.ports.mqtt}`, { clientId: 'streamed' })
    await client.publishAsync('devices/streamed/telemetry', '{"n": 1}', { qos: 1 })
    const leave = new AbortController()
    const response = await fetch(`http://127.0.0.1:${running.ports.http}/v1/stream?devices=streamed`, leave)
    let seen = ''
    const reading = (async () => {
      for await (const bytes of response.body ?? []) seen += Buffer.from(bytes).toString()
    })().catch(() => {})
    await until(() => /"value":1\b/.test(seen), 'the state at first')
    await client.publishAsync('devices/streamed/telemetry', '{"n": 4711}', { qos: 1 })
    const ms = await until(() => /"value":4711\b/.test(seen), 'the change')
    process.stdout.write(`a change was in the stream ${Math.round(ms)} ms after its PUBACK\n`)
    leave.abort()
    await reading
    await client.endAsync()
    await until(async () => (await metric(running.ports, 'telemetry_clients_connected')) === 0, 'nobody is connected')
  })
})

interface DeviceDocument {
  readonly online?: boolean
}

async function get(path: string): Promise<unknown> {
  return (await fetch(`http://127.0.0.1:${running.ports.http}${path}`)).json()
}

async function device(id: string): Promise<DeviceDocument> {
  return (await get(`/v1/devices/${id}`)) as DeviceDocument
}

function mosquitto(...args: string[]): Promise<{ stdout: string; stderr: string }> {
  return promisify(execFile)('mosquitto_pub', ['-h', '127.0.0.1', '-p', String(running.ports.mqtt), ...args])
}

function hasMosquitto(): boolean {
  try {
    execFileSync('mosquitto_pub', ['--version'], { stdio: 'ignore' })
    return true
  } catch (error) {
    // Some versions print theirs and exit with 1.
    return (error as NodeJS.ErrnoException).code !== 'ENOENT'
  }
}
