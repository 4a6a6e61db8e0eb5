/**
 * The SQL port's process [G6]: what it refuses without asking the engine, what happens when the engine or it is away, and that
 * nothing of what analysts do there is felt by surgetank's own parts.
 */
import { once } from 'node:events'
import { lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { startEmbeddedDatabase } from '../../database/embedded/embedded-database.ts'
import { openEngineClient } from '../../database/sql-port/engine-client.ts'
import { openSqlServer } from '../../database/sql-port/server.ts'
import { startSqlPort } from '../../database/sql-port/sql-port.ts'
import { until } from '../waits.ts'
import { block, type Fixture, openFixture, raw, rows, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
})
afterAll(() => on.close())

type Way = 'sql' | 'own'

function connectTo(way: Way): Socket {
  return way === 'own' ? connect(on.child.sockets.own) : connect(on.sql.port, '127.0.0.1')
}

/** Sends these bytes, and no end of them; all that comes until the other side closes. */
async function exchange(way: Way, head: readonly string[], body: Buffer | string = ''): Promise<string> {
  const socket = connectTo(way).on('error', () => {})
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  socket.write(`${head.join('\r\n')}\r\n\r\n`)
  socket.write(body)
  await once(socket, 'close')
  return text
}

const POST = ['POST / HTTP/1.1', 'Host: localhost']
const SELECT = 'SELECT 1'

