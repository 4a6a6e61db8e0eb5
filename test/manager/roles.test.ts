/**
 * Roles: what each refuses, and what each opens, serves and leaves behind. Here a directory, memory and the embedded engine
 * stand in for the servers, in the places that settings would give; the processes themselves are in test/journeys/.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import { choosePlaces, openInlet, type Places } from '../../manager/adapters.ts'
import { openPatiently } from '../../manager/patience.ts'
import { openRole, type RunningRole, refuseEmbedded } from '../../manager/role.ts'
import type { RoleName } from '../../manager/roles.ts'
import { encodeLine } from '../../model/message.ts'
import { readSettings } from '../../settings.ts'
import { acknowledged, openClient, publishPacket } from '../broker/harness.ts'
import { onlyLines } from '../contracts/pump-samples.ts'
import { freePorts } from '../crash/system.ts'
import { type Fixture, openFixture } from '../database/database-fixture.ts'
import { timed, until } from '../waits.ts'

const log = pino({ level: 'silent' })
const SERVERS = { KAFKA_BROKERS: 'k:9092', REDIS_URL: 'redis://r', CLICKHOUSE_URL: 'http://c:8123' }
const KAFKA = { KAFKA_BROKERS: '127.0.0.1:1' }

function refusalOf(name: RoleName, env: Record<string, string>): string {
  try {
    refuseEmbedded(name, choosePlaces(readSettings(env)))
  } catch (error) {
    return (error as Error).message
  }
  return ''
}

describe('a role', () => {
  it.each([
    ['broker', ['KAFKA_BROKERS', 'REDIS_URL']],
    ['writer', ['KAFKA_BROKERS', 'CLICKHOUSE_URL']],
    ['reader', ['KAFKA_BROKERS', 'REDIS_URL', 'CLICKHOUSE_URL']],
    ['api', ['KAFKA_BROKERS', 'REDIS_URL', 'CLICKHOUSE_URL']],
  ] as const)('%s refuses to start until %j are set, naming each that is missing', (name, needed) => {
    for (const [setting, value] of Object.entries(SERVERS)) {
      const others = Object.fromEntries(Object.entries(SERVERS).filter(([other]) => other !== setting))
      const refusal = refusalOf(name, others)
      if ((needed as readonly string[]).includes(setting)) expect(refusal, value).toContain(`set ${setting}.`)
      else expect(refusal).toBe('')
    }
    const refusal = refusalOf(name, {})
    for (const setting of needed) expect(refusal).toContain(setting)
    expect(refusal).toContain(`\`surgetank ${name}\` shares`)
  })
})

let dir: string
let clickhouse: Fixture

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'surgetank-roles-'))
  clickhouse = await openFixture()
})
afterAll(async () => {
  await clickhouse.close()
  rmSync(dir, { recursive: true, force: true })
})

/** Places on this machine; the log is one of its own. */
function standIns(logName: string): Places {
  const { log: place, space } = choosePlaces(readSettings({ SURGETANK_DATA_DIR: join(dir, logName) }))
  const { access } = clickhouse.server
  return { log: place, space, database: { kind: 'server', access } }
}

interface Started {
  readonly role: RunningRole
  readonly failures: SurgetankError[]
  ready(): Promise<{ status: number; checks: Record<string, { ok: boolean; detail: string }> }>
  text(path: string): Promise<string>
}

async function start(name: RoleName, places: Places, stopping = new AbortController()): Promise<Started> {
  const failures: SurgetankError[] = []
  const settings = readSettings({ SURGETANK_HTTP_PORT: '0', SURGETANK_MQTT_PORT: '0', SURGETANK_BATCH_MS: '50' })
  const failed = (error: SurgetankError) => void failures.push(error)
  const role = await openRole(name, places, { settings, log, stopping: stopping.signal, failed })
  onTestFinished(role.stop)
  const url = `http://127.0.0.1:${role.httpPort}`
  return {
    role,
    failures,
    text: async path => (await fetch(url + path)).text(),
    async ready() {
      const response = await fetch(`${url}/readyz`)
      return { status: response.status, checks: ((await response.json()) as { checks: never }).checks }
    },
  }
}

async function append(places: Places, devices: readonly string[]): Promise<void> {
  const inlet = await openInlet(places.log, log)
  const receivedAt = Date.now()
  const readings = [{ metric: 'temperature', ts: receivedAt, receivedAt, sentTs: null, value: 21.5 }]
  const lines = devices.map(device => encodeLine({ device, receivedAt, readings })).join('\n')
  const messages = devices.length
  const times = { firstReceivedAt: receivedAt, lastReceivedAt: receivedAt }
  await inlet.append({ lines: Buffer.from(lines), ...onlyLines(messages), readings: messages, ...times })
  await inlet.close()
}

describe('the broker alone', () => {
  it('is ready while the log takes telemetry, counts it, and drains when it stops [G1]', async () => {
    const { role, ready, text } = await start('broker', standIns('broker'))
    expect(await ready()).toMatchObject({ status: 200, checks: { mqtt: { ok: true }, log: { ok: true } } })
    expect(await text('/healthz')).toBe('{"status":"ok"}')
    const port = role.mqttPort ?? 0
    const client = await openClient(port)
    for (let id = 1; id <= 50; id++) client.send(publishPacket(id))
    await client.count(51)
    expect(acknowledged(client)).toHaveLength(50)
    expect(await text('/metrics')).toMatch(/^telemetry_readings_accepted_total [1-9]/m)
    await role.stop()
    await client.closed
    await expect(fetch(`http://127.0.0.1:${role.httpPort}/healthz`)).rejects.toThrow()
    await expect(connected(port)).resolves.toBe(false)
  })
})

