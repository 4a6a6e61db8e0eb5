/**
 * Reaching a ClickHouse server, and what an operator is told when that fails: a plain sentence, the right fate, and never the
 * password.
 */
import { once } from 'node:events'
import { createServer as createHttpServer, type RequestListener } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import type { Database, DatabaseAccess } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'
import { openProxy, type ProxyOptions, pem } from './clickhouse-proxy.ts'
import { block, type Fixture, openFixture, scalar } from './database-fixture.ts'

let on: Fixture
let access: DatabaseAccess
beforeAll(async () => {
  on = await openFixture()
  access = on.server.access
  await on.database.migrate()
})
afterAll(() => on.close())

/** What it rejects with, after a look that no password is in it. */
async function failureOf(
  changed: Partial<DatabaseAccess>,
  work: (database: Database) => Promise<unknown> = database => database.migrate(),
): Promise<SurgetankError> {
  const used = { ...access, ...changed }
  const database = openDatabase(used)
  const error = await work(database).then(
    () => null,
    (error: unknown) => error,
  )
  await database.close()
  expect(error).toBeInstanceOf(SurgetankError)
  for (const text of [inspect(error, { depth: 10, showHidden: true }), JSON.stringify(error)]) {
    expect(text).not.toContain(used.password)
    expect(text).not.toContain(Buffer.from(`${used.user}:${used.password}`).toString('base64'))
  }
  return error as SurgetankError
}

async function failureBehind(options: ProxyOptions, changed: Partial<DatabaseAccess> = {}): Promise<SurgetankError> {
  const proxy = await openProxy(on.server.url, options)
  return failureOf({ url: proxy.url, ...changed }).finally(() => proxy.close())
}

const STOP = { code: 'database_misconfigured', fate: 'stop' }
const RETRY = { code: 'database_unavailable', fate: 'retry' }

describe('who may not', () => {
  test.each([
    ['a wrong password', { password: 'wrong-password' }],
    ['an unknown user', { user: 'nobody', password: 'some-password' }],
  ])('%s is one to correct', async (_, changed) => {
    const error = await failureOf(changed)
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/Check the user and the password that are set for ClickHouse/)
  })

  test('a user who lacks the right to create tables is told to get it', async () => {
    const answer = (sql: string) => (/^CREATE TABLE/.test(sql) ? 497 : null)
    const error = await failureBehind({ answer }, { database: 'no_rights' })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/The ClickHouse user lacks a right: grant it/)
  })

  test('a user who may only insert and read works where the schema is in place', async () => {
    const answer = (sql: string) => (/^(?:CREATE|ALTER|DROP)\b/.test(sql) ? 497 : null)
    const proxy = await openProxy(on.server.url, { answer })
    const database = openDatabase({ ...access, url: proxy.url })
    await database.migrate()
    await database.insertReadings(block([{ value: 1 }], 'writing', 1), 'writing/1-2')
    expect(await database.countReadings({ source: 'writing', from: 1, to: 2 })).toBe(1)
    await database.close()
    await proxy.close()
  })

  test('an insert without the right stops nothing for good: an operator grants it, and the rows are good', async () => {
    const answer = (sql: string) => (/^INSERT/.test(sql) ? 497 : null)
    const proxy = await openProxy(on.server.url, { answer })
    const work = (database: Database) => database.insertReadings(block([{ value: 1 }], 'no', 1), 'no/1-2')
    expect(await failureOf({ url: proxy.url }, work)).toMatchObject(STOP)
    await proxy.close()
  })
})

