/** `/v1/devices`: documents, pages, tags, and what is said of a device that is not there. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Fixture, message, NOON, openFixture, STALE_AFTER_MS } from './api-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await openFixture()
})
afterEach(() => fixture.close())

describe('one device', () => {
  test('the state document shows each metric with its times', async () => {
    await fixture.space.merge([message('press-17', NOON, { temperature: 73.967, on: true, mode: 'auto', fault: null })])
    await fixture.space.mergePresence([{ device: 'press-17', online: true, at: NOON - 5000 }])
    const answer = await fixture.get('/v1/devices/press-17')
    expect(answer.headers.get('content-type')).toBe('application/json; charset=utf-8')
    const times = { ts: '2026-11-20T11:59:59.983Z', received_at: '2026-11-20T12:00:00.000Z', stale: false }
    expect(await answer.json()).toEqual({
      device: 'press-17',
      version: NOON * 1000,
      online: true,
      last_seen: '2026-11-20T12:00:00.000Z',
      rehydrating: false,
      metrics: {
        temperature: { value: 73.967, ...times },
        on: { value: true, ...times },
        mode: { value: 'auto', ...times },
        fault: { value: null, ...times },
      },
    })
  })

  test('times have microseconds where these are not 0, and the version counts them', async () => {
    const at = NOON * 1000 + 7
    const readings = [
      { metric: 'a', ts: at - 1_000_006, receivedAt: at, value: 1, sentTs: null },
      { metric: 'b', ts: at - 500, receivedAt: at + 993, value: 2, sentTs: null },
    ]
    await fixture.space.merge([{ device: 'press-17', receivedAt: at, readings }])
    expect(await (await fixture.get('/v1/devices/press-17')).json()).toMatchObject({
      version: at + 993,
      last_seen: '2026-11-20T12:00:00.001Z',
      metrics: {
        a: { ts: '2026-11-20T11:59:59.000001Z', received_at: '2026-11-20T12:00:00.000007Z' },
        b: { ts: '2026-11-20T11:59:59.999507Z', received_at: '2026-11-20T12:00:00.001Z' },
      },
    })
  })

  test('a metric is stale one ms after its time, counted from its receipt to the µs', async () => {
    const readings = [0, 1, 1000].map(us => {
      const receivedAt = (NOON - STALE_AFTER_MS - 1) * 1000 + us
      return { metric: `us${us}`, ts: receivedAt, receivedAt, value: 1, sentTs: null }
    })
    await fixture.space.merge([{ device: 'press-17', receivedAt: readings[0]?.receivedAt ?? 0, readings }])
    const { metrics } = (await (await fixture.get('/v1/devices/press-17')).json()) as Stale
    expect(metrics).toMatchObject({ us0: { stale: true }, us1: { stale: true }, us1000: { stale: false } })
  })

  test('a metric that was not received for long is stale, and the others are not', async () => {
    await fixture.space.merge([
      message('press-17', NOON - STALE_AFTER_MS - 1, { old: 1 }),
      message('press-17', NOON, { new: 1 }),
    ])
    const { metrics } = (await (await fixture.get('/v1/devices/press-17')).json()) as Stale
    expect(metrics).toMatchObject({ old: { stale: true }, new: { stale: false } })
  })

  test('[G3] values that JavaScript would round, and names that it would misread, come out as they were sent', async () => {
    const names = JSON.parse('{"__proto__": 1, "constructor": 2, "a\\"b\\\\\u2028": 3, "-0": 4}')
    await fixture.space.merge([
      message('press-17', NOON, names),
      message('press-17', NOON, {
        large: 2n ** 64n + 1n,
        double: 2 ** 60,
        tiny: 5e-324,
        zero: -0,
        text: 'a "b"\n\u2028😀',
      }),
    ])
    const text = await (await fixture.get('/v1/devices/press-17')).text()
    expect(text).toContain('"zero":{"value":-0,')
    expect(text).toContain('"large":{"value":"18446744073709551617",')
    const { metrics } = JSON.parse(text) as { metrics: Record<string, { value: unknown }> }
    const values = Object.keys(metrics).map(name => [name, metrics[name]?.value])
    expect(new Map(values as [string, unknown][])).toEqual(
      new Map<string, unknown>([
        ['-0', 4],
        ['__proto__', 1],
        ['a"b\\\u2028', 3],
        ['constructor', 2],
        ['double', 2 ** 60],
        ['large', '18446744073709551617'],
        ['text', 'a "b"\n\u2028😀'],
        ['tiny', 5e-324],
        ['zero', -0],
      ]),
    )
  })

  test('an unchanged state is 304 for who has it, and a changed one is not', async () => {
    await fixture.space.merge([message('press-17', NOON, { a: 1 })])
    const etag = (await fixture.get('/v1/devices/press-17')).headers.get('etag') ?? ''
    expect(etag).toMatch(/^W\/"[\w-]{22}"$/)
    const again = await fixture.get('/v1/devices/press-17', { 'if-none-match': `"other", ${etag}` })
    expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', etag])
    await fixture.space.merge([message('press-17', NOON + 1, { a: 1 })])
    expect((await fixture.get('/v1/devices/press-17', { 'if-none-match': etag })).status).toBe(200)
  })

  test('a device that never sent is a 404 problem, and a longest id is no exception', async () => {
    const answer = await fixture.get(`/v1/devices/${'x'.repeat(128)}`)
    expect(answer.status).toBe(404)
    expect(answer.headers.get('content-type')).toBe('application/problem+json; charset=utf-8')
    expect(await answer.json()).toMatchObject({
      code: 'unknown_device',
      status: 404,
      type: 'urn:surgetank:problem:unknown_device',
    })
  })

  test('what is no device id is a 400 that points at it', async () => {
    for (const id of [
      'a%2Fb',
      'x'.repeat(129),
      '%00',
      'a%2Bb',
      'a%23',
      '%E2%80%AE',
      '%EF%BF%BD',
      '%F0%9F%8C%A1'.repeat(129),
    ]) {
      const answer = await fixture.get(`/v1/devices/${id}`)
      expect(answer.status).toBe(400)
      expect(await answer.json()).toMatchObject({ code: 'invalid_request', errors: [{ pointer: '#/path/id' }] })
    }
  })
})

describe('while the state is being rebuilt', () => {
  test('a device that is not known yet is 503 with Retry-After, and a known one says so in its document', async () => {
    const cold = await openFixture({ warm: false })
    try {
      await cold.space.merge([message('press-17', NOON, { a: 1 })])
      const unknown = await cold.get('/v1/devices/press-18')
      expect([unknown.status, unknown.headers.get('retry-after')]).toEqual([503, '1'])
      expect(await unknown.json()).toMatchObject({ code: 'rehydrating' })
      expect(await (await cold.get('/v1/devices/press-17')).json()).toMatchObject({ rehydrating: true })
      await (await cold.space.claimRebuild())?.finish()
      expect((await cold.get('/v1/devices/press-18')).status).toBe(404)
      expect(await (await cold.get('/v1/devices/press-17')).json()).toMatchObject({ rehydrating: false })
    } finally {
      await cold.close()
    }
  })
})

describe('many devices', () => {
  const ids = Array.from({ length: 25 }, (_, at) => `Press-${String(at).padStart(2, '0')}`)
  beforeEach(async () => {
    await fixture.space.merge(ids.toReversed().map(device => message(device, NOON, { a: 1 })))
    await fixture.space.mergePresence(ids.slice(0, 10).map(device => ({ device, online: true, at: NOON })))
  })

  test('pages follow one another by next, and by the Link header alike, to the last device', async () => {
    const seen: string[] = []
    let path: string | undefined = '/v1/devices?limit=10&search=press'
    let pages = 0
    while (path !== undefined) {
      const answer = await fixture.get(path)
      const { items, next } = (await answer.json()) as Page
      seen.push(...items.map(({ device }) => device))
      path = /^<([^>]+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1]
      expect(path === undefined).toBe(next === null)
      if (path !== undefined) expect(new URL(path, fixture.url).searchParams.get('cursor')).toBe(next)
      pages++
    }
    expect(seen).toEqual(ids)
    expect(pages).toBe(3)
  })

  test('search and online narrow the list', async () => {
    const listed = async (query: string) => {
      const { items } = (await (await fixture.get(`/v1/devices?${query}`)).json()) as Page
      return items.map(({ device }) => device)
    }
    expect(await listed('search=SS-1')).toEqual(ids.slice(10, 20))
    expect(await listed('online=true')).toEqual(ids.slice(0, 10))
    expect(await listed('online=false&search=2')).toEqual(['Press-12', ...ids.slice(20)])
    expect(await listed('search=')).toEqual(ids)
    expect(await listed('search=.*')).toEqual([])
  })

  test.each([
    ['limit=0', '#/query/limit'],
    ['limit=1001', '#/query/limit'],
    ['limit=ten', '#/query/limit'],
    ['limit=1&limit=2', '#/query/limit'],
    ['online=maybe', '#/query/online'],
    ['serach=press', '#/query/serach'],
    ['cursor=nonsense', '#/query/cursor'],
    [`cursor=${Buffer.from('["a/b"]').toString('base64url')}`, '#/query/cursor'],
  ])('%s is a 400 that points at %s', async (query, pointer) => {
    const answer = await fixture.get(`/v1/devices?${query}`)
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({
      code: 'invalid_request',
      instance: '/v1/devices',
      errors: [{ pointer }],
    })
  })
})

test('a foreign error is told as a failure and nothing else', async () => {
  const space = {
    ...fixture.space,
    get: () => Promise.reject(new Error('redis://user:secret@host')),
    claimRebuild: async () => null,
    claimLostUnits: async () => null,
  }
  const broken = await openFixture({ space })
  try {
    const answer = await broken.get('/v1/devices/press-1')
    const text = await answer.text()
    expect(answer.status).toBe(500)
    expect(JSON.parse(text)).toMatchObject({ code: 'internal' })
    expect(text).not.toContain('secret')
  } finally {
    await broken.close()
  }
})

interface Page {
  readonly items: readonly { readonly device: string }[]
  readonly next: string | null
}

interface Stale {
  readonly metrics: Readonly<Record<string, { readonly stale: boolean }>>
}
