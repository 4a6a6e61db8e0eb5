/** The child process that owns the engine: its deaths, its starts, and what survives them. */
import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { ACCESS_DEFAULTS } from '../../database/database.ts'
import { type EmbeddedExit, startEmbeddedDatabase } from '../../database/embedded/embedded-database.ts'
import { until } from '../waits.ts'
import { block, bytesOf, type Fixture, held, openFixture, raw, rows, scalar } from './database-fixture.ts'

let on: Fixture
const exits: EmbeddedExit[] = []
beforeAll(async () => {
  on = await openFixture(exit => exits.push(exit))
  await on.database.migrate()
})
afterAll(() => on.close())

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, '127.0.0.1')
  const free = await Promise.race([once(server, 'listening').then(() => true), once(server, 'error').then(() => false)])
  server.close()
  return free
}

const RUNNING = "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"
const ENDLESS = 'SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1'

/** Its first row comes after a moment: who has it knows that the statement runs. */
const SLEEPS_FOR_A_MINUTE = 'SELECT number FROM numbers(600) WHERE sleepEachRow(0.1) = 0 SETTINGS max_block_size = 1'
const SLEEPING =
  "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%' AND query NOT LIKE '%processes%'"

async function untilRunning(count: number): Promise<void> {
  await until(async () => (await scalar(on.writer, RUNNING)) === count, `${count} queries are running`)
}

describe('a client that goes away', () => {
  test.each(['JSONEachRow', 'JSON'] as const)('ends its query, of a result as %s', async format => {
    const gone = new AbortController()
    const query = on.analyst.query({ query: ENDLESS, format, abort_signal: gone.signal })
    await untilRunning(1)
    gone.abort()
    await expect(query).rejects.toThrow(/aborted/)
    await untilRunning(0)
  })

  test('ends its query while it reads a large result slowly', async () => {
    const gone = new AbortController()
    const result = await on.writer.query({
      query: 'SELECT number, sipHash64(number) FROM numbers(1000000000)',
      format: 'JSONEachRow',
      abort_signal: gone.signal,
    })
    const stream = result.stream()
    await once(stream, 'readable')
    gone.abort()
    stream.on('error', () => {}).destroy()
    await untilRunning(0)
  })

  test('in the middle of the data of an insert leaves neither rows nor a file', async () => {
    const gone = new AbortController()
    async function* rowsForEver() {
      for (;;) yield Buffer.from('{"device":"endless"}\n')
    }
    const values = Readable.from(rowsForEver(), { objectMode: false })
    const insert = on.writer.exec({
      query: 'INSERT INTO telemetry.readings FORMAT JSONEachRow',
      values,
      abort_signal: gone.signal,
    })
    await until(() => readdirSync(join(on.folder, 'tmp')).length === 1)
    gone.abort()
    await expect(insert).rejects.toThrow()
    await until(() => readdirSync(join(on.folder, 'tmp')).length === 0)
    expect(await scalar(on.writer, "SELECT count() FROM telemetry.readings WHERE device = 'endless'")).toBe(0)
  })
})