describe.each(['sql', 'own'] as const)('a body that is not what its encoding says, by %s', way => {
  test.each([
    ['gzip, broken off', 'gzip', gzipSync(SELECT).subarray(0, 15)],
    ['gzip, broken off in its head', 'gzip', gzipSync(SELECT).subarray(0, 5)],
    ['gzip that is text', 'gzip', Buffer.from(SELECT)],
    ['gzip of one byte', 'gzip', Buffer.from('S')],
    ['gzip with a wrong sum', 'gzip', Buffer.concat([gzipSync(SELECT).subarray(0, -8), Buffer.alloc(8)])],
    ['gzip with text behind', 'gzip', Buffer.concat([gzipSync(SELECT), Buffer.from('garbage')])],
    ['gzip that is br', 'gzip', brotliCompressSync(SELECT)],
    ['x-gzip that is text', 'x-gzip', Buffer.from(SELECT)],
    ['br, broken off', 'br', brotliCompressSync(SELECT).subarray(0, 4)],
    ['br that is text', 'br', Buffer.from(SELECT)],
    ['br that is gzip', 'br', gzipSync(SELECT)],
    ['deflate, broken off', 'deflate', deflateSync(SELECT).subarray(0, 6)],
    ['deflate that is text', 'deflate', Buffer.from(SELECT)],
    ['deflate that is gzip', 'deflate', gzipSync(SELECT)],
  ])('%s: 400 at once, and the connection is closed', async (_, encoding, body) => {
    const head = [...POST, `Content-Encoding: ${encoding}`, `Content-Length: ${body.length}`]
    expect(await exchange(way, head, body)).toMatch(/^HTTP\/1\.1 400 .*BAD_ARGUMENTS/s)
  })

  test('what is wrong from its beginning is told before the rest has come', async () => {
    for (const rest of ['Content-Length: 1000000', 'Transfer-Encoding: chunked']) {
      const body = rest.startsWith('T') ? `8\r\n${SELECT}\r\n` : SELECT
      const answer = await exchange(way, [...POST, 'Content-Encoding: gzip', rest], body)
      expect(answer).toMatch(/^HTTP\/1\.1 400 .*incorrect header check/s)
    }
  })

  test('nothing at all is broken, too', async () => {
    const head = [...POST, 'Content-Encoding: gzip', 'Transfer-Encoding: chunked']
    expect(await exchange(way, head, '0\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /)
  })

  test('an encoding that is not spoken is named', async () => {
    for (const encoding of ['gzip, gzip', 'compress', 'zstd']) {
      const head = [...POST, 'Connection: close', `Content-Encoding: ${encoding}`, `Content-Length: ${SELECT.length}`]
      expect(await exchange(way, head, SELECT)).toMatch(/^HTTP\/1\.1 501 /)
    }
  })

  test('one that becomes far longer is cut: 413, and little memory', async () => {
    for (const body of [gzipSync(Buffer.alloc(300_000_000, 32)), brotliCompressSync(Buffer.alloc(300_000_000, 32))]) {
      const encoding = body[0] === 0x1f ? 'gzip' : 'br'
      const before = residentBytes(way === 'sql' ? on.sql.pid : on.child.pid)
      const head = [...POST, 'Connection: close', `Content-Encoding: ${encoding}`, `Content-Length: ${body.length}`]
      expect(await exchange(way, head, body)).toMatch(/^HTTP\/1\.1 413 /)
      expect(residentBytes(way === 'sql' ? on.sql.pid : on.child.pid) - before).toBeLessThan(60_000_000)
    }
  })
})

test.each([
  ['gzip', gzipSync('{"device":"broken"}\n').subarray(0, 20)],
  ['gzip', Buffer.from('{"device":"broken"}\n')],
  ['br', Buffer.from('{"device":"broken"}\n')],
  ['deflate', Buffer.from('{"device":"broken"}\n')],
  ['zstd', Buffer.from('{"device":"broken"}\n')],
])(
  'data of an insert that is not what its encoding says, %s, is a bad request and leaves nothing',
  async (encoding, body) => {
    const insert = 'INSERT INTO telemetry.readings FORMAT JSONEachRow'
    for (const query of encoding === 'zstd' ? [insert] : [insert, `${insert} {"device":"broken"}\n`]) {
      const path = `/?query=${encodeURIComponent(query)}`
      const headers = { 'Content-Encoding': encoding }
      expect((await raw(on.child.sockets.own, { method: 'POST', path, headers, body })).status).toBe(400)
    }
    expect(await scalar(on.writer, "SELECT count() FROM telemetry.readings WHERE device = 'broken'")).toBe(0)
  },
)

describe('an encoding that is long and holds nothing', () => {
  test('is cut by its own length', async () => {
    const nothing = gzipSync('')
    const body = Buffer.concat(Array.from({ length: 40_000 }, () => nothing))
    const head = [...POST, 'Connection: close', 'Content-Encoding: gzip', `Content-Length: ${body.length}`]
    expect(await exchange('sql', head, body)).toMatch(/^HTTP\/1\.1 413 /)
  })
})

describe('a request that never ends', () => {
  test('is ended by the limit of its time', async () => {
    const engine = openEngineClient(join(tmpdir(), 'no-such.sock'))
    const server = await openSqlServer({ engine, port: 0, requestMsMax: 300 })
    const socket = connect(server.port, '127.0.0.1')
    let text = ''
    socket.on('data', chunk => {
      text += chunk
    })
    socket.write(`${POST.join('\r\n')}\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nSELECT 1\r\n`)
    await once(socket, 'close')
    expect(text).toMatch(/^HTTP\/1\.1 408 /)
    await server.close(0)
  })
})

describe('a Host header', () => {
  test.each([
    ['two, ours first', ['Host: localhost', 'Host: evil.example']],
    ['two, ours last', ['Host: evil.example', 'Host: localhost']],
    ['the same one twice', ['Host: localhost', 'host: localhost']],
    ['two names in one', ['Host: localhost, evil.example']],
  ])('%s: 400', async (_, hosts) => {
    const answer = await exchange('sql', ['GET /?query=SELECT+1 HTTP/1.1', ...hosts, 'Connection: close'])
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
  })

  test('of another name than the target: 400', async () => {
    const line = 'GET http://evil.example/?query=SELECT+1 HTTP/1.1'
    expect(await exchange('sql', [line, 'Host: localhost', 'Connection: close'])).toMatch(/^HTTP\/1\.1 400 /)
  })
})

test.each([
  ['//', 404],
  ['//evil.example/ping', 404],
  ['/\\', 404],
  ['//[', 404],
  ['*', 400],
  ['ftp://localhost/', 400],
])('the target %s is no query and no fault of ours: %i', async (target, status) => {
  for (const way of ['sql', 'own'] as const) {
    const answer = await exchange(way, [`GET ${target} HTTP/1.1`, 'Host: localhost', 'Connection: close'])
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
  }
})

test.each([['X-ClickHouse-Key: secret'], ['Authorization: Bearer secret'], ['Authorization: Basic !']])(
  'whoever gives a secret is not taken for nobody: %s',
  async header => {
    const head = ['GET /?query=SELECT+1 HTTP/1.1', 'Host: localhost', 'Connection: close', header]
    expect(await exchange('sql', head)).toMatch(/^HTTP\/1\.1 403 .*AUTHENTICATION_FAILED/s)
  },
)

describe('a body that is too long', () => {
  test.each([
    ['POST / HTTP/1.1', 413],
    ['POST /no/such HTTP/1.1', 404],
    ['POST /ping HTTP/1.1', 200],
    ['PUT / HTTP/1.1', 405],
  ])('%s is answered before it has come, also while its client goes on sending', async (line, status) => {
    // A client that still sends when the connection is closed is reset, and may lose the answer before it has read it.
    let text = ''
    for (let tries = 0; tries < 10 && text === ''; tries++) text = await sendWithoutEnd(line)
    expect(text).toContain(`HTTP/1.1 ${status} `)
  })

  async function sendWithoutEnd(line: string): Promise<string> {
    const socket = connectTo('sql').on('error', () => {})
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    socket.write(`${line}\r\nHost: localhost\r\nContent-Length: 4000000000\r\n\r\n`)
    const sending = setInterval(() => socket.writableLength < 1e6 && socket.write(Buffer.alloc(64 * 1024, 32)), 1)
    await once(socket, 'close')
    clearInterval(sending)
    expect(socket.bytesWritten).toBeLessThan(64 * 1024 * 1024)
    return text
  }

  test('of an INSERT of an analyst is refused with 164 and kept nowhere', async () => {
    const data = Buffer.from('{"device":"analyst"}\n'.repeat(100_000))
    for (const path of ['/', `/?query=${encodeURIComponent('INSERT INTO telemetry.readings FORMAT JSONEachRow')}`]) {
      const first = path === '/' ? 'INSERT INTO telemetry.readings FORMAT JSONEachRow\n' : ''
      const body = Buffer.concat([Buffer.from(first), data])
      const answer = await raw(on.url, { method: 'POST', path, body })
      expect(answer).toMatchObject({ status: 403, headers: { 'x-clickhouse-exception-code': '164' } })
    }
    expect(readdirSync(join(on.folder, 'tmp'))).toEqual([])
  })
})

describe('a connection of the engine that analysts share', () => {
  const ask = (sql: string, more = '') => raw(on.url, { path: `/?query=${encodeURIComponent(sql)}${more}` })

  test('keeps no setting, parameter or database of the request before', async () => {
    const size = "SELECT getSetting('max_block_size'), currentDatabase()"
    const plain = await ask(size)
    expect(plain.text).toMatch(/\ttelemetry\n$/)
    for (let round = 0; round < 3; round++) {
      expect((await ask(size, '&max_block_size=99&database=information_schema')).text).toBe('99\tinformation_schema\n')
      expect((await ask(size, '&max_block_size=98')).text).toBe('98\ttelemetry\n')
      expect((await ask(`${size} SETTINGS max_threads = 1`)).text).toBe(plain.text)
      expect((await ask(size)).text).toBe(plain.text)
      expect((await ask('SELECT {p:String}', '&param_p=given')).text).toBe('given\n')
      expect((await ask('SELECT {p:String}')).text).toMatch(/^Code: 456/)
    }
  })

  test('is as new after a statement that failed, and after one whose client went away', async () => {
    for (let round = 0; round < 3; round++) {
      expect((await ask('SELECT throwIf(1)')).status).toBe(400)
      const gone = new AbortController()
      const endless = on.analyst.query({
        query: 'SELECT number FROM numbers(10000000000)',
        abort_signal: gone.signal,
        format: 'CSV',
      })
      const stream = (await endless).stream()
      await once(stream, 'readable')
      gone.abort()
      stream.on('error', () => {}).destroy()
      expect((await ask('SELECT 1')).text).toBe('1\n')
    }
  })

  test('takes no table of an analyst', async () => {
    expect(
      (await raw(on.url, { method: 'POST', path: '/', body: 'CREATE TEMPORARY TABLE mine (a Int8)' })).status,
    ).toBe(403)
    expect((await ask('SELECT * FROM mine')).status).toBe(404)
  })
})

describe('a client that reads slowly', () => {
  test('holds back the engine, and the memory of both processes stays flat', async () => {
    const pids = [on.sql.pid, on.child.pid]
    const socket = connectTo('sql')
    const body = 'SELECT number, number, number FROM numbers(10000000000)'
    socket.write(`${POST.join('\r\n')}\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    await once(socket, 'readable')
    await pause(1_000)
    const before = pids.map(residentBytes)
    await pause(3_000)
    for (const [at, pid] of pids.entries()) expect(residentBytes(pid) - (before[at] ?? 0)).toBeLessThan(50_000_000)
    socket.destroy()
    const running =
      "SELECT count() FROM system.processes WHERE query LIKE '%numbers(10000000000)%' AND query NOT LIKE '%LIKE%'"
    await until(async () => (await scalar(on.writer, running)) === 0, 'its query is ended')
  })
})

test('an answer that was long leaves its connection to the engine free for the next one', async () => {
  const query = 'SELECT number, toString(number) FROM numbers(20000)'
  for (let round = 0; round < 100; round++) {
    const result = await on.analyst.query({ query, format: 'CSV' })
    expect((await result.text()).length).toBe(257_780)
    expect(await scalar(on.analyst, 'SELECT 1')).toBe(1)
  }
})

describe('clients that read nothing', () => {
  test('hold no place of other analysts for long', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-unread-'))
    const child = await startEmbeddedDatabase({ dataDir: folder, limits: { secondsMax: 1 } })
    const sql = await startSqlPort({ port: 0, analystsSocket: child.sockets.analysts })
    const unread = await Promise.all(
      ['&wait_end_of_query=0', '&enable_http_compression=0'].map(async more => {
        const socket = connect(sql.port, '127.0.0.1').on('error', () => {})
        const query = encodeURIComponent('SELECT number, number, number FROM numbers(10000000000)')
        socket.write(`GET /?query=${query}${more} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
        await once(socket, 'readable')
        return socket
      }),
    )
    expect((await raw(`http://127.0.0.1:${sql.port}`, { path: '/?query=SELECT+1' })).text).toBe('1\n')
    for (const socket of unread) socket.destroy()
    await Promise.all([sql.stop(), child.stop()])
    rmSync(folder, { recursive: true })
  })
})

