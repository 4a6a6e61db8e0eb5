/** `/healthz`, `/readyz` and `/metrics` of a process that has no other HTTP: a broker, a writer, a reader. */
import type { Api, ApiOptions } from './api.ts'
import { addGuards } from './guards.ts'
import { addHealthRoutes } from './health.ts'
import { addProblems } from './problems.ts'
import { listen, newServer } from './server.ts'

export type HealthServerOptions = Pick<ApiOptions, 'host' | 'port' | 'health' | 'metricsText' | 'log' | 'version'>

const PATHS = ['/healthz', '/readyz', '/metrics']

/** Listens; rejects as `openApi` does. */
export async function openHealthServer(options: HealthServerOptions): Promise<Api> {
  const server = newServer(options.log)
  const refuseOtherMethods = addGuards(server, options.host)
  addProblems(server)
  addHealthRoutes(server, options, PATHS)
  refuseOtherMethods()
  const port = await listen(server, options.host, options.port)
  return { port, close: () => server.close() }
}