describe('where it is', () => {
  test('a database that nobody has created yet is named to whoever asks it', async () => {
    const error = await failureOf({ database: 'not_yet' }, database => database.countBySource())
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/The database does not exist/)
  })

  test('a server that is away is waited for', async () => {
    expect(await failureOf({ url: await freeUrl() })).toMatchObject(RETRY)
  })

  test.each([502, 503, 504, 429])('a proxy that answers %i for it is waited for', async status => {
    expect(await failureAt((_, response) => response.writeHead(status).end('<html>'))).toMatchObject(RETRY)
  })

  test.each<[string, RequestListener]>([
    ['a web page', (_, response) => response.end('<html>Hello</html>')],
    ['another service', (_, response) => response.writeHead(404).end('{"error":"no such route"}')],
    ['a page longer than any answer of it', (_, response) => response.end('x'.repeat(1 << 20))],
  ])('%s at the URL is no ClickHouse', async (_, listener) => {
    const error = await failureAt(listener)
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/What answers at the URL is not ClickHouse/)
  })

  test('a server that is too old is named with its version and the one that is needed', async () => {
    for (const version of ['24.7.9.1', '23.8.1.1']) {
      const answer = (sql: string) => (/^SELECT version/.test(sql) ? `["${version}"]\n` : null)
      const error = await failureBehind({ answer })
      expect(error).toMatchObject(STOP)
      expect(error.message).toContain(`The server is ClickHouse ${version}; surgetank needs 24.8 or later`)
    }
  })

  test.each([
    [{ url: 'clickhouse:8123' }, /such as http/],
    [{ url: 'https://surgetank:open-secret@127.0.0.1:8443' }, /no user and no password/],
    [{ url: 'http://127.0.0.1:8123/telemetry' }, /must end after the port/],
    [{ database: 'a`b' }, /The name of the database/],
    [{ database: 'x'.repeat(65) }, /The name of the database/],
    [{ cluster: "c' (" }, /The name of the cluster/],
    [{ ca: pem('authority.pem') }, /begins with http:/],
    [{ url: 'https://127.0.0.1:8443', ca: '/etc/ssl/ca.pem' }, /no PEM text/],
  ])('an access that cannot be one is refused before it is used: %j', (changed, sentence) => {
    const open = () => openDatabase({ ...access, ...changed })
    expect(open).toThrow(SurgetankError)
    expect(open).toThrow(sentence)
    expect(open).not.toThrow(/open-secret/)
  })
})

describe('a look before the start', () => {
  test('needs no database yet, and changes nothing', async () => {
    const proxy = await openProxy(on.server.url)
    const database = openDatabase({ ...access, url: proxy.url, database: 'looked_for' })
    const { version, applied, newest } = await database.examine()
    expect(version).toBe(await scalar(on.writer, 'SELECT version()'))
    expect([applied, newest > 0]).toEqual([0, true])
    expect(await scalar(on.writer, "SELECT count() FROM system.databases WHERE name = 'looked_for'")).toBe(0)
    expect(proxy.statements.filter(sql => !sql.startsWith('SELECT'))).toEqual([])
    await database.close()
    await proxy.close()
  })

  test('tells of tables that are there', async () => {
    const { applied, newest } = await on.database.examine()
    expect(applied).toBe(newest)
  })

  test.each<[string, Partial<DatabaseAccess>, (sql: string) => number | string | null, RegExp]>([
    [
      'a server that is too old',
      {},
      sql => (/^SELECT version/.test(sql) ? '["24.7.9.1"]\n' : null),
      /needs 24\.8 or later/,
    ],
    ['tables of the other kind', { cluster: 'fleet' }, () => null, /has the engine MergeTree/],
    ['a cluster that is not there', { cluster: 'fleet', database: 'fresh' }, () => null, /knows no cluster fleet/],
    ['no right to see what runs', {}, sql => (/FROM system\.processes/.test(sql) ? 497 : null), /lacks a right/],
  ])('is refused by what would stop the start: %s', async (_, changed, answer, sentence) => {
    const proxy = await openProxy(on.server.url, { answer })
    const error = await failureOf({ url: proxy.url, ...changed }, database => database.examine())
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(sentence)
    await proxy.close()
  })
})

