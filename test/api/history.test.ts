/** `/v1/devices/{id}/history`: answers, how far they are complete, and what bounds the queries. */
import { request } from 'node:http'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { encodeCursor } from '../../api/paging.ts'
import type { RawPoint } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'
import { type Fixture, message, NOON, openFixture } from './api-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await openFixture()
})
afterEach(() => fixture.close())

const PATH = '/v1/devices/press-1/history'

function point(at: number, value: RawPoint['value'] = at): RawPoint {
  return { metric: 'm', ts: (NOON - 1000 + at) * 1000, receivedAt: NOON * 1000, value, key: `key-${at}` }
}

test('raw rows show their values as they were sent', async () => {
  fixture.database.raw = async () => [
    point(1, 2n ** 63n),
    point(2, -0),
    point(3, 'text'),
    point(4, null),
    point(5, true),
  ]
  const text = await (await fixture.get(PATH)).text()
  expect(text).toContain('"value":-0}')
  expect(JSON.parse(text)).toEqual({
    device: 'press-1',
    from: '2026-11-20T11:00:00.000Z',
    to: '2026-11-20T12:00:00.000Z',
    persisted_through: '2026-11-20T12:00:00.000Z',
    items: ['9223372036854775808', -0, 'text', null, true].map((value, at) => ({
      metric: 'm',
      ts: `2026-11-20T11:59:59.00${at + 1}Z`,
      received_at: '2026-11-20T12:00:00.000Z',
      value,
    })),
    next: null,
  })
})

test('raw rows and the range of an answer have microseconds where these are not 0', async () => {
  const ts = NOON * 1000 - 1
  fixture.database.raw = async ({ from, to }) => {
    expect([from, to]).toEqual([ts, ts + 2])
    return [{ metric: 'm', ts, receivedAt: ts + 1, value: 1, key: 'key' }]
  }
  const path = `${PATH}?from=2026-11-20T11:59:59.999999Z&to=${ts + 2}`
  expect(await (await fixture.get(path)).json()).toMatchObject({
    from: '2026-11-20T11:59:59.999999Z',
    to: '2026-11-20T12:00:00.000001Z',
    persisted_through: '2026-11-20T12:00:00.000Z',
    items: [{ ts: '2026-11-20T11:59:59.999999Z', received_at: '2026-11-20T12:00:00.000Z' }],
  })
})

test('pages of raw rows go on where the last one ended, within the range of the first', async () => {
  const asked: unknown[] = []
  fixture.database.raw = async ({ from, to, limit }, after) => {
    asked.push([from, to, after])
    const first = after === null ? 0 : Number(after.slice(4)) + 1
    return Array.from({ length: Math.min(limit, 5 - first) }, (_, at) => point(first + at))
  }
  const values: unknown[] = []
  let path: string | undefined = `${PATH}?limit=2`
  while (path !== undefined) {
    const answer = await fixture.get(path)
    values.push(...((await answer.json()) as { items: { value: unknown }[] }).items.map(({ value }) => value))
    path = /^<([^>]+)>/.exec(answer.headers.get('link') ?? '')?.[1]
    fixture.clock.now += 60_000
  }
  expect(values).toEqual([0, 1, 2, 3, 4])
  expect(asked).toEqual([null, 'key-1', 'key-3'].map(after => [(NOON - 3_600_000) * 1000, NOON * 1000, after]))
})

test('buckets come as one series for each metric and aggregate', async () => {
  fixture.database.buckets = async (_query, everyMs, aggregates) => {
    expect([everyMs, aggregates]).toEqual([60_000, ['avg', 'max']])
    return [
      { metric: 'a', bucket: NOON - 120_000, values: [1.5, 2] },
      { metric: '__proto__', bucket: NOON - 120_000, values: [5, 5] },
      { metric: 'a', bucket: NOON - 60_000, values: [null, null] },
    ]
  }
  expect(await (await fixture.get(`${PATH}?every=1m&agg=max,avg`)).json()).toMatchObject({
    every: '1m',
    next: null,
    series: [
      {
        metric: 'a',
        agg: 'avg',
        points: [
          [NOON - 120_000, 1.5],
          [NOON - 60_000, null],
        ],
      },
      {
        metric: 'a',
        agg: 'max',
        points: [
          [NOON - 120_000, 2],
          [NOON - 60_000, null],
        ],
      },
      { metric: '__proto__', agg: 'avg', points: [[NOON - 120_000, 5]] },
      { metric: '__proto__', agg: 'max', points: [[NOON - 120_000, 5]] },
    ],
  })
})