test('a connection that asks on and on without an answer is closed', async () => {
  const socket = connectTo('sql').on('error', () => {})
  const line = `GET /?query=${encodeURIComponent('SELECT sleep(3)')} HTTP/1.1\r\nHost: localhost\r\n\r\n`
  socket.resume().write(line.repeat(17))
  await once(socket, 'close')
  expect(await scalar(on.analyst, SELECT)).toBe(1)
})

describe.each(['sql', 'own'] as const)('requests one behind the other on one connection, by %s', way => {
  const line = (sql: string) => `GET /?query=${encodeURIComponent(sql)} HTTP/1.1\r\nHost: localhost\r\n\r\n`

  test('are answered in their order', async () => {
    const last = line("SELECT 'row 3'").replace('\r\n\r\n', '\r\nConnection: close')
    const text = await exchange(way, [`${line("SELECT 'row 1', sleep(0.2)")}${line("SELECT 'row 2'")}${last}`])
    expect(text.match(/row \d/g)).toEqual(['row 1', 'row 2', 'row 3'])
  })

  test('all end with the connection, also those whose turn had not come', async () => {
    const sql = `SELECT number, '${way}' FROM numbers(10000000000)`
    const running = `SELECT count() FROM system.processes WHERE query LIKE '%''${way}'' FROM numbers%' AND query NOT LIKE '%LIKE%'`
    for (let round = 0; round < 2; round++) {
      const socket = connectTo(way).on('error', () => {})
      // One less than its lane takes, so that the count is answered meanwhile.
      const count = way === 'own' ? 3 : 2
      socket.write(line(sql).repeat(count))
      await once(socket, 'readable')
      await until(async () => (await scalar(on.writer, running)) === count, 'they run')
      socket.destroy()
      await until(async () => (await scalar(on.writer, running)) === 0, 'they are ended')
    }
    expect(await scalar(way === 'own' ? on.writer : on.analyst, SELECT)).toBe(1)
  })
})

