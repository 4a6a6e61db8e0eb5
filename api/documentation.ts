/**
 * The API's own description: OpenAPI 3.1 at `/openapi.json`, printed from the schemas of the routes, and a page to read and
 * try it at `/docs`, of files that lie in this installation: it needs no network.
 */
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { Server } from './api.ts'

/**
 * The page's scripts are files of its own. Its styles are set by script in places, so styles may stand inline. The plugin's
 * ready-made policy would also upgrade requests to HTTPS, which nobody serves here.
 */
const PAGE_CSP = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** Before the routes that it describes. */
export async function addDocumentation(server: Server, version: string): Promise<void> {
  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Surgetank',
        version,
        description: 'The newest state of every device, its history, and a stream of changes. Reads only.',
      },
      tags: [
        { name: 'devices', description: 'The newest state, from memory' },
        { name: 'history', description: 'Stored readings, from ClickHouse' },
        { name: 'operation', description: 'For probes and monitoring' },
      ],
    },
  })
  await server.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: PAGE_CSP,
    uiConfig: { deepLinking: false },
    theme: { title: 'Surgetank API' },
  })
  server.get('/openapi.json', { schema: { hide: true } }, () => server.swagger())
}
