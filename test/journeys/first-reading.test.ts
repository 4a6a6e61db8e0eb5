/** The way of a newcomer: start, publish, read it back over the API and over SQL, stop. Known only from outside. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { given } from '../waits.ts'

const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-journey-'))
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

describe('a newcomer', () => {
  it('publishes a first reading and reads it back by API and by SQL [G1] [G7]', async () => {
    await publish('devices/press-17/telemetry', '{"temperature": 21.5, "on": true, "serial": 9007199254740993}')
    const state = await getJson('/v1/devices/press-17')
    expect(state).toMatchObject({ device: 'press-17', metrics: { temperature: { value: 21.5 }, on: { value: true } } })
    const rows = await answered(
      () =>
        sql(
          "SELECT metric, kind, value, value_str FROM telemetry.latest WHERE device = 'press-17' ORDER BY metric FORMAT TSV",
        ),
      text => text !== '',
    )
    expect(rows).toBe(
      'on\tbool\t1\t\nserial\tinteger\t9007199254740992\t9007199254740993\ntemperature\tnumber\t21.5\t\n',
    )
    expect(await runCommand(['verify'], system)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('The books balance.'),
    })
  })

  it('finds a message that could not be stored exactly in the quarantine, as it came [G3]', async () => {
    await publish('devices/press-17/telemetry', '{"temperature": 1e999}')
    const listed = await runCommand(['quarantine', 'ls', '--json'], system)
    const [entry] = listed.stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line))
    expect(entry).toMatchObject({ device: 'press-17', where: 'devices/press-17/telemetry' })
    const shown = await runCommand(['quarantine', 'show', entry.id], system)
    expect(shown.stdout).toContain('{"temperature": 1e999}')
  })

  it('reads history with buckets that say how far it is complete', async () => {
    const history = await answered(
      () => getJson('/v1/devices/press-17/history?metrics=temperature&every=1h&agg=count,max'),
      answer => answer.series.length > 0,
    )
    expect(history.persisted_through).toMatch(/^\d{4}-/)
    expect(history.series.map(({ agg }) => agg).sort()).toEqual(['count', 'max'])
  })

  it('can read by SQL, and nothing else [G6]', async () => {
    for (const statement of [
      'DROP TABLE telemetry.readings',
      "SELECT * FROM file('/etc/hostname', 'LineAsString')",
      'SYSTEM STOP MERGES',
    ]) {
      const response = await fetch(`http://127.0.0.1:${running.ports.sql}/`, { method: 'POST', body: statement })
      expect(response.ok, statement).toBe(false)
    }
  })

  it('is told by name when the data directory is in use, or a setting makes no sense', async () => {
    const second = await runCommand([], { ...system, ports: await freePorts() })
    expect(second).toMatchObject({ code: 1, stderr: expect.stringContaining(`Process ${running.pid} uses`) })
    const unknown = await runCommand(['doctor'], { ...system, env: { SURGETANK_MQT_PORT: '1' } })
    expect(unknown).toMatchObject({ code: 1, stderr: expect.stringContaining('SURGETANK_MQT_PORT is no setting') })
  })

  it('is told when a command does not exist', async () => {
    const mistyped = await runCommand(['verfy'], system)
    expect(mistyped).toMatchObject({ code: 1, stderr: expect.stringContaining("'verfy' is no command") })
  })

  it('is told which port is taken, and which setting changes it', async () => {
    const taken = await runCommand([], {
      dataDir: mkdtempSync(join(tmpdir(), 'surgetank-journey-')),
      ports: system.ports,
      env: { SURGETANK_MQTT_PORT: String(running.ports.mqtt), SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' },
    })
    // On a busy machine it may be ended by its own SIGKILL before it has exited.
    expect(taken.code).not.toBe(0)
    expect(taken.stderr).toContain('SURGETANK_MQTT_PORT')
  })

  it('has its state again after a stop and a start, and the stop drains and exits with 0', async () => {
    await publish('devices/press-17/telemetry', '{"temperature": 22.25}')
    expect(await running.stop()).toBe(0)
    running = await startSystem(system)
    // A device that comes back before the state is rebuilt, and has nothing to say for now.
    const device = await mqtt.connectAsync(`mqtt://127.0.0.1:${running.ports.mqtt}`, { clientId: 'press-17' })
    const state = await answered(
      () => getJson('/v1/devices/press-17'),
      document => document.rehydrating === false && document.online,
    )
    await device.endAsync()
    expect(state.online).toBe(true)
    expect(state.metrics.temperature?.value).toBe(22.25)
    expect(state.metrics.serial?.value).toBe('9007199254740993')
  })
})

async function publish(topic: string, payload: string): Promise<void> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${running.ports.mqtt}`)
  await client.publishAsync(topic, payload, { qos: 1 })
  await client.endAsync()
}

/** The parts of the API's documents that are looked at here. */
interface Answer {
  readonly rehydrating: boolean
  readonly online: boolean
  readonly metrics: Readonly<Record<string, { readonly value: unknown } | undefined>>
  readonly persisted_through: string
  readonly series: readonly { readonly agg: string }[]
}

async function getJson(path: string): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${running.ports.http}${path}`)
  return (await response.json()) as Answer
}

async function sql(statement: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${running.ports.sql}/`, { method: 'POST', body: statement })
  if (!response.ok) throw new Error(await response.text())
  return response.text()
}

/** The first answer that is enough. */
function answered<T>(ask: () => Promise<T>, enough: (answer: T) => boolean): Promise<T> {
  return given(async () => {
    const answer = await ask()
    return enough(answer) ? answer : null
  })
}