describe('while the engine is away', () => {
  test('each request is answered at once with 210, and as before when it is back', async () => {
    const { pid } = on.sql
    expect(await scalar(on.analyst, SELECT)).toBe(1)
    on.child.kill()
    await until(async () => (await raw(on.url, { path: '/?query=SELECT+1' })).status === 503)
    const answer = await raw(on.url, { method: 'POST', path: '/', body: SELECT })
    expect(answer).toMatchObject({ status: 503, headers: { 'x-clickhouse-exception-code': '210' } })
    expect(answer.text).toMatch(/^Code: 210\. DB::Exception: The database is away.*\(NETWORK_ERROR\)\n$/)
    expect((await raw(on.url, { path: '/ping' })).status).toBe(200)
    await on.restart()
    expect(await scalar(on.analyst, SELECT)).toBe(1)
    expect(on.sql.pid).toBe(pid)
  })

  test('a result that breaks off does not look whole', async () => {
    // Its head is there: what follows can only break off.
    const { body } = await fetch(on.url, { method: 'POST', body: 'SELECT number FROM numbers(10000000000)' })
    on.child.kill()
    let [broken, text] = [false, '']
    try {
      for await (const chunk of body ?? []) text = (text + Buffer.from(chunk).toString('latin1')).slice(-10_000)
    } catch {
      broken = true
    }
    expect({ broken, text }).toMatchObject({ broken: true, text: expect.stringMatching(/__exception__.*Code: 210\./s) })
    await on.restart()
  })

  test("the engine's own client is told to try again", async () => {
    on.child.kill()
    await until(async () => !(await on.database.ping()))
    const away = openDatabase({ ...on.access, socketPath: join(on.folder, 'none.sock') })
    for (const database of [on.database, away]) {
      await expect(database.countBySource()).rejects.toMatchObject({ code: 'database_unavailable', fate: 'retry' })
      await expect(database.examine()).rejects.toMatchObject({ code: 'database_unavailable', fate: 'retry' })
    }
    await away.close()
    await on.restart()
    expect(await on.database.ping()).toBe(true)
  })
})

