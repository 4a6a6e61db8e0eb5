/** The official client against the embedded server: what works against a ClickHouse server works here in the same way. */
import { createClient } from '@clickhouse/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bytesOf, type Fixture, openFixture, rows, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.writer.command({ query: 'CREATE DATABASE demo ENGINE = Atomic' })
  await on.writer.command({
    query: 'CREATE TABLE demo.t (id UInt32, s String, v Float64) ENGINE = MergeTree ORDER BY id',
  })
})
afterAll(() => on.close())

describe('@clickhouse/client reads', () => {
  test('pings, with and without a query', async () => {
    expect((await on.analyst.ping()).success).toBe(true)
    expect((await on.analyst.ping({ select: true })).success).toBe(true)
  })

  test.each([
    ['JSON', '"data":'],
    ['JSONEachRow', '{"n":0}\n{"n":1}\n'],
    ['JSONCompact', '"rows": 2'],
    ['JSONCompactEachRow', '[0]\n[1]\n'],
    ['JSONCompactEachRowWithNamesAndTypes', '["n"]\n["UInt8"]\n[0]\n[1]\n'],
    ['CSV', '0\n1\n'],
    ['CSVWithNames', '"n"\n0\n1\n'],
    ['TabSeparated', '0\n1\n'],
    ['TabSeparatedWithNames', 'n\n0\n1\n'],
  ] as const)('a result as %s', async (format, part) => {
    const result = await on.analyst.query({ query: 'SELECT toUInt8(number) AS n FROM numbers(2)', format })
    expect((await result.text()).replaceAll('": ', '":').replaceAll('"rows":', '"rows": ')).toContain(part)
  })

  test.each([
    ['RowBinary', Buffer.from([0, 1])],
    ['RowBinaryWithNamesAndTypes', Buffer.from([1, 1, 0x6e, 5, ...Buffer.from('UInt8'), 0, 1])],
  ])('a result as %s through exec', async (format, bytes) => {
    const { stream } = await on.analyst.exec({ query: `SELECT toUInt8(number) AS n FROM numbers(2) FORMAT ${format}` })
    expect(Buffer.concat(await stream.toArray())).toEqual(bytes)
  })

  test.each([
    ['Parquet', 'PAR1'],
    ['ArrowStream', '\xff\xff\xff\xff'],
  ])('a result as %s, whole and with one header', async (format, magic) => {
    const { stream } = await on.analyst.exec({ query: `SELECT number AS n FROM numbers(200000) FORMAT ${format}` })
    expect(
      Buffer.concat(await stream.toArray())
        .subarray(0, 4)
        .toString('latin1'),
    ).toBe(magic)
  })

  test('a large result in a stream, in order', async () => {
    const result = await on.analyst.query({ query: 'SELECT number FROM numbers(500000)', format: 'JSONCompactEachRow' })
    let next = 0
    for await (const page of result.stream<[string | number]>()) {
      for (const row of page) if (Number(row.json()[0]) === next) next++
    }
    expect(next).toBe(500_000)
  })

  test('query parameters of every kind arrive unchanged', async () => {
    const query =
      'SELECT {n:UInt32} + 1 AS n, {s:String} AS s, {list:Array(String)} AS list, {at:DateTime64(3)} AS at, {nothing:Nullable(String)} AS nothing'
    const s = "it's\na \\ tab\t{x:String} \u{1f600}"
    const result = await on.analyst.query({
      query,
      format: 'JSONEachRow',
      query_params: { n: 41, s, list: ["x'y", 'z\\'], at: new Date(0), nothing: null },
    })
    expect(await result.json()).toEqual([
      { n: 42, s, list: ["x'y", 'z\\'], at: '1970-01-01 00:00:00.000', nothing: null },
    ])
  })

  test('settings hold for one request and not for the next', async () => {
    const query = "SELECT getSetting('max_block_size') AS size"
    const set = await on.analyst.query({ query, format: 'JSONEachRow', clickhouse_settings: { max_block_size: '777' } })
    expect(await set.json()).toEqual([{ size: 777 }])
    expect(await scalar(on.analyst, query)).not.toBe(777)
  })

  test('gzip both ways', async () => {
    const client = createClient({
      url: on.server.url,
      username: on.server.user,
      password: on.server.password,
      compression: { request: true, response: true },
      log: { level: 127 },
    })
    await client.insert({ table: 'demo.t', values: [{ id: 900, s: 'zipped', v: 1 }], format: 'JSONEachRow' })
    expect(await rows(client, 'SELECT s FROM demo.t WHERE id = 900')).toEqual([['zipped']])
    expect(await rows(client, 'SELECT count() FROM numbers(300000)')).toEqual([[300000]])
    await client.close()
  })

  test.each([
    ['SELECT (1', '62', 'SYNTAX_ERROR'],
    ['SELECT * FROM demo.nothing', '60', 'UNKNOWN_TABLE'],
    ['SELECT nothing FROM demo.t', '47', 'UNKNOWN_IDENTIFIER'],
    ['SELECT count() FROM nothing.t', '81', 'UNKNOWN_DATABASE'],
  ])('%s is a typed error', async (query, code, type) => {
    await expect(on.analyst.query({ query })).rejects.toMatchObject({ code, type })
  })

  test('an error in the middle of a result is a typed error, not an end', async () => {
    const query = "SELECT number, throwIf(number = 300000, 'boom') FROM numbers(400000) SETTINGS max_block_size = 10000"
    const result = await on.writer.query({ query, format: 'JSONEachRow' })
    await expect(async () => {
      for await (const _ of result.stream());
    }).rejects.toMatchObject({ code: '395', message: expect.stringContaining('boom') })
  })
})