describe('with TLS', () => {
  const ca = pem('authority.pem')

  test('a server with a certificate of the authority that is named is migrated, written to and read', async () => {
    const proxy = await openProxy(on.server.url, { certificate: 'server' })
    const database = openDatabase({ ...access, url: proxy.url, database: 'over_tls', ca })
    await database.migrate()
    await database.insertReadings(block([{ value: 5 }], 'tls', 1), 'tls/1-2')
    expect(await database.countBySource()).toEqual(new Map([['tls', 1]]))
    expect(await database.ping()).toBe(true)
    expect(await scalar(on.writer, 'SELECT value FROM over_tls.readings')).toBe(5)
    await database.close()
    await proxy.close()
  })

  test.each<[string, string, string | null, RegExp]>([
    ['of an authority that nobody named', 'server', null, /certificate of the server is not trusted/],
    ['of another authority', 'server', pem('stranger.pem'), /certificate of the server is not trusted/],
    ['made for another name', 'other', ca, /or the name that it is made for/],
  ])('one with a certificate %s is not trusted, and that stays so', async (_, certificate, ca, sentence) => {
    const error = await failureBehind({ certificate }, { ca })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(sentence)
  })

  test('https to the port without it is one to correct', async () => {
    const error = await failureOf({ url: on.server.url.replace('http:', 'https:') })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/The port speaks another protocol/)
  })

  test('http to a port that answers in TLS is one to correct', async () => {
    const alert = Buffer.from([0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46])
    const server = createTcpServer(socket => void socket.on('error', () => {}).end(alert))
    const error = await failureOf({ url: await listen(server) }).finally(() => server.close())
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/The port speaks another protocol/)
  })
})

describe('with a cluster', () => {
  test('one that the server does not know is one to correct', async () => {
    const error = await failureOf({ database: 'fresh', cluster: 'fleet' })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/The server knows no cluster fleet/)
  })

  test('of several shards is refused: each would hold a part of the readings', async () => {
    const answer = (sql: string) => (/FROM system\.clusters/.test(sql) ? '[3]\n' : null)
    const error = await failureBehind({ answer }, { database: 'fresh', cluster: 'fleet' })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/has 3 shards; surgetank needs one shard/)
  })

  test('a server without Keeper is one to correct, and one whose Keeper is away is waited for', async () => {
    const clusters = (sql: string) => (/FROM system\.clusters/.test(sql) ? '[1]\n' : null)
    const noKeeper = (sql: string) => clusters(sql) ?? (/^CREATE DATABASE/.test(sql) ? 999 : null)
    expect(await failureBehind({ answer: noKeeper }, { database: 'fresh', cluster: 'fleet' })).toMatchObject(RETRY)
    // The embedded engine knows no cluster: it says so itself once it is asked to use one.
    expect(await failureBehind({ answer: clusters }, { database: 'fresh', cluster: 'fleet' })).toMatchObject(STOP)
  })

  test('is not mixed with tables that are not replicated', async () => {
    const error = await failureOf({ cluster: 'fleet' })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/telemetry.readings has the engine MergeTree, not ReplicatedMergeTree/)
  })

  test('tables that are replicated are not written without it', async () => {
    const answer = (sql: string) =>
      /SELECT database, name, engine FROM system\.tables/.test(sql)
        ? '["telemetry","readings","ReplicatedMergeTree"]\n'
        : null
    const error = await failureBehind({ answer })
    expect(error).toMatchObject(STOP)
    expect(error.message).toMatch(/name the cluster of its replicas/)
  })

  test('what is stored is counted after this replica has what the others have, and lost rows are never put past tokens', async () => {
    const answered = (sql: string) => (/^SYSTEM SYNC REPLICA/.test(sql) ? '' : null)
    const proxy = await openProxy(on.server.url, { answer: answered })
    const database = openDatabase({ ...access, url: proxy.url, cluster: 'fleet' })
    await database.catchUp()
    const synced = proxy.statements.filter(sql => sql.startsWith('SYSTEM'))
    const derived = ['state', 'readings_1m', 'readings_1h'].map(table => `\`telemetry_internal\`.${table}`)
    expect(synced).toEqual(['readings', ...derived].map(table => `SYSTEM SYNC REPLICA ${table} LIGHTWEIGHT`))
    const asked = proxy.statements.length
    const restored = database.restoreReadings(block([{ value: 1 }]), { source: 'r', from: 0, to: 1 }, async () => {})
    await expect(restored).rejects.toMatchObject(RETRY)
    expect(proxy.statements).toHaveLength(asked)
    await database.close()
    await proxy.close()
  })
})

async function failureAt(listener: RequestListener): Promise<SurgetankError> {
  const server = createHttpServer(listener)
  return failureOf({ url: await listen(server) }).finally(() => server.close())
}

async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Of a port that was free a moment ago. */
async function freeUrl(): Promise<string> {
  const server = createTcpServer()
  const url = await listen(server)
  server.close()
  await once(server, 'close')
  return url
}
