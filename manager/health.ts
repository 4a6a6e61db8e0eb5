/**
 * What `/readyz` tells: ClickHouse away, or a writer that cannot go on, keeps it ready, because devices must be served most
 * of all then. What they send waits in the log.
 */
import type { HealthCheck } from '../api/api.ts'
import type { Space } from '../space/space.ts'
import type { Supervised } from './supervise.ts'

export interface HealthSources {
  /** False while ClickHouse does not answer. */
  databaseUp(): boolean
  readonly space: Pick<Space, 'warm'>
  /** Null until it was started for the first time. */
  writer(): Pick<Supervised, 'up' | 'failure'> | null
  /** True while the log takes nothing. */
  stalled(): boolean
}

export function checkHealth({ databaseUp, space, writer, stalled }: HealthSources): HealthCheck[] {
  const answers = databaseUp()
  return [
    { name: 'mqtt', ok: true, required: true, detail: 'listening' },
    stalled()
      ? { name: 'log', ok: false, required: true, detail: 'the log takes nothing: disk full, or at SURGETANK_LOG_MB' }
      : { name: 'log', ok: true, required: true, detail: 'writable' },
    { name: 'state', ok: space.warm, required: false, detail: space.warm ? 'complete' : 'being rebuilt' },
    {
      name: 'clickhouse',
      ok: answers,
      required: false,
      detail: answers ? 'answers' : 'away; readings wait in the log',
    },
    checkWriter(writer()),
  ]
}

function checkWriter(writer: ReturnType<HealthSources['writer']>): HealthCheck {
  const check = { name: 'writer', required: false }
  if (writer === null) return { ...check, ok: true, detail: 'being started' }
  if (writer.failure !== null) {
    return { ...check, ok: false, detail: `readings wait in the log until this is mended: ${writer.failure.message}` }
  }
  return writer.up
    ? { ...check, ok: true, detail: 'runs' }
    : { ...check, ok: false, detail: 'ended, being started again; readings wait in the log' }
}
