/** What `/readyz` tells: ClickHouse away keeps it ready, because devices must be served most of all then. */
import type { HealthCheck } from '../api/api.ts'
import type { Space } from '../space/space.ts'

export interface HealthSources {
  /** False while ClickHouse does not answer. */
  databaseUp(): boolean
  readonly space: Pick<Space, 'warm'>
  /** True while the log takes nothing. */
  stalled(): boolean
}

export function checkHealth({ databaseUp, space, stalled }: HealthSources): HealthCheck[] {
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
  ]
}
