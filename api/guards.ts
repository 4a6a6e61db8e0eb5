/**
 * Guards: what holds for every answer. The browser of a person is the way in that loopback leaves open, so: the Host header
 * must be one and this machine's (a page elsewhere can point its own name at 127.0.0.1: DNS rebinding), no other origin may read
 * (no CORS), and no answer can be taken for a script or a frame.
 *
 * Beyond loopback, where every peer is trusted, a server has names that it cannot know. There it also answers to any address
 * written out and to names without a dot, such as those of containers: no page on the web can have either for its own.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { hasOneHost, isTargetOf } from '../http-host.ts'
import { isLoopback } from '../settings.ts'
import type { Server } from './api.ts'
import { ApiProblem } from './problems.ts'

export const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'cache-control': 'no-store',
} as const

const OUR_HOST = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?$/i

const NAME_WITHOUT_DOT = /^[a-z0-9_-]{1,63}$/i

/** Before any route is added; `listensOn` is the address of this server. Returns what to call after the last one: it answers 405 for the other methods of each path. */
export function addGuards(server: Server, listensOn: string): () => void {
  const [isOurs, way] = isLoopback(listensOn)
    ? [(host: string) => isLoopbackHost(host, listensOn), 'It must be 127.0.0.1, localhost or [::1].']
    : [isUnspoofableHost, 'It must be an IP address, or a name without a dot.']
  const methodsByUrl = new Map<string, Set<string>>()
  server.addHook('onRoute', ({ url, method }) => {
    if (url.startsWith('/docs')) return
    const methods = methodsByUrl.get(url) ?? new Set()
    methodsByUrl.set(url, methods)
    for (const each of [method].flat()) methods.add(each)
  })
  server.addHook('onRequest', async (request, reply) => {
    reply.headers(SECURITY_HEADERS)
    const { rawHeaders, url = '/' } = request.raw
    const { host = '' } = request.headers
    if (!hasOneHost(rawHeaders))
      throw new ApiProblem('invalid_request', 'It must have one Host header: a name or an address.')
    if (!isTargetOf(url, host))
      throw new ApiProblem('invalid_request', 'Its target and its Host header must name one host.')
    if (!isOurs(host)) throw new ApiProblem('wrong_host', way)
  })
  return () => {
    for (const [url, methods] of [...methodsByUrl]) refuseOtherMethods(server, url, new Set(methods))
  }
}

/** This machine by its usual names, or by the address that it listens on. */
function isLoopbackHost(host: string, listensOn: string): boolean {
  return OUR_HOST.test(host) || host.replace(/:\d{1,5}$/, '') === listensOn
}

function isUnspoofableHost(host: string): boolean {
  const name = host.replace(/:\d{1,5}$/, '')
  return NAME_WITHOUT_DOT.test(name) || isIPv4(name) || isIPv6(/^\[(.+)\]$/.exec(name)?.[1] ?? '')
}

function refuseOtherMethods(server: Server, url: string, methods: ReadonlySet<string>): void {
  const refuse = async () => {
    throw new ApiProblem('method_not_allowed', '')
  }
  server.route({
    method: server.supportedMethods.filter(method => !methods.has(method)),
    url,
    schema: { hide: true },
    // Before the body is read.
    onRequest: async (_request, reply) => {
      reply.header('allow', [...methods].join(', '))
      await refuse()
    },
    handler: refuse,
  })
}
