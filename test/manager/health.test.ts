/** What `/readyz` says of each process: whom a balancer sends devices and dashboards to. */
import { describe, expect, it } from 'vitest'
import type { HealthCheck } from '../../api/api.ts'
import { checkApi, checkBroker, checkHealth, checkLoneWriter, checkReader, notServing } from '../../manager/health.ts'

const isReady = (checks: readonly HealthCheck[]) => checks.every(({ ok, required }) => ok || !required)
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
    expect(isReady(checkLoneWriter(false))).toBe(true)
    expect(checkLoneWriter(false)).toContainEqual(expect.objectContaining({ name: 'clickhouse', ok: false }))
  })

  it('is a reader while it runs, also while it rebuilds', () => {
    expect(isReady(checkReader(cold))).toBe(true)
    expect(checkReader(cold)).toContainEqual(expect.objectContaining({ name: 'state', ok: false }))
  })

  it('is nothing before it serves and once it ends', () => {
    expect(isReady(notServing('is ending'))).toBe(false)
  })

  it('is the whole while the log takes telemetry, with everything else away [G5]', () => {
    const away = { databaseUp: () => false, space: cold, writer: () => ({ up: false, failure: null }) }
    expect(isReady(checkHealth({ ...away, stalled: () => false }))).toBe(true)
    expect(isReady(checkHealth({ ...away, stalled: () => true }))).toBe(false)
  })
})
