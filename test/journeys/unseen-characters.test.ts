/**
 * Characters that are not seen, or that turn around what stands beside them, in names and texts of devices and in settings:
 * stored as they came [G3], and as escapes wherever a person reads them.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePorts, type RunningSystem, runCommand, type SystemOptions, startSystem } from '../crash/system.ts'
import { until } from '../waits.ts'
import { sql } from './observed.ts'

/** But for line feeds. */
const UNSEEN = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]/u

const METRIC = 'deliver\u202erevile\u200b'
const TEXT = 'a\u2066b\ufeff\u{e0041}'

const root = mkdtempSync(join(tmpdir(), 'surgetank-unseen-'))
let system: SystemOptions
let running: RunningSystem

beforeAll(async () => {
  const env = { SURGETANK_LOG_LEVEL: 'debug' }
  system = { dataDir: join(root, 'data\u202eatad'), ports: await freePorts(), env }
  running = await startSystem(system)
  const payload = JSON.stringify({ ts: 1_600_000_000_000, values: { [METRIC]: 1.5, text: TEXT } })
  // The second time on another connection, with a new time as written: a repetition needs its own `id`.
  for (const clientId of ['press-17', 'gateway']) {
    const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${system.ports.mqtt}`, { clientId })
    await client.publishAsync('devices/press-17/telemetry', withId(payload), { qos: 1 })
    await client.publishAsync('devices/press\u202e17/telemetry', '{"a": "\u202e"}', { qos: 1 })
    await client.publishAsync('devices/press-17/telemetry', `{"\u202e${'x'.repeat(200)}": 1}`, { qos: 1 })
    await client.publishAsync('devices/press-17/telemetry', '\u202e{', { qos: 1 })
    await client.endAsync()
  }
  const url = `mqtt://127.0.0.1:${system.ports.mqtt}`
  await (await mqtt.connectAsync(url, { clientId: 'gate\u202eway', reconnectPeriod: 0 })).endAsync()
  const refused = mqtt.connectAsync(url, { clientId: 'gate\u0085way', reconnectPeriod: 0 })
  await expect(refused).rejects.toThrow('Identifier rejected')
  await until(async () => (await readings()).length === 2, 'both readings are stored')
})

afterAll(async () => {
  await running.stop()
  rmSync(root, { recursive: true, force: true })
})

it('are stored as they came [G3]', async () => {
  expect(await readings()).toEqual([
    [METRIC, ''],
    ['text', TEXT],
  ])
})

describe('the API', () => {
  it.each([
    '/v1/devices',
    '/v1/devices/press-17',
    '/v1/devices/press-17/history?from=1599999999999&to=1600000000001',
    '/v1/devices/press-17/history?from=1599999999999&to=1600000000001&every=1m',
    '/v1/stream?devices=press-17',
  ])('shows none of them in %s, and says the same to whoever parses it', async path => {
    const text = await textOf(path)
    expect(text).not.toMatch(UNSEEN)
    expect(text).toContain('deliver\\u202erevile\\u200b')
    const json = JSON.parse(/^data: (.*)$/m.exec(text)?.[1] ?? text)
    expect(JSON.stringify(json)).toContain(METRIC)
  })

  it('shows none of them in a problem', async () => {
    const text = await textOf(`/v1/devices?limit=${encodeURIComponent('\u202e')}`)
    expect(JSON.parse(text)).toMatchObject({ code: 'invalid_request' })
    expect(text).not.toMatch(UNSEEN)
  })
})

describe('the command line', () => {
  it.each([
    'quarantine ls',
    'quarantine ls --json',
    'repeated ls',
    'repeated ls --json',
    'doctor',
    'doctor --json',
    'verify',
    'verify --json',
  ])('shows none of them: %s', async words => {
    const { stdout, stderr } = await runCommand(words.split(' '), system)
    expect(stdout + stderr).not.toMatch(UNSEEN)
    if (words.startsWith('quarantine')) expect(stdout).toContain('\\u202e')
    if (words.includes('--json')) for (const line of stdout.trim().split('\n')) JSON.parse(line)
  })

  it('shows the path of a data directory without them', async () => {
    for (const words of [['doctor'], ['doctor', '--json']]) {
      const { stdout } = await runCommand(words, { ...system, dataDir: join(root, 'other\u202e') })
      expect(stdout).not.toMatch(UNSEEN)
      expect(stdout).toContain('other\\u202e')
    }
  })

  it('shows a quarantined message without them, and its bytes as they came', async () => {
    const { stdout } = await runCommand(['quarantine', 'ls', '--json'], system)
    const entries = stdout
      .trim()
      .split('\n')
      .map(line => JSON.parse(line))
    expect(entries.map(({ where }) => where)).toContain('devices/press\u202e17/telemetry')
    for (const { id } of entries) {
      const shown = await runCommand(['quarantine', 'show', id], system)
      expect(shown.stdout).not.toMatch(UNSEEN)
      expect(shown.stdout).toContain('\\u202e')
      const json = await runCommand(['quarantine', 'show', id, '--json'], system)
      expect(json.stdout).not.toMatch(UNSEEN)
      expect(Buffer.from(JSON.parse(json.stdout).payload_base64, 'base64').toString()).toContain(
        JSON.parse(json.stdout).reason === 'invalid_device' ? '"a"' : '\u202e',
      )
    }
  })

  it.each([
    ['an entry', ['quarantine', 'show', 'm\u202e1'], {}],
    ['a command', ['no\u202esuch'], {}],
    ['an option', ['repeated', 'ls', '--limit', '1\u202e'], {}],
    ['an option that there is not', ['doctor', '--\u202e'], {}],
    ['an option of simulate', ['simulate', '--\u202e'], {}],
    ['a value', ['doctor'], { SURGETANK_MQTT_PORT: '1\u202e2\n3' }],
    ['a setting', ['doctor'], { 'SURGETANK_\u202e': 'x' }],
    ['a path', ['quarantine', 'ls'], { SURGETANK_DATA_DIR: '/no\u202esuch' }],
  ])('says what is wrong without them: %s', async (_, words, env) => {
    const { code, stderr } = await runCommand(words, { ...system, env: { ...system.env, ...env } })
    expect(code).toBe(1)
    expect(stderr).not.toMatch(UNSEEN)
    expect(stderr).toContain('\\u202e')
    expect(stderr.trim()).not.toContain('\n')
  })
})

it('the log and the words at the start show none of them', () => {
  expect(running.output()).toContain('Data   ')
  expect(running.output()).toContain('data\\u202eatad/clickhouse')
  expect(running.output()).not.toMatch(UNSEEN)
})

async function textOf(path: string): Promise<string> {
  const ended = new AbortController()
  const response = await fetch(`http://127.0.0.1:${system.ports.http}${path}`, { signal: ended.signal })
  if (!path.startsWith('/v1/stream')) return response.text()
  let text = ''
  for await (const bytes of response.body ?? []) {
    text += Buffer.from(bytes).toString()
    if (text.includes('data: ')) break
  }
  ended.abort()
  return text
}

function withId(payload: string): string {
  return payload.replace('{', '{"id":"\\u202e1",')
}

function readings(): Promise<unknown[][]> {
  return sql(system.ports, 'SELECT metric, value_str FROM telemetry.readings ORDER BY metric').catch(() => [])
}
