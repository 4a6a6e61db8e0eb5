/** The Host header as raw sockets send it, at the API and at the listener of health and metrics [G6]. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openHealthServer } from '../../api/health-server.ts'
import { hasOneHost, isTargetOf, toUrl } from '../../http-host.ts'
import { openFixture } from './api-fixture.ts'

const PORTS = new Map<string, number>()
const closing: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  const api = await openFixture()
  const health = await openHealthServer({
    host: '127.0.0.1',
    port: 0,
    health: async () => [],
    metricsText: async () => '',
    log: pino({ level: 'silent' }),
    version: '1.2.3',
  })
  PORTS.set('API', api.api.port).set('health', health.port)
  closing.push(() => api.close(), health.close)
})
afterAll(() => Promise.all(closing.map(close => close())))

const OURS = 'Host: localhost\r\n'

describe.each(['API', 'health'])('the listener of the %s', listener => {
  it.each([
    ['ours and another', `${OURS}Host: evil.example\r\n`],
    ['another and ours', `Host: evil.example\r\n${OURS}`],
    ['the same one twice', OURS.repeat(2)],
    ['ours twice, in other letter cases', `${OURS}HOST: localhost\r\n`],
    ['one with other headers between', `${OURS}Accept: */*\r\nhost: evil.example\r\n`],
    ['two names in one', 'Host: localhost, evil.example\r\n'],
    ['two names and a blank', 'Host: localhost evil.example\r\n'],
    ['a user', 'Host: a@localhost\r\n'],
    ['a port that is none', 'Host: localhost:http\r\n'],
    ['a port beyond the last', 'Host: localhost:65536\r\n'],
    ['a path', 'Host: localhost/\r\n'],
    ['a scheme', 'Host: http://localhost\r\n'],
    ['an encoded letter', 'Host: loc%61lhost\r\n'],
    ['a full-width letter', 'Host: \uff4cocalhost\r\n'],
    ['an address with a zone', 'Host: [::1%25evil]\r\n'],
    ['an address without its end', 'Host: [::1\r\n'],
    ['nothing in it', 'Host:\r\n'],
    ['none at all', ''],
  ])('refuses by 400 %s, in HTTP/1.1 and in HTTP/1.0', async (_, headers) => {
    for (const version of ['1.1', '1.0']) {
      for (const path of ['/healthz', '/metrics', '/no/such']) {
        expect(await statusOf(listener, `GET ${path} HTTP/${version}\r\n${headers}`), `${path} ${version}`).toBe(400)
      }
    }
  })

  it('answers to one Host header, in any letter case and in HTTP/1.0, too', async () => {
    for (const host of ['localhost', 'LocalHost:1', '127.0.0.1:65535', '[::1]', '[::1]:80']) {
      for (const version of ['1.1', '1.0']) {
        const status = await statusOf(listener, `GET /healthz HTTP/${version}\r\nhOST:  ${host} \r\n`)
        expect(status, `${host} ${version}`).toBe(200)
      }
    }
  })

  it('answers 421 to one Host header of another server', async () => {
    expect(await statusOf(listener, 'GET /healthz HTTP/1.1\r\nHost: evil.example\r\n')).toBe(421)
  })

  it('takes a whole URL as target only where it names what the Host header names', async () => {
    const ask = (target: string, host: string) => statusOf(listener, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n`)
    expect(await ask('http://localhost/healthz', 'localhost')).toBe(200)
    expect(await ask('http://LOCALHOST/healthz', 'localhost')).toBe(200)
    expect(await ask('http://evil.example/healthz', 'localhost')).toBe(400)
    expect(await ask('http://localhost:1/healthz', 'localhost')).toBe(400)
    expect(await ask('http://localhost@evil.example/healthz', 'localhost')).toBe(400)
    expect(await ask('http://evil.example/healthz', 'evil.example')).toBe(421)
    expect(await ask('http:///healthz', 'localhost')).toBe(400)
  })
})

describe('the functions that every listener shares', () => {
  it('read names and values in turn, and take no value for a name', () => {
    expect(hasOneHost(['Host', 'localhost', 'Referer', 'host'])).toBe(true)
    expect(hasOneHost(['Referer', 'host', 'localhost', 'host'])).toBe(false)
    expect(hasOneHost([])).toBe(false)
  })

  it('find a host in absolute targets only', () => {
    expect(isTargetOf('/a?b=http://evil.example/', 'localhost')).toBe(true)
    expect(isTargetOf('*', 'localhost')).toBe(true)
    expect(isTargetOf('https://evil.example?x', 'localhost')).toBe(false)
  })
})

/** The status of the answer to the head of a request, which is sent as it is. */
async function statusOf(listener: string, head: string): Promise<number> {
  const socket = connect(PORTS.get(listener) as number, '127.0.0.1')
  let answer = ''
  socket.setEncoding('latin1').on('data', text => (answer += text))
  socket.write(`${head}Connection: close\r\n\r\n`)
  await once(socket, 'close')
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1])
}

describe('the target of a request', () => {
  it.each([
    ['/?query=1', '/', '?query=1'],
    ['http://localhost/a?b', '/a', '?b'],
    ['//', '//', ''],
    ['//evil.example/ping', '//evil.example/ping', ''],
    ['/\\evil.example/ping', '//evil.example/ping', ''],
    ['//a:99999', '//a:99999', ''],
    ['//[', '//[', ''],
    ['/a#b', '/a', ''],
  ])('%s is the path %s', (target, path, search) => {
    expect(toUrl(target)).toMatchObject({ hostname: 'localhost', pathname: path, search })
  })

  it.each(['*', '', 'http://[', 'ftp://localhost/', 'localhost:80', 'http:evil.example'])('%s is none', target => {
    expect(toUrl(target)).toBe(null)
  })
})
