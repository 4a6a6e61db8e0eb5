/** Frames of `analysts.sock`: however the bytes are cut, what is read is what was written; and what is no request ends it. */

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type FrameKind, frame, frameHead, openFrameReader } from '../../database/embedded/frames.ts'
import { openEngineClient } from '../../database/sql-port/engine-client.ts'
import { openSqlServer } from '../../database/sql-port/server.ts'
import { type Fixture, openFixture, raw, scalar } from './database-fixture.ts'

const SUMMARY = { readRows: 1, readBytes: 2, writtenRows: 0, writtenBytes: 0, elapsedMs: 3 }

describe('frames', () => {
  const bytes = Buffer.concat([
    frame('H', { format: 'CSV' }),
    frameHead('D', 5),
    Buffer.from('a,"ü"'.slice(0, 4)),
    frameHead('D', 0),
    frameHead('D', 3),
    Buffer.from('b\nc'),
    frame('E', SUMMARY),
  ])

  test.each([1, 2, 3, 4, 5, 6, 7, 11, 64, 1_000])('cut into pieces of %i bytes are the same', size => {
    const taken: [string, string][] = []
    const read = openFrameReader((kind, content) => {
      const last = taken.at(-1)
      if (kind === 'D' && last?.[0] === 'D') last[1] += content.toString('latin1')
      else taken.push([kind, content.toString('latin1')])
    })
    for (let at = 0; at < bytes.length; at += size) read(bytes.subarray(at, at + size))
    expect(taken).toEqual([
      ['H', '{"format":"CSV"}'],
      ['D', `${Buffer.from('a,"ü').toString('latin1')}b\nc`],
      ['E', JSON.stringify(SUMMARY)],
    ])
  })

  test('that are longer than any request are refused by their head', () => {
    expect(() => openFrameReader(() => {})(frameHead('Q', 0xffff_ffff))).toThrow(/is none/)
  })
})

describe('an engine that answers otherwise', () => {
  const head = frame('H', { format: 'CSV' })
  const text = (kind: FrameKind, content: string) =>
    Buffer.concat([frameHead(kind, content.length), Buffer.from(content)])

  test.each([
    ['no end', [head, text('E', '{')]],
    ['null for an end', [head, text('E', 'null')]],
    ['no error', [text('X', '}')]],
    ['null for a head', [text('H', 'null')]],
    ['a head that cannot be one', [frame('H', { format: 'C\r\nSV' }), frame('E', SUMMARY)]],
    ['two heads, each with a row', [head, text('D', '1'), head, text('D', '2')]],
    ['an end alone', [frame('E', SUMMARY)]],
    ['another kind', [text('Z' as FrameKind, '')]],
    ['a frame that is too long', [frameHead('E', 0xffff_ffff)]],
    ['nothing, and goes', []],
  ] as [string, Buffer[]][])('%s: the client has an error, or an answer that broke off', async (_, frames) => {
    const folder = mkdtempSync(join(tmpdir(), 'surgetank-frames-'))
    const path = join(folder, 'analysts.sock')
    const engine = createServer(socket => {
      socket
        .on('error', () => {})
        .once('data', () => (frames.length === 0 ? socket.end() : socket.write(Buffer.concat(frames))))
    }).listen(path)
    await once(engine, 'listening')
    const port = await openSqlServer({ engine: openEngineClient(path), port: 0 })
    const url = `http://127.0.0.1:${port.port}`
    const answer = await raw(url, { path: '/?query=SELECT+1' }).catch(() => ({ status: 0, broken: true }))
    expect(answer.broken || answer.status >= 500).toBe(true)
    expect((await raw(url, { path: '/ping' })).status).toBe(200)
    await port.close(0)
    engine.close()
    rmSync(folder, { recursive: true })
  })
})

describe('the socket for analysts', () => {
  let on: Fixture
  beforeAll(async () => {
    on = await openFixture()
  })
  afterAll(() => on.close())

  const request = { database: null, settings: [], params: [], defaultFormat: 'CSV', whole: false }
  const slow = frame('Q', { ...request, sql: 'SELECT sleep(3)' })

  test.each([
    ['no frames', Buffer.from('POST / HTTP/1.1\r\nHost: localhost\r\n\r\n')],
    ['a frame of another kind', frame('E', SUMMARY)],
    ['no JSON', Buffer.concat([frameHead('Q', 3), Buffer.from('{"a')])],
    ['null', Buffer.concat([frameHead('Q', 4), Buffer.from('null')])],
    ['an empty frame', frameHead('Q', 0)],
    ['a statement that is no text', frame('Q', { ...request, sql: 1 as unknown as string })],
    ['settings that are no list', frame('Q', { ...request, sql: 'SELECT 1', settings: 1 as unknown as [] })],
    ['a setting of null', frame('Q', { ...request, sql: 'SELECT 1', params: [null] as unknown as [] })],
    ['a second request before the first is answered', Buffer.concat([slow, slow])],
    ['a frame that is too long', frameHead('Q', 100_000_000)],
  ])('closes a connection that brings %s, and goes on', async (_, bytes) => {
    const socket = connect(on.child.sockets.analysts)
      .on('error', () => {})
      .resume()
    socket.write(bytes)
    await once(socket, 'close')
    expect(await scalar(on.analyst, 'SELECT 1')).toBe(1)
  })

  test('runs nothing that changes, whoever connects', async () => {
    const socket = connect(on.child.sockets.analysts)
    const sql = 'CREATE DATABASE mine ENGINE = Atomic'
    socket.write(frame('Q', { ...request, sql, role: 'writer', readonly: false } as typeof request & { sql: string }))
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(answer.toString('latin1')).toMatch(/^X.*"code":164/s)
    socket.destroy()
    expect(await scalar(on.writer, "SELECT count() FROM system.databases WHERE name = 'mine'")).toBe(0)
  })
})
