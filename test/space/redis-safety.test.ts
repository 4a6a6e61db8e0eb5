/** What must not be used is refused in a sentence, what is away is waited for, and no credential gets out. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { hasFate } from '../../errors.ts'
import { metrics } from '../../metrics.ts'
import { openReader } from '../../readers/reader.ts'
import { checkInfo } from '../../space/redis-client.ts'
import { shardOf } from '../../space/redis-keys.ts'
import { openRedisSpace } from '../../space/redis-space.ts'
import { rejection } from '../contracts/pump-samples.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'
import { until } from '../waits.ts'
import { all, openModelSources } from './model-sources.ts'
import { freshPrefix, openSpace, reading, SILENT, spaceOptions } from './redis-spaces.ts'

describe.skipIf(!redisHere)('a Redis that is not as it should be', () => {
  const opened: TestRedis[] = []
  afterAll(async () => {
    for (const server of opened) await server.stop()
  })
  const start = async (settings: readonly string[] = []) => {
    const redis = await startRedis(settings)
    opened.push(redis)
    return redis
  }

  test('one that evicts is refused, with what to set', async () => {
    const redis = await start(['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'])
    const error = await rejection(openRedisSpace(spaceOptions(redis.url)))
    expect(error).toMatchObject({ code: 'space_misconfigured', fate: 'stop' })
    expect(error.message).toContain('maxmemory-policy allkeys-lru')
    expect(error.message).toContain('set maxmemory-policy noeviction')
  })

  test('one that is too old is refused, and one of another make that is new enough is not', () => {
    const at = { host: 'redis', port: 6379 }
    const info = (version: string) => `redis_version:${version}\r\nmaxmemory_policy:noeviction\r\n`
    expect(() => checkInfo(info('6.2.14'), at)).toThrow('redis:6379 is Redis 6.2.14; 7 or newer is needed.')
    for (const version of ['7.0.0', '7.2.4', '8.0.1', '10.0.0'])
      expect(() => checkInfo(info(version), at)).not.toThrow()
  })

  test('several addresses that are no Cluster are refused', async () => {
    const [one, another] = [await start(), await start()]
    const error = await rejection(openRedisSpace(spaceOptions(`${one.url},${another.url}`)))
    expect(error).toMatchObject({ code: 'space_misconfigured' })
    expect(error.message).toContain('no Cluster')
  })

  test('a wrong password is refused, and no password or user stands in any message or log line', async () => {
    const redis = await start(['--requirepass', 'the-real-one'])
    const [lines, log] = openLog()
    const wrong = redis.url.replace('//', '//some-user:pass-w0rd@')
    const error = await rejection(openRedisSpace(spaceOptions(wrong, { log })))
    expect(error).toMatchObject({ code: 'space_misconfigured', fate: 'stop' })
    log.error({ err: error }, 'as main would')
    const missing = await rejection(openRedisSpace(spaceOptions(redis.url, { log })))
    expect(missing).toMatchObject({
      code: 'space_misconfigured',
      detail:
        `It refused connecting to 127.0.0.1:${redis.port}: NOAUTH Authentication required. ` +
        'Check the user in REDIS_URL, and the password there or in SURGETANK_REDIS_PASSWORD.',
    })
    const unreadable = await rejection(openRedisSpace(spaceOptions('redis://some-user:pass-w0rd@:x', { log })))
    log.error({ err: unreadable }, 'as main would')

    const space = await openRedisSpace(spaceOptions(redis.url.replace('//', '//:the-real-one@'), { log }))
    await space.merge([reading('a', 1_000, 1)])
    await redis.kill()
    await expect(space.get('a')).rejects.toThrow()
    await space.settled().catch(err => log.error({ err }, 'as a caller would'))
    await space.close()
    expect(lines.length).toBeGreaterThan(3)
    for (const secret of ['pass-w0rd', 'the-real-one', 'some-user']) expect(lines.join('\n')).not.toContain(secret)
  })

  test('a user and password of the URL, and its database, are used', async () => {
    const redis = await start(['--requirepass', 'p@ss/w:rd'])
    const space = await openSpace(`redis://default:${encodeURIComponent('p@ss/w:rd')}@127.0.0.1:${redis.port}/3`)
    await space.merge([reading('a', 1_000, 1)])
    expect((await space.get('a'))?.device).toBe('a')
    const authorized = await redisCommandOn(redis, 'p@ss/w:rd', 3)
    expect(authorized).toBeGreaterThan(0)
  })

  test('a database that is not there is refused', async () => {
    const redis = await start()
    const cluster = await start(['--cluster-enabled', 'yes'])
    for (const url of [`${redis.url}/99`, `${cluster.url}/1`]) {
      const error = await rejection(openRedisSpace(spaceOptions(url)))
      expect(error).toMatchObject({ code: 'space_misconfigured', fate: 'stop' })
      expect(error.message).toContain(
        `Redis has no database ${url.split('/').at(-1)}; REDIS_URL names it after the port.`,
      )
    }
  })

  test('a connection that comes back and may not have its database is not used', async () => {
    const redis = await start()
    const prefix = freshPrefix()
    await redis.command('ACL', 'SETUSER', 'third', 'on', '>pw', '+@all', '~*', '&*')
    const space = await openSpace(`${redis.url.replace('//', '//third:pw@')}/3`, { prefix })
    await space.merge([reading('a', 1_000, 1)])
    await space.settled()
    await redis.command('ACL', 'SETUSER', 'third', '-select')
    await redis.command('CLIENT', 'KILL', 'USER', 'third')
    const refused = (error: unknown) => hasFate(error, 'stop')
    await until(() => space.get('a').then(no, refused))
    expect(await redis.command('KEYS', `${prefix}*`)).toEqual([])
  })

  test('a user that may no more than is needed is enough, and one that may less is refused', async () => {
    const redis = await start()
    const prefix = freshPrefix()
    const may = ['+@all', '-@dangerous', '+info', `~${prefix}*`, `&${prefix}*`]
    await redis.command('ACL', 'SETUSER', 'tank', 'on', '>pw', ...may)
    await redis.command('ACL', 'SETUSER', 'none', 'on', '>pw', '-@all', '+ping')
    const space = await openSpace(redis.url.replace('//', '//tank:pw@'), { prefix })
    const told = new Promise<readonly string[]>(resolve => space.watch(1, resolve))
    await space.merge([reading('a', 1_000, 1)])
    expect(await told).toEqual(['a'])
    await (await space.claimRebuild())?.finish()
    expect(space.warm).toBe(true)
    expect(await space.sessions.take('c')).toEqual({ moved: true, settled: true })
    expect(await space.sessions.take('c')).toEqual({ moved: false, settled: true })
    const error = await rejection(openRedisSpace(spaceOptions(redis.url.replace('//', '//none:pw@'), { prefix })))
    expect(error).toMatchObject({ code: 'space_misconfigured', fate: 'stop' })
  })

  test('of devices that only connect, those that did so last are remembered [G5]', async () => {
    const redis = await start()
    const space = await openSpace(redis.url)
    const ids = Array.from({ length: 120_000 }, (_, at) => `s${at}`)
    for (let from = 0; from < ids.length; from += 5_000) {
      const slice = ids.slice(from, from + 5_000)
      await space.mergePresence(slice.map((device, at) => ({ device, online: true, at: 1_000 + from + at })))
      await space.settled()
    }
    const keys = (await redis.command('KEYS', '*stranger*')) as string[]
    for (const key of keys) {
      const held = await redis.command(key.endsWith('times') ? 'ZCARD' : 'HLEN', key)
      expect(held).toBe(100_000 / 16)
    }
    await space.merge(['s0', 's119999'].map(id => reading(id, 500_000, 1)))
    expect((await space.getMany(['s0', 's119999'])).map(({ online }) => online)).toEqual([false, true])
    expect(await space.counts()).toEqual({ devices: 2, online: 1 })
  })

  test.skipIf(!hasOpenssl())(
    'TLS is spoken with a certificate that the given authority signed, and with no other',
    async () => {
      const dir = mkdtempSync(join(tmpdir(), 'surgetank-tls-'))
      onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
      makeCertificate(dir)
      const settings = ['--tls-cert-file', join(dir, 'server.crt'), '--tls-key-file', join(dir, 'server.key')]
      const redis = await start([...settings, '--tls-auth-clients', 'no', '--port', '0', '--tls-port', '$port'])
      const url = `rediss://127.0.0.1:${redis.port}`
      const space = await openSpace(url, { ca: readFileSync(join(dir, 'server.crt'), 'utf8') })
      await space.merge([reading('a', 1_000, 1)])
      expect((await space.get('a'))?.device).toBe('a')
      const [lines, log] = openLog()
      const distrusting = await openSpace(url, { log })
      await expect(distrusting.get('a')).rejects.toMatchObject({ code: 'space_unavailable' })
      expect(lines.join('\n')).toMatch(/certificate/)
    },
  )

  test('while it is away at the start the space opens, cold, and takes what is merged until it comes', async () => {
    const redis = await start()
    await redis.kill()
    const space = await openSpace(redis.url)
    expect(space.warm).toBe(false)
    await space.merge([reading('a', 1_000, 1)])
    await expect(space.settled()).rejects.toMatchObject({ fate: 'retry' })
    await expect(space.claimRebuild()).rejects.toMatchObject({ fate: 'retry' })
    await expect(space.claimLostUnits()).rejects.toMatchObject({ fate: 'retry' })
    await redis.start()
    await until(async () => (await space.get('a').catch(() => null)) !== null)
  })

  test('who asks one that does not answer is told why', async () => {
    const redis = await start()
    await redis.kill()
    const web = createServer((_, response) => response.end()).listen(0, '127.0.0.1')
    onTestFinished(() => void web.close())
    await once(web, 'listening')
    const webPort = (web.address() as AddressInfo).port
    const whys = [
      [redis.port, `connect ECONNREFUSED 127.0.0.1:${redis.port}`],
      [webPort, 'Unknown RESP type 72 "H"'],
    ] as const
    for (const [port, why] of whys) {
      const space = await openSpace(`redis://127.0.0.1:${port}`)
      const error = await rejection(space.get('a'))
      expect(error).toMatchObject({ code: 'space_unavailable', detail: `127.0.0.1:${port} is away: ${why}.` })
    }
  })

  test('what does not fit the buffer is let go and counted, and a rebuild brings it [G5]', async () => {
    const redis = await start()
    const sources = openModelSources()
    const space = await openSpace(redis.url)
    const reader = openReader({ space, database: sources.database, view: sources.view, log: SILENT })
    onTestFinished(() => reader.close())
    await until(() => space.warm)
    await redis.kill()
    const before = await letGo()
    const ids = idsOfOneShard(26_000)
    for (let at = 0; at < ids.length; at += 1_000) {
      const messages = ids.slice(at, at + 1_000).map(id => reading(id, 1_000, at))
      await sources.append(messages)
      await space.merge(messages)
    }
    expect((await letGo()) - before).toBe(1_000)
    expect(space.warm).toBe(false)
    await redis.start()
    await until(() => space.warm)
    await space.settled()
    expect(await all(space)).toEqual(await all(sources.oracle))
  })

  test('a key that is no state of ours costs its device alone, and a rebuild mends it', async () => {
    const redis = await start()
    const sources = openModelSources()
    const prefix = freshPrefix()
    const space = await openSpace(redis.url, { prefix })
    const first = ['a', 'b', 'c'].map(id => reading(id, 1_000, 1, { metric: 'old' }))
    await sources.append(first)
    await space.merge(first)
    await (await space.claimRebuild())?.finish()
    const [key = ''] = (await redis.command('KEYS', `${prefix}*d:b`)) as string[]
    await redis.command('SET', key, 'something else')
    const before = await letGo()
    const then = ['a', 'b', 'c'].map(id => reading(id, 2_000, 2))
    await sources.append(then)
    await space.merge(then)
    await space.settled()
    expect((await letGo()) - before).toBe(1)
    expect(space.warm).toBe(false)
    expect((await space.getMany(['a', 'c'])).map(({ metrics }) => metrics.length)).toEqual([2, 2])
    const reader = openReader({ space, database: sources.database, view: sources.view, log: SILENT })
    onTestFinished(() => reader.close())
    await until(() => space.warm)
    expect(await all(space)).toEqual(await all(sources.oracle))
  })

  test('out of memory, it keeps what it has, and gets the rest when it has room', async () => {
    const redis = await start()
    const space = await openSpace(redis.url)
    await space.merge([reading('a', 1_000, 1)])
    await space.settled()
    await redis.command('CONFIG', 'SET', 'maxmemory', '1')
    await space.merge([reading('a', 2_000, 2)])
    await expect(space.settled()).rejects.toMatchObject({ code: 'space_unavailable' })
    await redis.command('CONFIG', 'SET', 'maxmemory', '0')
    await until(() => space.settled().then(yes, no))
    expect((await space.get('a'))?.metrics[0]?.value).toBe(2)
  })

  test('out of memory, the state is no longer served as whole by anyone, devices stay online, and all comes back [G4]', async () => {
    const redis = await start()
    const sources = openModelSources()
    const prefix = freshPrefix()
    const space = await openSpace(redis.url, { prefix })
    const other = await openSpace(redis.url, { prefix, unit: false })
    const stopWatching = other.watch(10, () => {})
    onTestFinished(stopWatching)
    const now = Date.now()
    const tell = async (value: number) => {
      const messages = [reading('a', now + value, value)]
      await sources.append(messages)
      await space.merge(messages)
    }
    await tell(1)
    await space.mergePresence([{ device: 'a', online: true, at: now }])
    await sources.oracle.mergePresence([{ device: 'a', online: true, at: now }])
    await space.settled()
    const reader = openReader({ space: other, database: sources.database, view: sources.view, log: SILENT })
    onTestFinished(() => reader.close())
    await until(() => space.warm && other.warm)

    await redis.command('CONFIG', 'SET', 'maxmemory', '1')
    await tell(2)
    await until(() => !other.warm && !space.warm)
    // Longer than a lease: it is renewed, and the state stays cold.
    const refusedFor = openClock()
    await until(async () => {
      expect(other.warm).toBe(false)
      expect((await other.get('a'))?.online).toBe(true)
      return refusedFor() > 7_000
    })
    // Both spaces of this process set it, and one has nothing to merge.
    await until(async () => Number((await metrics.stateUnmergedSeconds.get()).values[0]?.value) > 5)

    await redis.command('CONFIG', 'SET', 'maxmemory', '0')
    await until(() => other.warm && space.warm)
    expect(await all(other)).toEqual(await all(sources.oracle))
    expect((await other.get('a'))?.metrics[0]?.value).toBe(2)
  })

  test('a search and a count over many devices let other reads have their turn', async () => {
    const redis = await start()
    const space = await openSpace(redis.url)
    for (let at = 0; at < 50_000; at += 1_000) {
      await space.merge(Array.from({ length: 1_000 }, (_, more) => reading(`device-${at + more}`, 1_000, at)))
      await space.settled()
    }
    await redis.command('CONFIG', 'RESETSTAT')
    const found = await space.page({ after: null, limit: 10, search: '-49999', online: null })
    expect(found.map(({ device }) => device)).toEqual(['device-49999'])
    expect(await space.page({ after: null, limit: 10, search: null, online: true })).toEqual([])
    expect(await space.counts()).toEqual({ devices: 50_000, online: 0 })
    const stats = String(await redis.command('INFO', 'commandstats'))
    // A thousand ids at a time, and no command that walks over everything.
    expect(Number(/cmdstat_zrange:calls=(\d+)/.exec(stats)?.[1])).toBeGreaterThanOrEqual(50)
    expect(stats).not.toMatch(/cmdstat_(keys|scan|zscan|hscan|smembers)/)
  })
})

/** More than the buffer of one shard holds, 25,000, so that a thousand do not fit. */
function idsOfOneShard(count: number): string[] {
  const ids: string[] = []
  for (let at = 0; ids.length < count; at++) if (shardOf(`press-${at}`) === 3) ids.push(`press-${at}`)
  return ids
}

/** Returns for how long it has run, ms. */
function openClock(): () => number {
  const since = performance.now()
  return () => performance.now() - since
}

async function letGo(): Promise<number> {
  return (await metrics.stateLetGo.get()).values.reduce((sum, { value }) => sum + value, 0)
}

function openLog() {
  const lines: string[] = []
  return [lines, pino({ level: 'debug' }, { write: line => lines.push(line) })] as const
}

async function redisCommandOn(redis: TestRedis, password: string, db: number): Promise<number> {
  const args = ['-p', String(redis.port), '-n', String(db), 'DBSIZE']
  const out = execFileSync('redis-cli', args, { env: { ...process.env, REDISCLI_AUTH: password } })
  return Number(out.toString().trim())
}

function hasOpenssl(): boolean {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

function makeCertificate(dir: string): void {
  const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1', '-subj', '/CN=127.0.0.1']
  const out = [
    '-addext',
    'subjectAltName=IP:127.0.0.1',
    '-keyout',
    join(dir, 'server.key'),
    '-out',
    join(dir, 'server.crt'),
  ]
  execFileSync('openssl', [...args, ...out], { stdio: 'ignore' })
}

const yes = () => true
const no = () => false
