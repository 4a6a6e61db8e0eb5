/**
 * What `/readyz` tells, of the whole and of each part alone. ClickHouse away, or a writer that cannot go on, keeps a process
 * that devices talk to ready, because they must be served most of all then: what they send waits in the log.
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
  return [
    ...checkBroker(stalled()),
    checkState(space),
    checkClickHouse(databaseUp(), 'away; readings wait in the log'),
    checkWriter(writer()),
  ]
}

/** A broker serves devices while the log takes what they send. */
export function checkBroker(stalled: boolean): HealthCheck[] {
  const log = { name: 'log', ok: !stalled, required: true }
  return [
    { name: 'mqtt', ok: true, required: true, detail: 'listening' },
    stalled
      ? { ...log, detail: 'the log takes nothing: disk full, at SURGETANK_LOG_MB, or out of reach' }
      : { ...log, detail: 'writable' },
  ]
}

/** An API serves dashboards while the space answers; history alone needs ClickHouse. */
export function checkApi(answers: boolean, space: Pick<Space, 'warm'>, databaseUp: boolean): HealthCheck[] {
  return [
    { name: 'space', ok: answers, required: true, detail: answers ? 'answers' : 'does not answer' },
    checkState(space),
    checkClickHouse(databaseUp, 'away; history is not served'),
  ]
}

export function checkReader(space: Pick<Space, 'warm'>): HealthCheck[] {
  return [{ name: 'reader', ok: true, required: true, detail: 'runs' }, checkState(space)]
}

/** A writer in a process of its own runs until the process ends. */
export function checkLoneWriter(databaseUp: boolean): HealthCheck[] {
  return [
    { name: 'writer', ok: true, required: true, detail: 'runs' },
    checkClickHouse(databaseUp, 'away; readings wait in the log'),
  ]
}

/** Before a part is open, and once it is told to end. */
export function notServing(detail: string): HealthCheck[] {
  return [{ name: 'process', ok: false, required: true, detail }]
}

function checkState({ warm }: Pick<Space, 'warm'>): HealthCheck {
  return { name: 'state', ok: warm, required: false, detail: warm ? 'complete' : 'being rebuilt' }
}

function checkClickHouse(answers: boolean, away: string): HealthCheck {
  return { name: 'clickhouse', ok: answers, required: false, detail: answers ? 'answers' : away }
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
