/** A few rounds of SIGKILL under load, for every `npm test`; `npm run test:crash` runs them all. */
import { describe, expect, it } from 'vitest'
import { holds } from './checker.ts'
import { BUGS, withBug } from './planted-bugs.ts'
import { runRounds } from './rounds.ts'

describe('SIGKILL under load, a few rounds', () => {
  it('loses, repeats, invents and changes nothing: tree, writer and database [G1] [G2] [G4] [G5] [G7]', async () => {
    const report = await runRounds({ rounds: 4, seed: 20 })
    expect(holds(report), JSON.stringify(report, null, 2)).toBe(true)
    expect(report.acked).toBeGreaterThan(1_000)
  })
})

it.each(BUGS)('the place of a bug that is planted is where it was: $title', bug => {
  expect(withBug(bug)).toContain(bug.to)
})
