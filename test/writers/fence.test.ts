/** [G2] The fence before each insert: a writer that was away for longer than its claim may live asks the log before it goes on. */
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Database, SourceRange } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'
import type { Claim, Plan } from '../../pump/pump.ts'
import { openFence } from '../../writers/fence.ts'
import { openWriter } from '../../writers/writer.ts'
import { openMemoryLog } from './memory-log.ts'

const NOW = Date.UTC(2026, 10, 20, 12)

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW })
})
afterEach(() => {
  vi.useRealTimers()
})

describe('the fence', () => {
  it('lets an insert of a plan pass that was just committed', async () => {
    const { claim, commits } = openClaim()
    const fence = openFence(claim, 3, { to: 7, mode: 'whole' }, NOW)
    vi.setSystemTime(NOW + 5_000)
    await fence.check()
    expect(commits).toEqual([])
  })

  it.each([
    ['5 s old', NOW, NOW + 5_001],
    ['of another life', 0, NOW],
    ['of a time that has not come, because the clock was set back', NOW, NOW - 1],
  ])('commits a plan again that is %s, once', async (_, committedAt, now) => {
    const { claim, commits } = openClaim()
    const fence = openFence(claim, 3, { to: 7, mode: 'whole' }, committedAt)
    vi.setSystemTime(now)
    await fence.check()
    await fence.check()
    expect(commits).toEqual([[3, { to: 7, mode: 'whole' }]])
  })

  it('asks each time before a step that no token protects', async () => {
    const { claim, commits } = openClaim()
    const fence = openFence(claim, 3, { to: 7, mode: 'whole' }, NOW)
    await fence.confirm()
    await fence.confirm()
    expect(commits).toHaveLength(2)
  })

  it('commits a plan again in the mode that it has by then', async () => {
    const { claim, commits } = openClaim()
    const fence = openFence(claim, 3, { to: 7, mode: 'whole' }, NOW)
    await fence.change('bisected')
    vi.setSystemTime(NOW + 60_000)
    await fence.check()
    expect(commits).toEqual([
      [3, { to: 7, mode: 'bisected' }],
      [3, { to: 7, mode: 'bisected' }],
    ])
  })

  it('stops a writer whose claim another has, whether it was told or must ask', async () => {
    const told = openClaim()
    told.lost.abort()
    const fence = openFence(told.claim, 3, { to: 7, mode: 'whole' }, NOW)
    await expect(fence.check()).rejects.toMatchObject({ code: 'log_claim_lost' })
    await expect(fence.confirm()).rejects.toMatchObject({ code: 'log_claim_lost' })
    expect(told.commits).toEqual([])

    const asking = openClaim(new SurgetankError('log_claim_lost', 'of another'))
    const other = openFence(asking.claim, 3, { to: 7, mode: 'whole' }, NOW)
    vi.setSystemTime(NOW + 10_001)
    await expect(other.check()).rejects.toMatchObject({ code: 'log_claim_lost' })
  })
})

it('a writer that slept between two attempts, and was overtaken, does not insert again [G2]', async () => {
  const log = openMemoryLog(1)
  log.told.overtaken = false
  log.append(0, 1)
  let inserts = 0
  const database = {
    async insertReadings() {
      inserts++
      // Another takes the claim over while this one sleeps for a minute; nobody tells it.
      log.outlet([0]).consume(async () => {})
      vi.setSystemTime(NOW + 60_000)
      throw new SurgetankError('database_unavailable', 'the connection was gone when it woke')
    },
    waitForInserts: async () => {},
    catchUp: async () => {},
    countReadings: async () => 0,
    storedThrough: async ({ from }: SourceRange) => from,
  } as unknown as Database
  const limits = { rowsMax: 100, bytesMax: 1 << 20 }
  const silent = pino({ level: 'silent' })
  const outlet = log.outlet([0])
  await openWriter({ outlet, database, limits, batchAgeMsMax: 0, retryMsMin: 1, log: silent }).ended
  expect(inserts).toBe(1)
  expect(log.place(0)).toEqual({ position: 0, plan: { to: 1, mode: 'whole' } })
})

function openClaim(refusal?: SurgetankError) {
  const lost = new AbortController()
  const commits: [number, Plan | null][] = []
  const claim: Claim = {
    partition: 0,
    source: 'log/0',
    position: 3,
    plan: null,
    lost: lost.signal,
    begins: async () => 0,
    ends: async () => 3,
    read: async () => [],
    wait: async () => {},
    async commit(position, plan) {
      if (refusal !== undefined) throw refusal
      commits.push([position, plan])
    },
  }
  return { claim, lost, commits }
}