describe('the writer alone', () => {
  it('makes the schema, brings the log into ClickHouse, and is ready while it runs [G2]', async () => {
    const places = standIns('writer')
    await append(places, ['role-1', 'role-2', 'role-3'])
    const { ready, text, failures, role } = await start('writer', places)
    expect(await ready()).toMatchObject({ status: 200, checks: { writer: { ok: true } } })
    await untilStored("device LIKE 'role-%'", 3)
    // Counted once the position has moved, a moment after the rows are there.
    await until(async () => /^telemetry_readings_persisted_total 3/m.test(await text('/metrics')))
    await role.stop()
    expect(failures).toEqual([])
  })

  it('waits for a ClickHouse that is not there yet, and is ready meanwhile', async () => {
    const places = standIns('waiting')
    const database = { kind: 'server', access: { ...clickhouse.server.access, url: 'http://127.0.0.1:1' } } as const
    await append(places, ['later'])
    const { ready, role, failures } = await start('writer', { ...places, database })
    await until(async () => (await ready()).checks.clickhouse?.ok === false)
    expect((await ready()).status).toBe(200)
    expect((await timed(() => role.stop())).ms).toBeLessThan(10_000)
    expect(failures).toEqual([])
  })

  it('ends within two seconds while ClickHouse is at a step of the migration that takes long', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    onTestFinished(() => {
      silent.closeAllConnections()
      silent.close()
    })
    const { port } = silent.address() as AddressInfo
    const places = standIns('migrating')
    const { role, failures } = await start('writer', {
      ...places,
      database: { kind: 'server', access: { ...clickhouse.server.access, url: `http://127.0.0.1:${port}` } },
    })
    await once(silent, 'request')
    expect((await timed(() => role.stop())).ms).toBeLessThan(2_000)
    expect(failures).toEqual([])
  })

  it('ends with what an operator must mend: a password that ClickHouse refuses', async () => {
    const places = standIns('refused')
    await append(places, ['refused'])
    const access = { ...clickhouse.server.access, password: 'wrong' }
    const { failures } = await start('writer', { ...places, database: { kind: 'server', access } })
    await until(() => failures.length === 1)
    expect(failures).toMatchObject([{ code: 'database_misconfigured', fate: 'stop' }])
    expect(failures[0]?.message).not.toContain('wrong')
  })
})

describe('the API alone', () => {
  it('serves state and health on one port, and is ready while its space answers', async () => {
    const places = standIns('api')
    await append(places, ['api-1'])
    const { ready, text, role } = await start('api', places)
    const { status, checks } = await ready()
    expect({ status, names: Object.keys(checks).sort() }).toEqual({
      status: 200,
      names: ['clickhouse', 'space', 'state'],
    })
    expect(JSON.parse(await text('/v1/devices'))).toMatchObject({ items: [] })
    await role.stop()
    await expect(fetch(`http://127.0.0.1:${role.httpPort}/healthz`)).rejects.toThrow()
  })
})

describe('the reader alone', () => {
  it('rebuilds the state and says so [G4]', async () => {
    await clickhouse.database.migrate()
    const places = standIns('reader')
    await append(places, ['read-1', 'read-2'])
    const { ready, text } = await start('reader', places)
    await until(async () => (await ready()).checks.state?.ok === true)
    await until(async () => /^telemetry_rehydrating 0/m.test(await text('/metrics')))
  })
})

describe('a role whose log is not there yet', () => {
  it('answers /healthz, is not ready, and ends at once when it is told to', async () => {
    const places = choosePlaces(readSettings({ ...SERVERS, ...KAFKA }))
    const stopping = new AbortController()
    const httpPort = (await freePorts()).http
    const settings = readSettings({ SURGETANK_HTTP_PORT: String(httpPort), SURGETANK_MQTT_PORT: '0' })
    const starting = openRole('broker', places, { settings, log, stopping: stopping.signal, failed: () => {} })
    const refused = expect(starting).rejects.toThrow('aborted')
    const url = `http://127.0.0.1:${httpPort}`
    await until(async () => (await fetch(`${url}/healthz`).catch(() => null))?.status === 200)
    const ready = await fetch(`${url}/readyz`)
    expect(ready.status).toBe(503)
    expect(await ready.json()).toMatchObject({ checks: { process: { detail: 'waits for what it needs' } } })
    stopping.abort()
    await refused
    await expect(fetch(`${url}/healthz`)).rejects.toThrow()
  })

  it('goes on once it is there, and says both in the log', async () => {
    const lines: string[] = []
    const told = pino({ level: 'info' }, { write: line => void lines.push(line) })
    let tries = 0
    const opened = await openPatiently('the log', { log: told, stopping: new AbortController().signal }, () => {
      if (++tries < 3) throw new SurgetankError('log_unavailable', 'Not yet.')
      return 'open'
    })
    expect([opened, tries]).toEqual(['open', 3])
    expect(lines.map(line => JSON.parse(line).msg)).toEqual([
      'waiting for the log',
      'waiting for the log',
      'the log is there',
    ])
  })

  it('does not wait where an operator must act', async () => {
    const stopping = new AbortController().signal
    const open = () => Promise.reject(new SurgetankError('log_newer', 'Newer.'))
    await expect(openPatiently('the log', { log, stopping }, open)).rejects.toMatchObject({ code: 'log_newer' })
  })
})

async function untilStored(where: string, rows: number): Promise<void> {
  await until(async () => {
    const sql = `SELECT count() FROM telemetry.readings WHERE ${where} FORMAT TabSeparated`
    const answer = await fetch(clickhouse.url, { method: 'POST', body: sql })
    return answer.ok && Number(await answer.text()) === rows
  })
}

function connected(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
