/** What `/readyz` says of each process: whom a balancer sends devices and dashboards to. */
import { describe, expect, it } from 'vitest'
import type { HealthCheck } from '../../api/api.ts'
import { SurgetankError } from '../../errors.ts'
import { checkApi, checkBroker, checkHealth, checkLoneWriter, checkReader, notServing } from '../../manager/health.ts'

const isReady = (checks: readonly HealthCheck[]) => checks.every(({ ok, required }) => ok || !required)
const schema = { done: true, step: null, failure: null }
const warm = { warm: true }
const cold = { warm: false }

describe('ready', () => {
  it('is a broker while the log takes telemetry, and not while it takes nothing [G1]', () => {
    expect(isReady(checkBroker(false))).toBe(true)
    expect(isReady(checkBroker(true))).toBe(false)
  })

  it('is an API while the space answers, whatever ClickHouse does and however complete the state is', () => {
    expect(isReady(checkApi(true, cold, false))).toBe(true)
    expect(isReady(checkApi(false, warm, true))).toBe(false)
    expect(
      checkApi(true, cold, false)
        .filter(({ ok }) => !ok)
        .map(({ name }) => name),
    ).toEqual(['state', 'clickhouse'])
  })

  it('is a writer while it runs, also without ClickHouse: readings wait in the log', () => {
    expect(isReady(checkLoneWriter(false, schema))).toBe(true)
    expect(checkLoneWriter(false, schema)).toContainEqual(expect.objectContaining({ name: 'clickhouse', ok: false }))
  })

  it('is a reader while it runs, also while it rebuilds', () => {
    expect(isReady(checkReader(cold))).toBe(true)
    expect(checkReader(cold)).toContainEqual(expect.objectContaining({ name: 'state', ok: false }))
  })

  it('is the whole while all rows are written anew, and says how far that is', () => {
    const step = { from: 3, to: 4, what: 'readings of 20260115', rows: 37, rowsAll: 100, secondsLeft: 300 }
    const checks = checkHealth({
      databaseUp: () => true,
      space: cold,
      schema: () => ({ done: false, step, failure: null }),
      writer: () => null,
      stalled: () => false,
    })
    expect(isReady(checks)).toBe(true)
    expect(checks.find(({ name }) => name === 'schema')).toMatchObject({
      ok: false,
      detail: '3 → 4: 37 %, readings of 20260115, about 5 min left; readings wait in the log',
    })
    expect(checks.find(({ name }) => name === 'writer')).toMatchObject({ ok: true, detail: 'waits for the schema' })
  })

  it('is a whole whose database an operator must mend, with the sentence that says how', () => {
    const failure = new SurgetankError('database_no_room', 'Make room.')
    const checks = checkHealth({
      databaseUp: () => true,
      space: warm,
      schema: () => ({ done: false, step: null, failure }),
      writer: () => null,
      stalled: () => false,
    })
    expect(isReady(checks)).toBe(true)
    for (const name of ['schema', 'writer'])
      expect(checks.find(check => check.name === name)).toMatchObject({
        ok: false,
        detail: expect.stringContaining('Make room.'),
      })
  })

  it('is nothing before it serves and once it ends', () => {
    expect(isReady(notServing('is ending'))).toBe(false)
  })

  it('is the whole while the log takes telemetry, with everything else away [G5]', () => {
    const away = {
      databaseUp: () => false,
      space: cold,
      schema: () => schema,
      writer: () => ({ up: false, failure: null }),
    }
    expect(isReady(checkHealth({ ...away, stalled: () => false }))).toBe(true)
    expect(isReady(checkHealth({ ...away, stalled: () => true }))).toBe(false)
  })
})
