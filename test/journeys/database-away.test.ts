/** ClickHouse hangs for a while: devices see nothing of it. `npm run test:crash` does the same for a whole minute. */
import { describe, expect, it } from 'vitest'
import { holds } from '../crash/checker.ts'
import { runOutage } from '../crash/outage.ts'

describe('while ClickHouse hangs', () => {
  it('devices are acknowledged, the log takes the readings, and all of them arrive afterwards [G1] [G2] [G5]', async () => {
    const report = await runOutage({ seconds: 8, rate: 1_000 })
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
    expect(report.reconnects).toBe(0)
    expect(report.lagAtEnd).toBeGreaterThan(report.lagBefore + 10_000)
  })
})
