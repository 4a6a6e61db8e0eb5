/** What the environment may say, and how it is told that it may not. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { isLoopback, readSettings, SETTINGS, settingsPage } from '../settings.ts'

const SECRET = 'hunter2-hunter2'
let dir: string

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'surgetank-settings-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function refusal(env: Record<string, string>): string {
  try {
    readSettings(env)
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('it was taken')
}

describe('settings', () => {
  it('without any, every part is the embedded one and listens on loopback only [G6]', () => {
    const settings = readSettings({})
    expect(settings).toMatchObject({ KAFKA_BROKERS: [], REDIS_URL: '', CLICKHOUSE_URL: '' })
    expect(isLoopback(settings.SURGETANK_LISTEN)).toBe(true)
  })

  it('an empty variable is as good as none', () => {
    const empty = Object.fromEntries(Object.keys(SETTINGS).map(name => [name, '']))
    expect(readSettings(empty)).toEqual(readSettings({}))
  })

  it('takes several brokers, with or without spaces, and names what is no broker', () => {
    const brokers = ['a:9092', 'b.example:9093', '10.0.0.5:65535']
    expect(readSettings({ KAFKA_BROKERS: 'a:9092, b.example:9093,10.0.0.5:65535' }).KAFKA_BROKERS).toEqual(brokers)
    expect(refusal({ KAFKA_BROKERS: 'a:9092,b' })).toContain("KAFKA_BROKERS is 'a:9092,b'; it takes host:port")
    for (const wrong of ['a:0', 'a:65536', '[::1]:9092', 'a:9092,']) {
      expect(refusal({ KAFKA_BROKERS: wrong })).toContain('it takes host:port')
    }
  })

  it('refuses a variable that is no setting, also one that names a file for what is no secret', () => {
    expect(refusal({ SURGETANK_MQTT_PROT: '1' })).toContain('SURGETANK_MQTT_PROT is no setting')
    expect(refusal({ SURGETANK_MQTT_PORT_FILE: '/x' })).toContain('SURGETANK_MQTT_PORT_FILE is no setting')
  })

  it.each([
    ['another scheme', 'http://redis:6379'],
    ['a query', 'redis://redis:6379?db=1'],
    ['no URL', 'redis'],
    ['a % that stands for nothing', 'redis://:50%off@redis:6379'],
  ])('refuses a REDIS_URL with %s', (_, url) => {
    expect(refusal({ REDIS_URL: url })).toContain('it takes a URL that begins with redis:// or rediss://')
  })
})

describe('secrets', () => {
  it('come from a file as well, without the newline at its end', () => {
    const path = join(dir, 'password')
    writeFileSync(path, `${SECRET}\n`)
    const env = { CLICKHOUSE_URL: 'http://c:8123', SURGETANK_CLICKHOUSE_PASSWORD_FILE: path }
    expect(readSettings(env).SURGETANK_CLICKHOUSE_PASSWORD).toBe(SECRET)
    writeFileSync(path, `redis://:${SECRET}@redis:6379`)
    expect(readSettings({ REDIS_URL_FILE: path }).REDIS_URL).toContain(SECRET)
  })

  it('from a file that is not there are refused with its name; from both ways at once, too', () => {
    const missing = join(dir, 'none')
    expect(refusal({ SURGETANK_KAFKA_PASSWORD_FILE: missing })).toContain(`'${missing}'; it takes a file`)
    expect(refusal({ SURGETANK_REDIS_PASSWORD: SECRET, SURGETANK_REDIS_PASSWORD_FILE: missing })).toContain('both set')
  })

  it.each([
    { REDIS_URL: `amqp://user:${SECRET}@redis` },
    { CLICKHOUSE_URL: `https://default:${SECRET}@ch:8443/?x=1` },
    { SURGETANK_KAFKA_PASSWORD: `${SECRET}\u0000` },
    { SURGETANK_KAFKA_PASSWORD: SECRET },
    { REDIS_URL: `redis://:${SECRET}@redis`, SURGETANK_REDIS_PASSWORD: SECRET },
  ])('stand in no refusal: %#', env => {
    expect(refusal(env as Record<string, string>)).not.toContain(SECRET)
  })

  it('have no default on the page', () => {
    const rows = settingsPage().split('\n')
    for (const [name, { secret }] of Object.entries(SETTINGS)) {
      const row = rows.find(line => line.startsWith(`| \`${name}\``)) ?? ''
      expect(row, name).not.toBe('')
      if (secret) expect(row, name).toContain(`| \`${name}\` |  |`)
    }
  })
})

describe('settings that contradict each other', () => {
  it.each([
    [{ SURGETANK_LISTEN: '0.0.0.0' }, 'SURGETANK_UNAUTHENTICATED=allow'],
    [{ SURGETANK_LISTEN: '::' }, 'SURGETANK_UNAUTHENTICATED=allow'],
    [{ SURGETANK_KAFKA_SASL: 'plain', SURGETANK_KAFKA_USER: 'u' }, 'needs SURGETANK_KAFKA_USER and'],
    [{ SURGETANK_KAFKA_USER: 'u' }, 'SURGETANK_KAFKA_SASL does not say'],
    [{ REDIS_URL: 'redis://:a@r', SURGETANK_REDIS_PASSWORD: 'b' }, 'REDIS_URL holds a password'],
    [{ CLICKHOUSE_URL: 'http://u:a@c', SURGETANK_CLICKHOUSE_PASSWORD: 'b' }, 'CLICKHOUSE_URL holds a password'],
    [{ CLICKHOUSE_URL: 'http://u@c', SURGETANK_CLICKHOUSE_USER: 'b' }, 'CLICKHOUSE_URL holds a user'],
  ])('are refused in a sentence: %j', (env, sentence) => {
    expect(refusal(env as unknown as Record<string, string>)).toContain(sentence)
  })

  it.each(['KAFKA', 'REDIS', 'CLICKHOUSE'])('an authority for %s without TLS is refused', name => {
    const path = join(dir, 'ca.pem')
    writeFileSync(path, '-----BEGIN CERTIFICATE-----\n')
    const urls = { REDIS_URL: 'redis://r:6379', CLICKHOUSE_URL: 'http://c:8123' }
    expect(refusal({ ...urls, [`SURGETANK_${name}_CA`]: path })).toContain(`SURGETANK_${name}_CA is set`)
    expect(refusal({ SURGETANK_KAFKA_CA: join(dir, 'none') })).toContain('it takes a file that can be read')
  })

  it.each([
    ['SURGETANK_KAFKA_TOPIC', 'other', 'KAFKA_BROKERS'],
    ['SURGETANK_KAFKA_PARTITIONS', '12', 'KAFKA_BROKERS'],
    ['SURGETANK_KAFKA_TLS', 'yes', 'KAFKA_BROKERS'],
    ['SURGETANK_REDIS_PASSWORD', SECRET, 'REDIS_URL'],
    ['SURGETANK_REDIS_PREFIX', 'other:', 'REDIS_URL'],
    ['SURGETANK_CLICKHOUSE_USER', 'u', 'CLICKHOUSE_URL'],
    ['SURGETANK_CLICKHOUSE_PASSWORD', SECRET, 'CLICKHOUSE_URL'],
    ['SURGETANK_CLICKHOUSE_CLUSTER', 'fleet', 'CLICKHOUSE_URL'],
  ])('%s without the server that it is about is refused', (name, value, address) => {
    expect(refusal({ [name]: value })).toContain(`${name} is set, and ${address} is not`)
  })

  it('what a server would be told by default is no contradiction without it', () => {
    const entries = Object.entries(SETTINGS).filter(([name]) => /^SURGETANK_(?:KAFKA|REDIS|CLICKHOUSE)_/.test(name))
    const given = Object.fromEntries(entries.map(([name, setting]) => [name, setting.default]))
    expect(readSettings(given)).toEqual(readSettings({}))
  })

  it('listening beyond loopback is taken when every peer is said to be trusted [G6]', () => {
    const open = readSettings({ SURGETANK_LISTEN: '0.0.0.0', SURGETANK_UNAUTHENTICATED: 'allow' })
    expect(open.SURGETANK_LISTEN).toBe('0.0.0.0')
    expect(readSettings({ SURGETANK_LISTEN: '127.0.0.2' }).SURGETANK_LISTEN).toBe('127.0.0.2')
  })
})