test('more buckets than may be shown are refused, never cut short', async () => {
  fixture.database.buckets = async ({ limit }) =>
    Array.from({ length: limit }, (_, at) => ({ metric: `m${at}`, bucket: NOON, values: [1, 1, 1, 1] }))
  const answer = await fixture.get(`${PATH}?every=1h`)
  expect(answer.status).toBe(400)
  expect(await answer.json()).toMatchObject({ errors: [{ pointer: '#/query/every' }] })
})

test.each([
  ['now, when all is stored', null, null, NOON],
  ['the oldest reading that is not stored', NOON - 9000, NOON - 50, NOON - 9000],
  ['the oldest message that is not yet in the log', null, NOON - 300, NOON - 300],
])('persisted_through is %s', async (_title, oldestUnwrittenAt, oldestHeldAt, expected) => {
  fixture.books.oldestUnwrittenAt = oldestUnwrittenAt
  fixture.books.oldestHeldAt = oldestHeldAt
  fixture.database.raw = async () => {
    // What is stored while the query runs must not make the answer look more complete than it is.
    fixture.books.oldestUnwrittenAt = null
    fixture.clock.now += 1000
    return [point(1)]
  }
  const answer = (await (await fixture.get(PATH)).json()) as { persisted_through: string }
  expect(Date.parse(answer.persisted_through)).toBe(expected)
})

test('with ClickHouse away history is 503 with Retry-After, and the newest state is served all the same', async () => {
  fixture.database.raw = () => Promise.reject(new SurgetankError('database_unavailable', 'connect 10.0.0.7:8123'))
  await fixture.space.merge([message('press-1', NOON, { m: 1 })])
  const answer = await fixture.get(PATH)
  const text = await answer.text()
  expect([answer.status, answer.headers.get('retry-after')]).toEqual([503, '5'])
  expect(JSON.parse(text)).toMatchObject({ code: 'database_unavailable' })
  expect(text).not.toContain('10.0.0.7')
  expect((await fixture.get('/v1/devices/press-1')).status).toBe(200)
})

test('a cursor whose key the database does not know is a 400', async () => {
  fixture.database.raw = () => Promise.reject(new SurgetankError('invalid_request', 'no key of ours'))
  const answer = await fixture.get(`${PATH}?cursor=${encodeCursor([1, 2, 'made up'])}`)
  expect([answer.status, await answer.json()]).toMatchObject([400, { code: 'invalid_request' }])
})

test('a key with a longest name fits into a cursor', async () => {
  const key = Buffer.from(JSON.stringify([NOON, '☃'.repeat(128), 'source'.repeat(8), 2 ** 50, 999])).toString(
    'base64url',
  )
  fixture.database.raw = async (_query, after) => [{ ...point(1), key: after ?? key }]
  const { next } = (await (await fixture.get(`${PATH}?limit=1`)).json()) as { next: string }
  expect((await fixture.get(`${PATH}?limit=1&cursor=${next}`)).status).toBe(200)
})

test('a device without rows is known or not by the space', async () => {
  expect((await fixture.get(PATH)).status).toBe(404)
  await fixture.space.merge([message('press-1', NOON, { m: 1 })])
  const known = await fixture.get(PATH)
  expect([known.status, await known.json()]).toMatchObject([200, { items: [] }])
})

test('stored rows are shown whether the space knows the device or not', async () => {
  fixture.database.raw = async () => [point(1)]
  expect((await fixture.get(PATH)).status).toBe(200)
})

test('of nine queries at one time the ninth is told to come back, and later ones are served', async () => {
  const release: (() => void)[] = []
  let started = () => {}
  const eight = new Promise<void>(resolve => {
    started = resolve
  })
  fixture.database.raw = () =>
    new Promise(resolve => {
      release.push(() => resolve([point(1)]))
      if (release.length === 8) started()
    })
  const queries = Array.from({ length: 8 }, () => fixture.get(PATH))
  await eight
  const ninth = await fixture.get(PATH)
  expect([ninth.status, ninth.headers.get('retry-after')]).toEqual([503, '1'])
  expect(await ninth.json()).toMatchObject({ code: 'busy' })
  for (const each of release) each()
  expect((await Promise.all(queries)).map(({ status }) => status)).toEqual(Array(8).fill(200))
  fixture.database.raw = async () => [point(1)]
  expect((await fixture.get(PATH)).status).toBe(200)
})

test('a query ends when its client is gone', async () => {
  const aborted = new Promise<void>(resolve => {
    fixture.database.raw = (_query, _after, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          resolve()
          reject(new Error('aborted'))
        })
        client.destroy()
      })
  })
  const client = request({ host: '127.0.0.1', port: fixture.api.port, path: PATH, agent: false })
  client.on('error', () => {})
  client.end()
  await aborted
})
