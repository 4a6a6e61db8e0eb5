/** Which adapter each port gets, by settings alone. */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import {
  choosePlaces,
  isEmbedded,
  openInlet,
  openOutlet,
  openSessionStore,
  openSpace,
  openView,
  placeSessions,
} from '../../manager/adapters.ts'
import { readSettings } from '../../settings.ts'
import { onlyLines } from '../contracts/pump-samples.ts'
import { openLmdbHarness } from '../pump/lmdb-harness.ts'

const log = pino({ level: 'silent' })
const placesOf = (env: Record<string, string>) => choosePlaces(readSettings(env))

describe('adapters', () => {
  it.each([
    [{}, ['directory', 'memory', 'embedded']],
    [{ KAFKA_BROKERS: 'k:9092' }, ['kafka', 'memory', 'embedded']],
    [{ REDIS_URL: 'redis://r' }, ['directory', 'redis', 'embedded']],
    [{ CLICKHOUSE_URL: 'http://c:8123' }, ['directory', 'memory', 'server']],
    [{ KAFKA_BROKERS: 'k:9092', REDIS_URL: 'redis://r' }, ['kafka', 'redis', 'embedded']],
    [{ KAFKA_BROKERS: 'k:9092', CLICKHOUSE_URL: 'http://c:8123' }, ['kafka', 'memory', 'server']],
    [{ REDIS_URL: 'redis://r', CLICKHOUSE_URL: 'http://c:8123' }, ['directory', 'redis', 'server']],
    [{ KAFKA_BROKERS: 'k:1', REDIS_URL: 'redis://r', CLICKHOUSE_URL: 'http://c:1' }, ['kafka', 'redis', 'server']],
  ])('of %j are picked one by one', (env, kinds) => {
    const places = placesOf(env as Record<string, string>)
    expect([places.log.kind, places.space.kind, places.database.kind]).toEqual(kinds)
    const embedded = (['log', 'space', 'database'] as const).map(port => isEmbedded(places, port))
    expect(embedded).toEqual(kinds.map(kind => ['directory', 'memory', 'embedded'].includes(kind)))
  })

  it('get a place that can be told to another process as it is', () => {
    const { log, database } = placesOf({ KAFKA_BROKERS: 'k:9092', CLICKHOUSE_URL: 'http://c:8123' })
    expect(JSON.parse(JSON.stringify({ log, database }))).toEqual({ log, database })
  })

  it("take Kafka's TLS and SASL, or none", () => {
    expect(placesOf({ KAFKA_BROKERS: 'k:9092' }).log).toMatchObject({ tls: null, sasl: null })
    const secured = {
      KAFKA_BROKERS: 'k:9092',
      SURGETANK_KAFKA_TLS: 'yes',
      SURGETANK_KAFKA_SASL: 'scram-sha-512',
      SURGETANK_KAFKA_USER: 'u',
      SURGETANK_KAFKA_PASSWORD: 'p',
    }
    const sasl = { mechanism: 'scram-sha-512', user: 'u', password: 'p' }
    expect(placesOf(secured).log).toMatchObject({ tls: { ca: null }, sasl })
  })

  it("put Redis' password into the URL whatever characters it has", () => {
    const { space } = placesOf({ REDIS_URL: 'redis://me@r:6379/2', SURGETANK_REDIS_PASSWORD: 'a/b@c:d%e' })
    if (space.kind !== 'redis') throw new Error('not Redis')
    const url = new URL(space.url)
    expect([url.username, decodeURIComponent(url.password), url.host, url.pathname]).toEqual([
      'me',
      'a/b@c:d%e',
      'r:6379',
      '/2',
    ])
  })

  it("take ClickHouse's user and password out of the URL, or from settings", () => {
    const inUrl = placesOf({ CLICKHOUSE_URL: 'https://me:a%2Fb@c:8443' }).database
    expect(inUrl).toMatchObject({
      access: { url: 'https://c:8443', user: 'me', password: 'a/b', database: 'telemetry' },
    })
    const apart = placesOf({ CLICKHOUSE_URL: 'http://c:8123/', SURGETANK_CLICKHOUSE_PASSWORD: 'x' }).database
    expect(apart).toMatchObject({
      access: { url: 'http://c:8123', user: 'default', password: 'x', cluster: null, ca: null },
    })
  })

  it('of a directory and of memory are opened on the same log, and nobody shares their sessions', async () => {
    const { dir, destroy } = await openLmdbHarness()
    try {
      const place = { kind: 'directory', dir, bytesMax: 64 << 20, keepHours: 1, quarantineBytesMax: 1 << 20 } as const
      const inlet = await openInlet(place, log)
      const view = await openView(place, log)
      const outlet = await openOutlet(place, log)
      const lines = Buffer.from('{"device":"d","receivedAt":1,"readings":[["m",1,null,2]]}')
      await inlet.append({ lines, ...onlyLines(1), readings: 1, firstReceivedAt: 1, lastReceivedAt: 1 })
      expect((await view.lag()).readings).toBe(1)
      await Promise.all([inlet.close(), view.close(), outlet.close()])
    } finally {
      await destroy()
    }
    const { space, sessions } = await openSpace({ kind: 'memory', devicesMax: 10 }, true, log)
    expect(sessions).toBeNull()
    await space.close()
  })

  it('keeps what clients hold in the data directory, and nothing where there is none', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'surgetank-adapters-'))
    const space = await openSpace({ kind: 'memory', devicesMax: 10 }, true, log)
    try {
      const settings = readSettings({ SURGETANK_SESSIONS_MAX: '20', SURGETANK_SESSION_HOURS: '2' })
      expect(placeSessions(settings, dir)).toEqual({ dir: `${dir}/sessions`, sessionsMax: 20, expiryMs: 7_200_000 })
      const store = await openSessionStore(placeSessions(settings, dir), space, log)
      expect(await store?.open({ principal: '', client: 'a' })).toMatchObject({ isPresent: false })
      await store?.close()
      expect(await openSessionStore(placeSessions(settings, null), space, log)).toBeNull()
    } finally {
      await space.space.close()
      await rm(dir, { recursive: true, force: true })
    }
  })
})
