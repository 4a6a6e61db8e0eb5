/** All rounds of SIGKILL and power cuts under load, and bugs planted to see that the rounds catch them: `npm run test:crash`. */
import { rmSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { holds } from './checker.ts'
import { canCutPower } from './cut-disk.ts'
import { runOutage } from './outage.ts'
import { BUGS, plant } from './planted-bugs.ts'
import { type RoundsReport, runRounds } from './rounds.ts'

describe('SIGKILL under load, 20 rounds', () => {
  it('loses, repeats, invents and changes nothing [G1] [G2] [G4] [G5] [G7]', async () => {
    const report = await runRounds({ rounds: 20, seed: 1 })
    print('as built', report)
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
  })
})

const CUT = { ext4: await canCutPower('ext4'), xfs: await canCutPower('xfs') }
for (const [name, can] of Object.entries(CUT)) {
  if (!can)
    process.stderr.write(`SKIPPED: power cuts on ${name}, for want of a mount of it (root; mkfs.${name} and perl).\n`)
}

describe.each([
  { fileSystem: 'ext4', of: 'all', rounds: 15 },
  { fileSystem: 'ext4', of: 'clickhouse', rounds: 8 },
  { fileSystem: 'xfs', of: 'all', rounds: 8 },
  { fileSystem: 'xfs', of: 'clickhouse', rounds: 8 },
] as const)('power cuts under load, $rounds rounds, of $of on $fileSystem', ({ rounds, ...disk }) => {
  it.skipIf(!CUT[disk.fileSystem])('lose, repeat, invent and change nothing [G1] [G2] [G4] [G7]', async () => {
    const report = await runRounds({ rounds, seed: 3, targets: ['power'], disk })
    print(`power cuts, ${disk.of} on ${disk.fileSystem}`, report)
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
  })
})

describe('ClickHouse away for a minute under load', () => {
  it('devices see nothing, memory stays flat, and the log drains [G1] [G2] [G5]', async () => {
    const report = await runOutage({ seconds: 60, rate: 2_000 })
    const { reconnects, ackP99Ms, lagAtEnd, drainedAfterMs, memoryGrowthMb, acked, lost, duplicated } = report
    process.stdout.write(
      `ClickHouse away for 60 s: ${acked} readings acknowledged, lost ${lost}, duplicated ${duplicated}, reconnects ${reconnects}, ` +
        `PUBACK p99 ${ackP99Ms.toFixed(1)} ms, lag at the end ${lagAtEnd}, drained in ${(drainedAfterMs / 1_000).toFixed(1)} s, ` +
        `memory ${memoryGrowthMb.toFixed(0)} MB more\n`,
    )
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
    expect(reconnects).toBe(0)
    expect(lagAtEnd).toBeGreaterThan(report.lagBefore + 300_000)
    expect(drainedAfterMs).toBeLessThan(60_000)
    expect(memoryGrowthMb).toBeLessThan(64)
  })
})

describe('a planted bug is caught', () => {
  for (const bug of BUGS) {
    it.skipIf(bug.target === 'power' && !CUT.ext4)(bug.title, async () => {
      const { root, dist } = plant(bug)
      try {
        const report = await runRounds({
          rounds: 8,
          seed: 2,
          dist,
          targets: [bug.target],
          ...(bug.target === 'power' ? { disk: { fileSystem: 'ext4', of: 'all' } as const } : {}),
          env: { SURGETANK_BATCH_MS: '50' },
        })
        print(bug.title, report)
        expect(holds(report)).toBe(false)
        expect(report[bug.shows]).toBeGreaterThan(0)
      } finally {
        rmSync(root, { recursive: true, force: true })
      }
    })
  }
})

function print(title: string, report: RoundsReport): void {
  const { acked, stored, lost, duplicated, phantom, changed, misordered, statesWrong, latestWrong, kills, resent } =
    report
  process.stdout.write(
    `${title}: ${acked} readings acknowledged, ${stored} stored, lost ${lost}, duplicated ${duplicated}, phantom ${phantom}, ` +
      `changed ${changed}, out of order ${misordered}, states wrong ${statesWrong} and ${latestWrong} in latest, ` +
      `messages resent ${resent}, kills ${JSON.stringify(kills)}\n`,
  )
}
