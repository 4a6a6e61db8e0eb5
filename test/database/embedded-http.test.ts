/** The SQL port as curl, a browser and a hostile page see it, and the engine's own socket: raw requests and raw answers. */
import { existsSync, readdirSync } from 'node:fs'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Fixture, openFixture, raw, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.writer.command({ query: 'CREATE DATABASE demo ENGINE = Atomic' })
  await on.writer.command({ query: 'CREATE TABLE demo.t (id UInt32, s String) ENGINE = MergeTree ORDER BY id' })
})
afterAll(() => on.close())

function post(body: string | Buffer, headers: Record<string, string> = {}, path = '/') {
  return raw(on.url, { method: 'POST', path, headers, body })
}

/** By the socket for surgetank's own parts. */
function postOwn(body: string | Buffer, headers: Record<string, string> = {}, path = '/') {
  return raw(on.child.sockets.own, { method: 'POST', path, headers, body })
}

function query(sql: string): string {
  return `/?query=${encodeURIComponent(sql)}`
}

describe('a query by curl', () => {
  test('by GET in the address', async () => {
    expect(await raw(on.url, { path: query('SELECT 1, 2') })).toMatchObject({ status: 200, text: '1\t2\n' })
  })

  test('by POST in the body, in the address, or in both', async () => {
    expect((await post('SELECT 1;')).text).toBe('1\n')
    expect((await post('', {}, query('SELECT 2'))).text).toBe('2\n')
    expect((await post('+ 1', {}, query('SELECT 2'))).text).toBe('3\n')
  })

  test('with a format in the statement, in the address or in a header', async () => {
    expect((await raw(on.url, { path: `${query('SELECT 1 AS n')}&default_format=JSONEachRow` })).text).toBe('{"n":1}\n')
    expect((await raw(on.url, { path: query('SELECT 1 AS n'), headers: { 'X-ClickHouse-Format': 'CSV' } })).text).toBe(
      '1\n',
    )
    const csv = await raw(on.url, { path: query('SELECT 1 AS n FORMAT CSVWithNames') })
    expect(csv).toMatchObject({
      text: '"n"\n1\n',
      headers: { 'content-type': 'text/csv; charset=UTF-8', 'x-clickhouse-format': 'CSVWithNames' },
    })
  })

  test('with parameters and settings in the address', async () => {
    const path = `${query("SELECT {a:String}, getSetting('max_block_size')")}&param_a=it%27s&max_block_size=99`
    expect((await raw(on.url, { path })).text).toBe("it\\'s\t99\n")
  })

  test('compressed both ways', async () => {
    const headers = { 'Content-Encoding': 'gzip', 'Accept-Encoding': 'gzip' }
    const answer = await post(gzipSync('SELECT 1'), headers, '/?enable_http_compression=1')
    expect(answer.headers['content-encoding']).toBe('gzip')
    expect(gunzipSync(answer.bytes).toString()).toBe('1\n')
  })

  test('that is not what its Content-Encoding says is answered in a sentence', async () => {
    for (const encoding of ['gzip', 'br', 'deflate']) {
      const answer = await post('SELECT 1'.repeat(20_000), { 'Content-Encoding': encoding })
      expect(answer).toMatchObject({ status: 400, text: expect.stringContaining('The body cannot be read') })
    }
  })

  test('says Ok to a ping, and to a look at the address', async () => {
    for (const path of ['/ping', '/', '/replicas_status'])
      expect(await raw(on.url, { path })).toMatchObject({ status: 200, text: 'Ok.\n' })
    expect((await raw(on.url, { path: '/play' })).status).toBe(404)
  })

  test.each([
    ['SELECT 1 +', 400, '62'],
    ['SELECT * FROM demo.nothing', 404, '60'],
    ['', 400, '62'],
  ])('an error of %j has a status, a code and a sentence', async (sql, status, code) => {
    const answer = await post(sql)
    expect(answer).toMatchObject({ status, headers: { 'x-clickhouse-exception-code': code } })
    expect(answer.text).toMatch(new RegExp(`^Code: ${code}\\. DB::Exception: .*\\([A-Z_]+\\)`, 's'))
  })

  test('a result that breaks off in its middle does not look whole', async () => {
    const sql = "SELECT number, throwIf(number = 300000, 'boom') FROM numbers(400000) SETTINGS max_block_size = 10000"
    const answer = await postOwn(sql)
    expect(answer).toMatchObject({ status: 200, broken: true })
    expect(answer.text).toMatch(/__exception__\r\n\w{16}\r\nCode: 395.*boom.*\n\d+ \w{16}\r\n__exception__\r\n$/s)
  })

  test('with wait_end_of_query the same error has its status', async () => {
    const sql = "SELECT number, throwIf(number = 300000, 'boom') FROM numbers(400000)"
    expect((await postOwn(sql, {}, '/?wait_end_of_query=1')).headers['x-clickhouse-exception-code']).toBe('395')
  })

  test("ClickHouse's own block compression is refused in a sentence", async () => {
    expect(await raw(on.url, { path: `${query('SELECT 1')}&compress=1` })).toMatchObject({
      status: 501,
      text: expect.stringContaining('HTTP compression'),
    })
  })

  test('a statement longer than 256 KiB is refused', async () => {
    expect((await post(`SELECT '${'x'.repeat(400_000)}'`)).status).toBe(413)
  })
})

