/**
 * What real devices send, and what must become of it: values that change back within one second of their clock, samples faster
 * than their clock, several messages in one write, and messages that are sent again. Over real MQTT, on one machine.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate, type Packet } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { until } from '../waits.ts'
import { metric, sql } from './observed.ts'
import { openPlainClient, type PlainClient } from './plain-client.ts'

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-order-'))
/** A second of a device's clock, a minute ago. */
const SECOND = Math.floor(Date.now() / 1_000) - 60
const DEVICES = 60
/** Rows that each device must have in the end, and no more. */
const wanted = new Map<string, number>()
let system: SystemOptions
let running: RunningSystem

beforeAll(async () => {
  system = { dataDir, ports: await freePorts() }
  running = await startSystem(system)
})
afterAll(async () => {
  await running.stop()
  rmSync(dataDir, { recursive: true, force: true })
})

interface Device {
  readonly client: PlainClient
  /** Publishes all in one write, with the packet identifiers from `first` on; resolves when each is acknowledged. */
  send(payloads: readonly string[], more?: { first?: number; dup?: boolean; topic?: string }): Promise<void>
}

async function connect(id: string, clientId = id): Promise<Device> {
  const acked = new Set<number>()
  const received = (packet: Packet) => void (packet.cmd === 'puback' && acked.add(packet.messageId ?? 0))
  const client = await openPlainClient(system.ports.mqtt, clientId, received)
  return {
    client,
    async send(payloads, { first = 1, dup = false, topic = `devices/${id}/telemetry` } = {}) {
      const publish = (payload: string, n: number) =>
        generate({ cmd: 'publish', topic, payload, qos: 1, messageId: first + n, dup, retain: false })
      for (let n = 0; n < payloads.length; n++) acked.delete(first + n)
      client.socket.write(Buffer.concat(payloads.map(publish)))
      await until(() => payloads.every((_, n) => acked.has(first + n)), `all of ${id} are acknowledged`)
    },
  }
}

/** Rows of a device in the order of their receipts, once there are so many: the value of `metric`, and the time in µs. */
async function rowsOf(device: string, count: number): Promise<unknown[][]> {
  wanted.set(device, count)
  const columns = 'value, toString(toUnixTimestamp64Micro(ts))'
  const query = `SELECT ${columns} FROM telemetry.readings WHERE device = '${device}' ORDER BY received_at`
  let rows: unknown[][] = []
  await until(async () => {
    rows = await sql(system.ports, query)
    return rows.length >= count
  }, `${device} has ${count} rows`)
  return rows
}

async function stateOf(device: string): Promise<Record<string, { value: unknown; ts: string }>> {
  const response = await fetch(`http://127.0.0.1:${system.ports.http}/v1/devices/${device}`)
  return ((await response.json()) as { metrics: Record<string, { value: unknown; ts: string }> }).metrics
}

async function latestOf(device: string, name: string): Promise<unknown> {
  const query = `SELECT value FROM telemetry.latest WHERE device = '${device}' AND metric = '${name}'`
  return (await sql(system.ports, query))[0]?.[0]
}

/** The view `latest` of all devices whose id begins so, once all their rows are there: how many show which value. */
async function latestOfAll(prefix: string, rowsOfEach: number): Promise<unknown[][]> {
  const where = `WHERE startsWith(device, '${prefix}-')`
  for (let n = 0; n < DEVICES; n++) wanted.set(`${prefix}-${n}`, rowsOfEach)
  await until(async () => {
    const [[rows] = []] = await sql(system.ports, `SELECT count() FROM telemetry.readings ${where}`)
    return Number(rows) >= DEVICES * rowsOfEach
  })
  const query = `SELECT metric, value, toUInt32(count()) FROM telemetry.latest ${where} GROUP BY ALL ORDER BY ALL`
  return sql(system.ports, query)
}

/** Each of so many devices publishes in one write; resolves with their states. */
function allSend(prefix: string, payloads: readonly string[], topicEnd = '') {
  const ids = Array.from({ length: DEVICES }, (_, n) => `${prefix}-${n}`)
  return Promise.all(
    ids.map(async id => {
      await (await connect(id)).send(payloads, { topic: `devices/${id}/telemetry${topicEnd}` })
      return stateOf(id)
    }),
  )
}

const DOOR = [true, false, true].map(door => `{"ts":${SECOND},"values":{"door":${door}}}`)

