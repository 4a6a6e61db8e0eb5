/** Several processes on one log: they follow it live, take it over from one another, and open it at any moment. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { batchOf, holdClaim } from '../contracts/pump-samples.ts'
import { until } from '../waits.ts'
import { killed, startChild, told } from './children.ts'
import { type LmdbHarness, openLmdbHarness } from './lmdb-harness.ts'

const ALL = { chunksMax: 1_000, bytesMax: 256 << 20 }

let harness: LmdbHarness
beforeEach(async () => {
  harness = await openLmdbHarness()
})
afterEach(() => harness.destroy())

describe('the log on this disk, between processes', () => {
  it('is followed live without a gap, from before it was made, and its file does not grow', async () => {
    const lines = 60_000
    const child = startChild('follow', harness.dir, lines)
    await told(child, 'following')
    const followed = told<{ followedTo: number; gaps: number }>(child, 'followedTo')
    const inlet = await harness.openInlet({ keepHours: 0, bytesMax: 64 << 20, clock: () => Date.now() + 3_600_000 })
    const view = await harness.openView()
    for (let from = 0; from < lines; from += 100) {
      await inlet.append(batchOf(from, 100))
      // What is not written may lag by a few batches; the file must not hold more than that.
      while ((await view.books()).bytesUnwritten > 1 << 18) await new Promise(resolve => setTimeout(resolve, 5))
    }
    expect(await followed).toEqual({ followedTo: lines, gaps: 0 })
    expect((await view.books()).partitions[0]).toMatchObject({ readingsAppended: lines, readingsCommitted: lines })
    expect(statSync(join(harness.dir, 'log', 'data.mdb')).size).toBeLessThan(4 << 20)
  })

  it('belongs to the later claim, also when the earlier writer was frozen meanwhile [G2]', async () => {
    const inlet = await harness.openInlet()
    for (let i = 0; i < 5; i++) await inlet.append(batchOf(i, 1))
    const child = startChild('hold', harness.dir)
    await told(child, 'claimed')
    child.kill('SIGSTOP')
    const held = await holdClaim(await harness.openOutlet())
    await held.claim.commit(2, { to: 4, mode: 'whole' })
    const refused = told(child, 'refused')
    child.kill('SIGCONT')
    child.send(5)
    expect(await refused).toEqual({ refused: 'log_claim_lost' })
    const { partitions } = await (await harness.openView()).books()
    expect(partitions[0]).toMatchObject({ committed: 2, plan: { to: 4, mode: 'whole' } })
    await killed(child)
    await held.end()
  })

  it('never waits for a frozen writer before it acknowledges [G1]', async () => {
    const inlet = await harness.openInlet()
    const child = startChild('hold', harness.dir)
    await told(child, 'claimed')
    child.kill('SIGSTOP')
    for (let i = 0; i < 20; i++) await inlet.append(batchOf(i, 1))
    expect((await (await harness.openView()).books()).partitions[0]?.end).toBe(20)
    await killed(child)
  })

  for (const by of [1, 2]) {
    it(`loses no append when an opening sets the transaction number back by ${by} [G1]`, async () => {
      const inlet = await harness.openInlet()
      const outlet = await harness.openOutlet()
      const held = await holdClaim(outlet)
      const view = await harness.openView()
      let appended = 0
      for (let round = 0; round < 5; round++) {
        for (let i = 0; i < 3; i++) await inlet.append(batchOf(appended++, 1))
        await held.claim.commit(appended - 1, { to: appended, mode: 'whole' })
        await told(startChild('setBack', join(harness.dir, 'log'), by), 'setBack')
        await told(startChild('setBack', join(harness.dir, 'positions'), by), 'setBack')
        await inlet.append(batchOf(appended++, 1))
        await held.claim.commit(appended - 1, null)
      }
      expect((await view.read(0, 0, ALL)).map(({ position }) => position)).toEqual([...Array(appended).keys()])
      await Promise.all([held.end(), inlet.close(), outlet.close(), view.close()])
      const later = await harness.openView()
      expect(await later.read(0, 0, ALL)).toHaveLength(appended)
      expect((await later.books()).partitions[0]).toMatchObject({ end: appended, committed: appended - 1 })
    })
  }

  it('sees the newest again by itself after an opening has set the number back, also while nothing is appended', async () => {
    const child = startChild('append', harness.dir)
    await told(child, 'appendedTo')
    await killed(child)
    const view = await harness.openView()
    const received = async () => (await view.books()).messages.received
    const newest = await received()
    await told(startChild('setBack', join(harness.dir, 'log'), 1), 'setBack')
    expect(await received()).toBeLessThan(newest)
    await until(async () => (await received()) >= newest)
  })

  it('loses no append while other processes open and close it without end [G1]', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1))
    const children = [startChild('reopen', harness.dir, 3_000), startChild('reopen', harness.dir, 3_000)]
    let running = children.length
    const opened = children.map(async child => {
      const { opened } = await told<{ opened: number }>(child, 'opened')
      running--
      return opened
    })
    let appended = 1
    while (running > 0) await inlet.append(batchOf(appended++, 1))
    const counts = await Promise.all(opened)
    expect(Math.min(...counts)).toBeGreaterThan(50)
    const view = await harness.openView()
    let read = 0
    for (let chunks = await view.read(0, 0, ALL); chunks.length > 0; chunks = await view.read(0, read, ALL))
      read += chunks.length
    expect(read).toBe(appended)
  })
})
