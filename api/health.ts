/** `/healthz`, `/readyz`, `/metrics` and the index: for probes, monitoring, and whoever opens the port. */
import { Type } from 'typebox'
import { within } from '../within.ts'
import type { ApiOptions, HealthCheck, Server } from './api.ts'
import { answers } from './schemas.ts'

/** A check that hangs is a check that failed. */
const HEALTH_MS_MAX = 2_000

const Check = Type.Object({ ok: Type.Boolean(), required: Type.Boolean(), detail: Type.String() })
const Ready = Type.Object({ ready: Type.Boolean(), version: Type.String(), checks: Type.Record(Type.String(), Check) })

const HEALTHZ_SCHEMA = {
  tags: ['operation'],
  summary: 'The process answers',
  description: 'Asks no dependency: a restart would not bring one back.',
  response: answers({ 200: Type.Object({ status: Type.String() }) }),
}

const READYZ_SCHEMA = {
  tags: ['operation'],
  summary: 'Devices are served',
  description: 'Ready while ClickHouse is away, and while the state is being rebuilt: telemetry is accepted and kept.',
  response: answers({ 200: Ready, 503: Ready }),
}

const METRICS_SCHEMA = {
  tags: ['operation'],
  summary: "Metrics in Prometheus' text format",
  response: answers({ 200: { description: 'Metrics', content: { 'text/plain': { schema: Type.String() } } } }),
}

const INDEX_SCHEMA = {
  tags: ['operation'],
  summary: 'What is here',
  response: answers({
    200: Type.Object({ name: Type.String(), version: Type.String(), paths: Type.Array(Type.String()) }),
  }),
}

/** `paths` is what the index names. */
export function addHealthRoutes(
  server: Server,
  { health, metricsText, version }: Pick<ApiOptions, 'health' | 'metricsText' | 'version'>,
  paths: readonly string[],
): void {
  server.get('/', { schema: INDEX_SCHEMA }, async () => ({ name: 'surgetank', version, paths }))

  server.get('/healthz', { schema: HEALTHZ_SCHEMA }, async () => ({ status: 'ok' }))

  server.get('/readyz', { schema: READYZ_SCHEMA }, async (_request, reply) => {
    const checks = await checksInTime(health)
    const ready = checks.every(({ ok, required }) => ok || !required)
    const byName = Object.fromEntries(checks.map(({ name, ...check }) => [name, check]))
    return reply.code(ready ? 200 : 503).send({ ready, version, checks: byName })
  })

  server.get('/metrics', { schema: METRICS_SCHEMA }, async (_request, reply) => {
    reply.header('content-type', 'text/plain; version=0.0.4; charset=utf-8')
    return metricsText()
  })
}

async function checksInTime(health: () => Promise<readonly HealthCheck[]>): Promise<readonly HealthCheck[]> {
  const failed = (detail: string): HealthCheck[] => [{ name: 'checks', ok: false, required: true, detail }]
  try {
    return (await within(HEALTH_MS_MAX, health())) ?? failed(`no answer within ${HEALTH_MS_MAX} ms`)
  } catch {
    return failed('could not be made')
  }
}
