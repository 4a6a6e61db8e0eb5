/** What holds for every answer, and the routes for probes and people. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openApi } from '../../api/api.ts'
import { type Fixture, openFixture, rawRequest } from './api-fixture.ts'

let fixture: Fixture
beforeEach(async () => {
  fixture = await openFixture()
})
afterEach(() => fixture.close())

const ROUTES = [
  '/',
  '/v1/devices',
  '/v1/devices/{id}',
  '/v1/devices/{id}/history',
  '/v1/stream',
  '/healthz',
  '/readyz',
  '/metrics',
]

describe('guards', () => {
  test('every answer, errors too, carries the security headers and no permission for other origins', async () => {
    for (const path of [
      '/',
      '/v1/devices',
      '/v1/devices/none',
      '/v1/devices?limit=x',
      '/no/such',
      '/%zz',
      '/docs/',
      '/metrics',
    ]) {
      const { headers } = await fixture.get(path, { origin: 'http://elsewhere.example' })
      expect(headers.get('x-content-type-options'), path).toBe('nosniff')
      expect(headers.get('content-security-policy'), path).toMatch(/^default-src 'none'; .*frame-ancestors 'none'$/)
      expect(headers.get('cross-origin-resource-policy'), path).toBe('same-origin')
      expect(headers.get('access-control-allow-origin'), path).toBeNull()
      expect(headers.get('x-powered-by') ?? headers.get('server'), path).toBeNull()
    }
  })

  test('a server on another address of this machine answers to it, too', async () => {
    const other = await openFixture({ host: '127.0.0.2' })
    for (const host of ['127.0.0.2', `127.0.0.2:${other.api.port}`]) {
      expect((await rawRequest(other, { path: '/healthz', host })).status, host).toBe(200)
    }
    expect((await rawRequest(other, { path: '/healthz', host: '127.0.0.3' })).status).toBe(421)
    await other.close()
  })

  test('only requests that name this machine are answered', async () => {
    const { port } = fixture.api
    for (const host of ['127.0.0.1', `localhost:${port}`, 'LOCALHOST', `[::1]:${port}`]) {
      expect((await rawRequest(fixture, { path: '/v1/devices', host })).status, host).toBe(200)
    }
    for (const host of [
      'evil.example',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      'evil.example:80',
      '127.0.0.2',
    ]) {
      for (const path of ['/v1/devices', '/docs/', '/no/such', '/v1/stream', '/openapi.json']) {
        const answer = await rawRequest(fixture, { path, host })
        expect(answer.status, `${host}${path}`).toBe(421)
        expect(JSON.parse(answer.text)).toMatchObject({ code: 'wrong_host' })
      }
    }
  })

  test('a path that is not there is a 404 problem', async () => {
    const answer = await fixture.get('/v1/nothing?q=1')
    expect(answer.status).toBe(404)
    expect(await answer.json()).toMatchObject({ code: 'not_found', status: 404, instance: '/v1/nothing' })
  })

  test('every path is read only, and says so', async () => {
    for (const route of ROUTES) {
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
        const answer = await rawRequest(fixture, { method, path: route.replace('{id}', 'press-1') })
        expect(answer.status, `${method} ${route}`).toBe(405)
        expect(answer.headers.allow).toMatch(/^GET|HEAD/)
        expect(JSON.parse(answer.text)).toMatchObject({ code: 'method_not_allowed' })
      }
    }
  })

  test('beyond loopback it answers to addresses and to names without a dot, which no page of the web can have [G6]', async () => {
    const open = await openFixture({ host: '0.0.0.0' })
    try {
      const { port } = open.api
      for (const host of [
        `127.0.0.1:${port}`,
        'localhost',
        '10.1.2.3:80',
        `[fd00::1]:${port}`,
        'api',
        'broker-1:8080',
      ]) {
        expect((await rawRequest(open, { path: '/v1/devices', host })).status, host).toBe(200)
      }
      for (const host of ['evil.example', '10.1.2.3.evil.example', 'a@api', 'api.:80', '1.2.3.4.5', '[::1']) {
        const answer = await rawRequest(open, { path: '/v1/devices', host })
        expect([400, 421], host).toContain(answer.status)
      }
    } finally {
      await open.close()
    }
  })

  test('a taken port is told as such', async () => {
    const port = fixture.api.port
    const { space } = fixture
    const options = {
      health: async () => [],
      metricsText: async () => '',
      staleAfterMs: 1,
      clock: Date.now,
      version: '1',
    }
    const ports = { database: {} as never, view: {} as never, log: (await import('pino')).pino({ level: 'silent' }) }
    await expect(openApi({ ...options, ...ports, host: '127.0.0.1', port, space })).rejects.toMatchObject({
      code: 'port_in_use',
      fate: 'stop',
    })
  })
})

describe('health', () => {
  test('healthz answers whatever the dependencies do', async () => {
    fixture.health = () => new Promise(() => {})
    expect(await (await fixture.get('/healthz')).json()).toEqual({ status: 'ok' })
  })

  test('ready without what is not required, such as ClickHouse, and not without the log', async () => {
    const log = { name: 'log', ok: true, required: true, detail: 'written' }
    const clickhouse = { name: 'clickhouse', ok: false, required: false, detail: 'does not answer' }
    fixture.health = async () => [log, clickhouse]
    const ready = await fixture.get('/readyz')
    expect([ready.status, await ready.json()]).toEqual([
      200,
      {
        ready: true,
        version: '1.2.3',
        checks: {
          log: { ok: true, required: true, detail: 'written' },
          clickhouse: { ok: false, required: false, detail: 'does not answer' },
        },
      },
    ])
    fixture.health = async () => [{ ...log, ok: false }, clickhouse]
    const unready = await fixture.get('/readyz')
    expect([unready.status, await unready.json()]).toMatchObject([503, { ready: false }])
  })

  test('a check that throws or hangs is not ready', async () => {
    for (const health of [() => Promise.reject(new Error('secret')), () => new Promise<never>(() => {})]) {
      fixture.health = health
      const answer = await fixture.get('/readyz')
      const text = await answer.text()
      expect(answer.status).toBe(503)
      expect(text).not.toContain('secret')
    }
  })

  test("metrics come in Prometheus' own type", async () => {
    const answer = await fixture.get('/metrics')
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(await answer.text()).toBe('# TYPE one counter\none 1\n')
  })

  test('the index names what is here, and all of it is', async () => {
    const { paths } = (await (await fixture.get('/')).json()) as { paths: string[] }
    for (const path of paths.filter(path => path !== '/v1/stream'))
      expect((await fixture.get(path)).status, path).toBe(200)
  })
})

describe('documentation', () => {
  test('OpenAPI 3.1 describes every route, each parameter and each answer', async () => {
    const document = (await (await fixture.get('/openapi.json')).json()) as OpenApi
    expect(document.openapi).toBe('3.1.0')
    expect(document.info).toMatchObject({ title: 'Surgetank', version: '1.2.3' })
    expect(Object.keys(document.paths).toSorted()).toEqual(ROUTES.toSorted())
    for (const [path, methods] of Object.entries(document.paths)) {
      expect(Object.keys(methods), path).toEqual(['get'])
      const { summary, tags, parameters = [], responses } = methods.get
      expect([typeof summary, tags.length], path).toEqual(['string', 1])
      const inPath = parameters.filter(parameter => parameter.in === 'path').map(({ name }) => `{${name}}`)
      expect(inPath, path).toEqual(path.match(/\{\w+\}/g) ?? [])
      for (const parameter of parameters) expect(parameter, `${path} ${parameter.name}`).toHaveProperty('schema')
      expect(Object.keys(responses), path).toContain('200')
      for (const [status, answer] of Object.entries(responses)) {
        expect(typeof answer.description, `${path} ${status}`).toBe('string')
        const types = Object.keys(answer.content ?? {})
        if (Number(status) >= 400 && path !== '/readyz') expect(types, path).toEqual(['application/problem+json'])
      }
    }
    const list = document.paths['/v1/devices']?.get.parameters?.map(({ name }) => name)
    expect(list).toEqual(['search', 'online', 'limit', 'cursor'])
    expect(JSON.stringify(document)).not.toContain('$ref')
  })

  test('the page at /docs needs nothing but its own files, and its policy allows no other', async () => {
    const page = await fixture.get('/docs/')
    const html = await page.text()
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file as string)
    expect(files.length).toBeGreaterThan(4)
    for (const file of files) {
      expect(file).toMatch(/^\.\/static\//)
      expect((await fixture.get(new URL(file, `${fixture.url}/docs/`).pathname)).status, file).toBe(200)
    }
    expect(html).not.toMatch(/<script(?![^>]* src=)/)
    expect(page.headers.get('content-security-policy')).toContain("script-src 'self';")
    expect(page.headers.get('content-security-policy')).not.toContain('upgrade-insecure-requests')
  })
})

interface OpenApi {
  readonly openapi: string
  readonly info: unknown
  readonly paths: Readonly<
    Record<
      string,
      {
        readonly get: {
          readonly summary: string
          readonly tags: readonly string[]
          readonly parameters?: readonly { readonly name: string; readonly in: string }[]
          readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: object }>>
        }
      }
    >
  >
}