describe('a child that is killed', () => {
  test('[G2] in the middle of inserts, again and again, leaves each row once, and answers on the same socket', async () => {
    const batches = 12
    const rowsOf = (batch: number) =>
      block(
        Array.from({ length: 500 }, (_, i) => ({ device: 'kill', metric: `m${i % 5}`, value: batch * 500 + i })),
        'kill',
        batch,
      )
    for (let batch = 0; batch < batches; batch++) {
      const insert = () => on.database.insertReadings(rowsOf(batch), `kill-${batch}`)
      if (batch % 4 === 3) {
        const before = exits.length
        const attempt = insert().catch(error => expect(error).toMatchObject({ fate: 'retry' }))
        await setTimeout(batch * 2)
        on.child.kill()
        await attempt
        await until(() => exits.length === before + 1)
        await on.restart()
      }
      await insert()
    }
    await on.database.repairDerived({ source: 'kill', from: 0, to: batches }, held)
    const totals = await rows(
      on.writer,
      `SELECT (SELECT count() FROM telemetry.readings WHERE source = 'kill'), (SELECT uniqExact(value) FROM telemetry.readings WHERE source = 'kill'),
        (SELECT sum(readings) FROM telemetry_internal.readings_1m WHERE device = 'kill'), (SELECT sum(readings) FROM telemetry_internal.readings_1h WHERE device = 'kill')`,
    )
    expect(totals).toEqual([[batches * 500, batches * 500, batches * 500, batches * 500]])
    expect(exits[0]).toMatchObject({ signal: 'SIGKILL', expected: true })
  })

  test('by its own fault is told apart from one that was ended', async () => {
    const before = exits.length
    process.kill(on.child.pid, 'SIGKILL')
    await until(() => exits.length === before + 1)
    expect(exits.at(-1)).toMatchObject({ signal: 'SIGKILL', expected: false })
    await expect(on.database.countBySource()).rejects.toMatchObject({ code: 'database_unavailable' })
    await on.restart()
  })

  test('leaves files of inserts that the next start removes', async () => {
    on.child.kill()
    await until(async () => !(await on.database.ping()))
    writeFileSync(join(on.folder, 'tmp', 'insert-1-1'), 'half')
    await on.restart()
    expect(readdirSync(join(on.folder, 'tmp'))).toEqual([])
  })
})

describe('bodies that break off', () => {
  /** Sends the beginning of a compressed body, as a client does that is then gone. */
  async function half(encoding: string, beginning: Buffer): Promise<void> {
    const socket = connect(Number(new URL(on.url).port), '127.0.0.1')
    await once(socket, 'connect')
    const head = `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: ${encoding}\r\nContent-Length: 1000000\r\n\r\n`
    socket.write(head)
    await new Promise(resolve => socket.write(beginning, resolve))
    socket.destroy()
  }

  test('leave no decoder that waits for the rest: the end is in order', async () => {
    const before = exits.length
    const text = randomBytes(200_000).toString('hex')
    for (let i = 0; i < 20; i++) {
      await Promise.all([
        half('gzip', gzipSync(text).subarray(0, 50_000)),
        half('gzip', gzipSync(text).subarray(0, 10)),
        half('br', brotliCompressSync(Buffer.from(text)).subarray(0, 1_000)),
        half('deflate', deflateSync(text).subarray(0, 1_000)),
      ])
    }
    await scalar(on.writer, 'SELECT 1')
    await on.child.stop()
    expect(exits.slice(before)).toEqual([expect.objectContaining({ signal: 'SIGTERM', expected: true })])
    await on.restart()
  })
})

describe('an engine that hangs', () => {
  test('does not answer a ping, though its interface would', async () => {
    const hung = createServer(socket =>
      socket
        .on('error', () => {})
        .on('data', data => {
          if (data.toString().startsWith('GET /ping')) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nOk.\n')
          else asked.push(data.toString().split('\r\n')[0] ?? '')
        }),
    ).listen(0, '127.0.0.1')
    const asked: string[] = []
    await once(hung, 'listening')
    const { port } = hung.address() as { port: number }
    const database = openDatabase(
      { url: `http://127.0.0.1:${port}`, user: 'x', password: 'x', ...ACCESS_DEFAULTS },
      { requestMsMax: 300 },
    )
    expect(await database.ping()).toBe(false)
    expect(asked).toEqual([expect.stringContaining('SELECT')])
    await database.close()
    hung.close()
  })
})

describe('an engine that is busy', () => {
  test("answers a ping while surgetank's own queries are as many as may run", async () => {
    const gone = new AbortController()
    const slow = { query: SLEEPS_FOR_A_MINUTE, format: 'JSONEachRow', abort_signal: gone.signal } as const
    const begun: { close(): void }[] = []
    const busy = Array.from({ length: 6 }, () => on.writer.query(slow).then(result => begun.push(result)))
    await until(async () => begun.length === 4)
    expect(await on.database.ping()).toBe(true)
    gone.abort()
    for (const result of begun) result.close()
    await Promise.allSettled(busy)
    await until(async () => (await scalar(on.writer, SLEEPING)) === 0)
  })
})