describe('@clickhouse/client writes', () => {
  test('objects, compact rows, streams and raw bytes', async () => {
    const { writer } = on
    await writer.insert({
      table: 'demo.t',
      values: [{ id: 1, s: "a\n\nb'; DROP TABLE demo.t", v: 1.5 }],
      format: 'JSONEachRow',
    })
    await writer.insert({ table: 'demo.t', columns: ['id', 's'], values: [[2, 'x']], format: 'JSONCompactEachRow' })
    await writer.insert({ table: 'demo.t', values: bytesOf('3,"c\n\nd",2\n', '4,e,3\n'), format: 'CSV' })
    const binary = Buffer.from([5, 0, 0, 0, 2, 0x0a, 0x0a, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f])
    const answer = await writer.exec({ query: 'INSERT INTO demo.t FORMAT RowBinary', values: bytesOf(binary) })
    await answer.stream.toArray()
    expect(answer.summary?.written_rows).toBe('1')
    expect(await rows(writer, 'SELECT id, s, v FROM demo.t WHERE id < 6 ORDER BY id')).toEqual([
      [1, "a\n\nb'; DROP TABLE demo.t", 1.5],
      [2, 'x', 0],
      [3, 'c\n\nd', 2],
      [4, 'e', 3],
      [5, '\n\n', 1],
    ])
  })

  test('a row that does not parse leaves nothing of its insert', async () => {
    const values = bytesOf('{"id":70,"s":"good"}\n{"id":"bad"}\n')
    await expect(on.writer.exec({ query: 'INSERT INTO demo.t FORMAT JSONEachRow', values })).rejects.toMatchObject({
      code: expect.stringMatching(/^(27|117|72)$/),
    })
    expect(await scalar(on.writer, 'SELECT count() FROM demo.t WHERE id = 70')).toBe(0)
  })

  test('a session keeps its temporary table and no setting, and is not shared', async () => {
    const session_id = 'one'
    await on.writer.command({
      query: 'CREATE TEMPORARY TABLE kept (a Int8)',
      session_id,
      clickhouse_settings: { max_block_size: '555' },
    })
    await on.writer.insert({ table: 'kept', values: [{ a: 7 }], format: 'JSONEachRow', session_id })
    const result = await on.writer.query({
      query: "SELECT a, getSetting('max_block_size') AS size FROM kept",
      format: 'JSONEachRow',
      session_id,
    })
    expect(await result.json()).toEqual([{ a: 7, size: expect.not.stringMatching(/^555$/) }])
    await expect(on.writer.query({ query: 'SELECT a FROM kept', session_id: 'two' })).rejects.toMatchObject({
      code: '60',
    })
  })

  test('several statements in one request are refused', async () => {
    await expect(on.writer.command({ query: 'SELECT 1; DROP TABLE demo.t' })).rejects.toMatchObject({ code: '62' })
  })
})