describe('on one connection', () => {
  it('a door that opens, closes and opens within one second is three readings, and open [G1] [G4]', async () => {
    const door = await connect('door')
    // One after another, each acknowledged.
    for (const [n, payload] of DOOR.entries()) await door.send([payload], { first: n + 1 })
    expect((await rowsOf('door', 3)).map(([value]) => value)).toEqual([1, 0, 1])
    expect(await stateOf('door')).toMatchObject({ door: { value: true } })
    expect(await latestOf('door', 'door')).toBe(1)
  })

  it('messages that a device numbers are as many as their numbers [G1]', async () => {
    const meter = await connect('meter')
    for (const seq of [1, 2, 3]) {
      await meter.send([`{"ts":${SECOND},"seq":${seq},"values":{"pulse":1}}`], { first: seq })
    }
    expect(await rowsOf('meter', 3)).toHaveLength(3)
  })

  it('three samples of one millisecond in µs are three readings with their times [G1] [G3]', async () => {
    const samples = await connect('samples')
    const times = ['000', '200', '400'].map(us => `${SECOND}123${us}`)
    await samples.send(times.map(ts => `{"ts":${ts},"values":{"level":1}}`))
    expect(await rowsOf('samples', 3)).toEqual(times.map(ts => [1, ts]))
    expect((await stateOf('samples')).level?.ts).toBe(new Date(SECOND * 1_000).toISOString().replace('000Z', '123400Z'))
  })

  it('two nanoseconds of one µs are two readings [G1]', async () => {
    const probe = await connect('probe')
    await probe.send(['001', '002'].map(ns => `{"ts":${SECOND}123456${ns},"values":{"level":1}}`))
    expect(await rowsOf('probe', 2)).toEqual([1, 1].map(value => [value, `${SECOND}123456`]))
  })

  it('ON and then OFF in one write is off, in the state and in telemetry.latest [G4]', async () => {
    const states = await allSend('valve', ['ON', 'OFF'], '/valve')
    expect(states.filter(({ valve }) => valve?.value === false)).toHaveLength(DEVICES)
    expect(await latestOfAll('valve', 2)).toEqual([['valve', 0, DEVICES]])
  })

  it('a later message without a time wins, whatever its values are [G4]', async () => {
    const states = await allSend('gate', ['{"door":true,"n":30}', '{"door":false,"n":20}'])
    expect(states.filter(({ door, n }) => door?.value === false && n?.value === 20)).toHaveLength(DEVICES)
    expect(await latestOfAll('gate', 4)).toEqual([
      ['door', 0, DEVICES],
      ['n', 20, DEVICES],
    ])
  })

  it('of a list without times the later element wins [G4]', async () => {
    await (await connect('list')).send(['[{"t":30},{"t":20}]'])
    expect((await rowsOf('list', 2)).map(([value]) => value)).toEqual([30, 20])
    expect(await stateOf('list')).toMatchObject({ t: { value: 20 } })
    expect(await latestOf('list', 't')).toBe(20)
  })
})

describe('on another connection', () => {
  it('a message with DUP=1 is recognised, also after a kill -9 and a restart [G1] [G2]', async () => {
    const send = async (first: number, dup: boolean) => {
      const press = await connect('press')
      await press.send(DOOR, { first, dup })
      press.client.close()
    }
    await send(65_530, false)
    await send(65_530, true)
    expect(await metric(system.ports, 'telemetry_messages_repeated_total')).toBe(3)
    await running.killTree()
    running = await startSystem(system)
    await send(65_530, true)
    expect(await metric(system.ports, 'telemetry_messages_repeated_total')).toBe(3)
    expect((await rowsOf('press', 3)).map(([value]) => value)).toEqual([1, 0, 1])
    expect(await stateOf('press')).toMatchObject({ door: { value: true } })
  })

  it('a window that is sent again with DUP=0 and new packet identifiers is stored once [G1] [G2]', async () => {
    const before = await metric(system.ports, 'telemetry_messages_repeated_total')
    for (const first of [1, 100, 200]) {
      const hatch = await connect('hatch')
      await hatch.send(DOOR, { first })
      hatch.client.close()
    }
    expect(await metric(system.ports, 'telemetry_messages_repeated_total')).toBe(before + 6)
    expect((await rowsOf('hatch', 3)).map(([value]) => value)).toEqual([1, 0, 1])
  })

  it('the third of three is new when only two had arrived [G1]', async () => {
    const flap = await connect('flap')
    await flap.send(DOOR.slice(0, 2))
    flap.client.close()
    await (await connect('flap')).send(DOOR, { first: 10 })
    expect((await rowsOf('flap', 3)).map(([value]) => value)).toEqual([1, 0, 1])
  })
})

describe('afterwards', () => {
  it('nothing is stored that was not told above, and the books balance [G2] [G7]', async () => {
    await until(async () => (await metric(system.ports, 'telemetry_lag_readings')) === 0)
    const rows = await sql(system.ports, 'SELECT device, count() FROM telemetry.readings GROUP BY device')
    expect(new Map(rows.map(([device, count]) => [String(device), Number(count)]))).toEqual(wanted)
    expect(await runCommand(['verify'], system)).toMatchObject({ code: 0 })
  })

  it('a fleet of toggles is verified by the simulator, and nothing of it was taken for a repetition [G1] [G4]', async () => {
    const { mqtt, http, sql } = system.ports
    const ports = ['--url', `mqtt://127.0.0.1:${mqtt}`, '--http', `http://127.0.0.1:${http}`]
    const load = ['--scenario', 'toggle', '--devices', '10', '--rate', '200', '--seconds', '3']
    const args = ['simulate', ...ports, '--sql', `http://127.0.0.1:${sql}`, ...load, '--verify', '--json']
    const { code, stdout, stderr } = await runCommand(args, system)
    expect(code, stdout + stderr).toBe(0)
    expect(JSON.parse(stdout).verify).toMatchObject({ acked: 600, stored: 600, taken_for_repetitions: 0 })
  })

  it('an operator sees what was taken for a repetition', async () => {
    const list = async (...words: string[]) => (await runCommand(['repeated', 'ls', ...words], system)).stdout
    await until(async () => (await list('--device', 'flap')).includes('flap'), 'what came last is listed')
    expect(await list('--device', 'hatch')).toContain('hatch')
    expect(await list('--device', 'hatch')).not.toContain('press')
    expect(await list()).toContain('press')
  })
})
