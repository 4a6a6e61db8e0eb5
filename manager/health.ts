/**
 * What `/readyz` tells, of the whole and of each part alone. ClickHouse away, or a writer that cannot go on, keeps a process
 * that devices talk to ready, because they must be served most of all then: what they send waits in the log.
 */
import type { HealthCheck } from '../api/api.ts'
import type { Space } from '../space/space.ts'
import { percentOf, type SchemaState } from './schema-part.ts'
import type { Supervised } from './supervise.ts'

export interface HealthSources {
  /** False while ClickHouse does not answer. */
  databaseUp(): boolean
  readonly space: Pick<Space, 'warm'>
  schema(): SchemaState
  /** Null until it was started for the first time. */
  writer(): Pick<Supervised, 'up' | 'failure'> | null
  /** True while the log takes nothing. */
  stalled(): boolean
}

export function checkHealth({ databaseUp, space, schema, writer, stalled }: HealthSources): HealthCheck[] {
  return [
    ...checkBroker(stalled()),
    checkState(space),
    checkClickHouse(databaseUp(), 'away; readings wait in the log'),
    checkSchema(schema()),
    checkWriter(writer(), schema()),
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
export function checkLoneWriter(databaseUp: boolean, schema: SchemaState): HealthCheck[] {
  return [
    { name: 'writer', ok: true, required: true, detail: 'runs' },
    checkClickHouse(databaseUp, 'away; readings wait in the log'),
    checkSchema(schema),
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

/** Rows that are written anew take their time, in which devices are served. */
function checkSchema({ done, step, failure }: SchemaState): HealthCheck {
  const check = { name: 'schema', required: false }
  if (failure !== null) return { ...check, ok: false, detail: untilMended(failure) }
  if (done) return { ...check, ok: true, detail: 'of this version' }
  if (step === null) return { ...check, ok: true, detail: 'being looked at' }
  const left = step.secondsLeft === null ? '' : `, about ${describeSeconds(step.secondsLeft)} left`
  const way = `${step.from} → ${step.to}: ${percentOf(step)} %, ${step.what}${left}`
  return { ...check, ok: false, detail: `${way}; readings wait in the log` }
}

function describeSeconds(seconds: number): string {
  return seconds < 120
    ? `${seconds} s`
    : seconds < 7_200
      ? `${Math.round(seconds / 60)} min`
      : `${Math.round(seconds / 3_600)} h`
}

function untilMended({ message }: Error): string {
  return `readings wait in the log until this is mended: ${message}`
}

function checkWriter(writer: ReturnType<HealthSources['writer']>, schema: SchemaState): HealthCheck {
  const check = { name: 'writer', required: false }
  if (writer === null && schema.failure !== null) return { ...check, ok: false, detail: untilMended(schema.failure) }
  if (writer === null) return { ...check, ok: true, detail: schema.done ? 'being started' : 'waits for the schema' }
  if (writer.failure !== null) return { ...check, ok: false, detail: untilMended(writer.failure) }
  return writer.up
    ? { ...check, ok: true, detail: 'runs' }
    : { ...check, ok: false, detail: 'ended, being started again; readings wait in the log' }
}