describe("surgetank's own parts", () => {
  test('do not feel hundreds of sockets that idle on the SQL port', async () => {
    const sockets = Array.from({ length: 600 }, () => connectTo('sql').on('error', () => {}))
    await until(() => sockets.filter(socket => socket.readyState !== 'opening').length === sockets.length)
    const inserts = Array.from({ length: 20 }, (_, at) =>
      on.database.insertReadings(block([{ device: 'flood', value: at }], 'flood', at), `flood-${at}`),
    )
    await Promise.all(inserts)
    const stored = "SELECT count() FROM telemetry.readings WHERE device = 'flood'"
    expect(await scalar(on.writer, stored)).toBe(20)
    for (const socket of sockets) socket.destroy()
    await until(async () => (await scalar(on.analyst, stored).catch(() => null)) === 20, 'the port answers again')
  })

  test('do not feel that the process of the SQL port is killed', async () => {
    const port = on.sql.port
    const { pid } = on.child
    for (let at = 0; at < 10; at++) {
      const insert = on.database.insertReadings(block([{ device: 'kill-sql', value: at }], 'sql', at), `sql-${at}`)
      if (at === 5) on.sql.kill()
      await insert
    }
    await on.restartSql()
    expect(on.sql.port).toBe(port)
    expect(on.child.pid).toBe(pid)
    expect(await scalar(on.analyst, "SELECT count() FROM telemetry.readings WHERE device = 'kill-sql'")).toBe(10)
  })

  test('may ask to be refused every change', async () => {
    const database = openDatabase(on.access, { readonly: true })
    expect((await database.examine()).rewrite).toBe(null)
    const change = database.insertReadings(block([{ value: 1 }], 'never', 1), 'never')
    await expect(change).rejects.toThrow(/readonly/)
    await database.close()
  })
})

describe('the processes', () => {
  test('the engine listens on no port, and its sockets are for its user only', async () => {
    const { own, analysts } = on.child.sockets
    expect(portsOf(on.child.pid)).toEqual([])
    expect(portsOf(on.sql.pid)).toContain(on.sql.port)
    expect(lstatSync(dirname(own)).mode & 0o777).toBe(0o700)
    for (const path of [own, analysts]) expect(lstatSync(path).mode & 0o777).toBe(0o600)
  })

  test('a start of the SQL port on a taken port says so', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    await expect(startSqlPort({ port, analystsSocket: on.child.sockets.analysts })).rejects.toMatchObject({
      code: 'port_in_use',
      fate: 'stop',
      message: expect.stringContaining('set SURGETANK_SQL_PORT'),
    })
    server.close()
  })

  test('the end of the SQL port by SIGTERM is in order: what runs is answered first', async () => {
    const under = rows(on.analyst, 'SELECT sleep(0.5)')
    await until(
      async () =>
        (
          await rows(
            on.writer,
            "SELECT 1 FROM system.processes WHERE query LIKE '%sleep(0.5)%' AND query NOT LIKE '%LIKE%'",
          )
        ).length === 1,
    )
    await on.sql.stop()
    expect(await under).toEqual([[0]])
    await on.restartSql()
  })
})

function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1_024
}

/** TCP ports that a process listens on. */
function portsOf(pid: number): number[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).map(fd => /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1]),
  )
  return ['tcp', 'tcp6', 'udp', 'udp6'].flatMap(table =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .slice(1)
      .map(line => line.trim().split(/\s+/))
      .filter(([, , , , , , , , , inode]) => inode !== undefined && inodes.has(inode))
      .map(fields => Number.parseInt(fields[1]?.split(':')[1] ?? '', 16)),
  )
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}