describe('who asks', () => {
  test('any password, and the user surgetank of earlier versions, are refused with 516', async () => {
    for (const [user, password] of [
      ['surgetank', 'wrong'],
      ['surgetank', ''],
      ['default', 'x'],
    ] as const) {
      const basic = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
      const ways = [
        post('SELECT 1', { authorization: basic }),
        post('SELECT 1', { 'X-ClickHouse-User': user, 'X-ClickHouse-Key': password }),
        post('SELECT 1', {}, `/?user=${user}&password=${password}`),
      ]
      for (const answer of await Promise.all(ways))
        expect(answer).toMatchObject({ status: 403, headers: { 'x-clickhouse-exception-code': '516' } })
    }
  })

  test('nobody writes by the SQL port, whatever the user', async () => {
    const ddl = 'CREATE TABLE demo.who (a Int8) ENGINE = Memory'
    for (const user of ['default', 'nobody', '']) {
      const answer = await post(ddl, { 'X-ClickHouse-User': user })
      expect(answer.headers['x-clickhouse-exception-code']).toBe('164')
    }
    expect((await postOwn(ddl)).status).toBe(200)
  })

  test("GET never changes anything, also by the engine's own socket", async () => {
    const answer = await raw(on.child.sockets.own, { path: query('DROP TABLE demo.t') })
    expect(answer.headers['x-clickhouse-exception-code']).toBe('164')
  })

  test.each([
    [{ host: 'evil.example' }],
    [{ host: '127.0.0.1.evil.example:8123' }],
    [{ origin: 'https://evil.example' }],
    [{ 'sec-fetch-site': 'cross-site' }],
  ] as Record<string, string>[][])('a page of another site, by %j, is refused', async headers => {
    expect((await post('SELECT 1', headers ?? {})).status).toBe(403)
    expect((await post('SELECT 1', { host: 'localhost:8123', origin: 'http://localhost:8080' })).status).toBe(200)
  })

  test('it listens on 127.0.0.1 only', async () => {
    const { port } = new URL(on.url)
    const refused = await new Promise(resolve => {
      const socket = createConnection(Number(port), '127.0.0.2')
      socket.once('error', () => resolve(true)).once('connect', () => resolve(false))
      socket.once('close', () => socket.destroy())
    })
    expect(refused).toBe(true)
  })
})

describe('data of an insert is never a statement', () => {
  const hostile = '{"id":1,"s":"a"}\n\nDROP TABLE demo.t'

  test.each([
    ['the body', 'INSERT INTO demo.t FORMAT JSONEachRow', hostile],
    ['the body behind its statement', '', `INSERT INTO demo.t FORMAT JSONEachRow\n${hostile}`],
    ['the address', `INSERT INTO demo.t FORMAT JSONEachRow\n${hostile}`, ''],
    [
      'a body behind a part in the address',
      'INSERT INTO demo.t FORMAT JSONEachRow {"id":1,"s":"a"}',
      '\n\nDROP TABLE demo.t',
    ],
  ])('text after a blank line in %s does not run', async (_where, inAddress, body) => {
    const answer = await postOwn(body, {}, inAddress === '' ? '/' : query(inAddress))
    expect(answer.status).toBe(400)
    expect(await scalar(on.writer, 'EXISTS TABLE demo.t')).toBe(1)
    expect(await scalar(on.writer, "SELECT count() FROM demo.t WHERE s = 'a'")).toBe(0)
  })

  test('blank lines between and within rows are only data', async () => {
    expect(
      (
        await postOwn(
          '{"id":20,"s":"x\\n\\ny"}\n\n\n{"id":21,"s":"z"}\n',
          {},
          query('INSERT INTO demo.t FORMAT JSONEachRow'),
        )
      ).status,
    ).toBe(200)
    expect((await postOwn("INSERT INTO demo.t (id, s) VALUES (22, 'a;\n\nDROP TABLE demo.t'), (23, 'b')")).status).toBe(
      200,
    )
    expect(await scalar(on.writer, 'SELECT count() FROM demo.t WHERE id BETWEEN 20 AND 23')).toBe(4)
  })

  test('bytes that are no text survive behind a statement in the same body', async () => {
    const row = Buffer.from([30, 0, 0, 0, 4, 0xff, 0x0a, 0x0a, 0x80])
    const answer = await postOwn(Buffer.concat([Buffer.from('INSERT INTO demo.t FORMAT RowBinary\n'), row]))
    expect(answer.status).toBe(200)
    expect(await scalar(on.writer, 'SELECT hex(s) FROM demo.t WHERE id = 30')).toBe('FF0A0A80')
  })

  test('a compressed body is decompressed by the engine', async () => {
    const headers = { 'Content-Encoding': 'gzip' }
    const answer = await postOwn(
      gzipSync('{"id":40,"s":"q"}\n'),
      headers,
      query('INSERT INTO demo.t FORMAT JSONEachRow'),
    )
    expect(JSON.parse(String(answer.headers['x-clickhouse-summary']))).toMatchObject({ written_rows: '1' })
  })

  test('no file is left behind, also by those that failed', () => {
    expect(existsSync(join(on.folder, 'tmp'))).toBe(true)
    expect(readdirSync(join(on.folder, 'tmp'))).toEqual([])
  })
})