describe("surgetank's own queries", () => {
  test('have a limit of memory, and sort, group and join in files before it', async () => {
    const limit = Number(await scalar(on.writer, "SELECT getSetting('max_memory_usage')"))
    expect(limit).toBeGreaterThan(0)
    expect(limit).toBeLessThanOrEqual(2 * 1024 ** 3)
    const spills = ['max_bytes_before_external_group_by', 'max_bytes_before_external_sort', 'max_bytes_in_join']
    for (const name of spills) expect(await scalar(on.writer, `SELECT getSetting('${name}')`)).toBeLessThan(limit)
  })

  test('of more than that are refused, and the child lives', async () => {
    const { pid } = on.child
    const query = 'SELECT length(groupArray(number)) FROM numbers(2000000000)'
    await expect(on.writer.query({ query, format: 'JSONEachRow' })).rejects.toMatchObject({ code: '241' })
    expect(await scalar(on.writer, 'SELECT 1')).toBe(1)
    expect(on.child.pid).toBe(pid)
  })

  test('join what does not fit into the memory of a smaller limit', async () => {
    const joined = await on.writer.query({
      query: `SELECT count() FROM (SELECT number AS k FROM numbers(2000000)) AS a
        LEFT JOIN (SELECT number AS k, toString(number) AS s FROM numbers(2000000)) AS b ON a.k = b.k WHERE s != ''`,
      format: 'JSONCompactEachRow',
      clickhouse_settings: { max_memory_usage: '200000000', max_bytes_in_join: '40000000' },
    })
    expect(await joined.json()).toEqual([[2_000_000]])
  })
})

describe('the end', () => {
  test('by SIGTERM is in order, also with queries under way', async () => {
    const before = exits.length
    const under = raw(on.url, { path: `/?query=${encodeURIComponent('SELECT sleep(0.5)')}` })
    const endless = raw(on.url, { path: `/?query=${encodeURIComponent(ENDLESS)}` }).catch(() => ({ status: 0 }))
    await untilRunning(1)
    await on.child.stop()
    expect((await under).status).toBe(200)
    expect((await endless).status).not.toBe(200)
    expect(exits.slice(before)).toEqual([expect.objectContaining({ signal: 'SIGTERM', expected: true })])
    await on.restart()
  })

  test('of the parent, by SIGKILL, is the end of both children: folder and port are free again', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-parent-'))
    const parent = fork(fileURLToPath(new URL('./lone-parent.mjs', import.meta.url)), [folder], { execArgv: [] })
    const [{ port }] = (await once(parent, 'message')) as [{ port: number }]
    await raw(`http://127.0.0.1:${port}`, { path: '/ping' })
    parent.kill('SIGKILL')
    const child = await startEmbeddedDatabase({ dataDir: folder })
    await until(async () => (await isFree(port)) === true, 'the SQL port is free')
    await child.stop()
    rmSync(folder, { recursive: true })
  })
})

describe('a start', () => {
  test('on the folder of a database that runs waits for it to end', async () => {
    const second = startEmbeddedDatabase({ dataDir: on.folder })
    on.child.kill()
    const child = await second
    await child.stop()
    await on.restart()
  })

  test('on a folder that stays in use is refused after a while', async () => {
    await expect(startEmbeddedDatabase({ dataDir: on.folder, folderMsMax: 500 })).rejects.toMatchObject({
      code: 'data_dir_in_use',
      fate: 'stop',
    })
    expect(await on.database.ping()).toBe(true)
  })

  test('twice on one folder keeps what was stored', async () => {
    await (
      await on.writer.exec({
        query: 'INSERT INTO telemetry.readings (device) FORMAT JSONEachRow',
        values: bytesOf('{"device":"kept"}'),
      })
    ).stream.toArray()
    await on.child.stop()
    await on.restart()
    expect(await scalar(on.writer, "SELECT count() FROM telemetry.readings WHERE device = 'kept'")).toBe(1)
    expect(existsSync(join(on.folder, 'engine'))).toBe(true)
  })
})
