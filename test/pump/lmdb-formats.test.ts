/** Logs of other versions on this disk: an older one is opened and goes on, a newer one is named as newer. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parseLines } from '../../model/message.ts'
import { batchOf, holdClaim, RECEIVED_AT, refusedOf } from '../contracts/pump-samples.ts'
import { changeMeta, lineOfFormat1, makeLogOfFormat1, metaOnDisk, putHeader } from './lmdb-format-1.ts'
import { type LmdbHarness, openLmdbHarness } from './lmdb-harness.ts'

const ALL = { chunksMax: 1_000, bytesMax: 64 << 20 }
const NEWER = { code: 'log_newer', fate: 'stop', message: expect.stringContaining('Start the newer surgetank.') }

let harness: LmdbHarness
beforeEach(async () => {
  harness = await openLmdbHarness()
})
afterEach(() => harness.destroy())

describe('a log of format 1', () => {
  beforeEach(() => makeLogOfFormat1(harness.dir, 5, 3))

  it('is read as before, each line in its own unit, and its chunks count what they hold', async () => {
    const chunks = await (await harness.openView()).read(0, 0, ALL)
    expect(chunks.map(({ lines }) => lines.toString())).toEqual([0, 1, 2, 3, 4].map(lineOfFormat1))
    for (const { format, counts } of chunks) {
      expect(format).toBe(1)
      expect(counts).toEqual({ received: 1, repeated: 0, quarantined: 0, letGo: {} })
    }
    const [message] = parseLines(chunks[1]?.lines.toString() ?? '', chunks[1]?.format ?? 2)
    expect(message?.receivedAt).toBe((RECEIVED_AT + 1) * 1_000)
  })

  it('is left as it is by those who look at it, and by an inlet that appends nothing', async () => {
    const before = await metaOnDisk(harness.dir)
    await (await harness.openView()).books()
    const inlet = await harness.openInlet()
    expect(inlet.newestReceivedAt).toBe(RECEIVED_AT + 4)
    await inlet.close()
    const { bytesMax, counted, ...after } = await metaOnDisk(harness.dir)
    expect(after).toEqual({ ...before, bytesMax: undefined })
    expect(counted).toBeNull()
  })

  it('tells those who look of the newest receipt of all its chunks, as its inlet does', async () => {
    await putHeader(harness.dir, 1, 1, 64, 60_000)
    const view = await harness.openView()
    const inlet = await harness.openInlet()
    expect([await view.newestReceivedAt(), inlet.newestReceivedAt]).toEqual(Array(2).fill(RECEIVED_AT + 60_001))
  })

  it('becomes one of format 2 with the first append, and counts messages from then on', async () => {
    const inlet = await harness.openInlet()
    const letGo = { received: 7, repeated: 2, quarantined: 1, letGo: { presence: 2 } }
    await inlet.append(batchOf(100, 2, { counts: letGo, refused: [refusedOf(1)] }))
    expect(await metaOnDisk(harness.dir)).toMatchObject({ format: 2 })
    const view = await harness.openView()
    const books = await view.books()
    expect(books.partitions[0]).toMatchObject({ readingsAppended: 7, end: 6 })
    // The three that were quarantined before are known, and counted in.
    expect(books.messages).toEqual({
      since: RECEIVED_AT,
      received: 10,
      accepted: 2,
      repeated: 2,
      quarantined: { waiting: 2, retried: 0, dropped: 0, evicted: 2 },
      letGo: { presence: 2 },
    })
    expect((await view.read(0, 0, ALL)).map(({ format }) => format)).toEqual([1, 1, 1, 1, 1, 2])
    expect(inlet.newestReceivedAt).toBe(RECEIVED_AT + 102)
  })

  it('balances before anything is counted', async () => {
    const { messages } = await (await harness.openView()).books()
    expect(messages).toMatchObject({ received: 3, accepted: 0, quarantined: { waiting: 1, evicted: 2 } })
    expect(messages.since).toBeGreaterThan(RECEIVED_AT - 1e12)
  })

  it('counts anew when an older version has opened it meanwhile and appended to it', async () => {
    // What an older version does not know, it carries along as it was.
    const stale = { since: 1, sums: { received: 9, accepted: 9, repeated: 0, quarantined: 0, letGo: {} } }
    await changeMeta(harness.dir, { counted: { ...stale, lastReceivedAt: 1 } })
    const inlet = await harness.openInlet()
    expect(inlet.newestReceivedAt).toBe(RECEIVED_AT + 4)
    await inlet.append(batchOf(0, 1))
    const { messages } = await (await harness.openView()).books()
    expect(messages).toMatchObject({ since: RECEIVED_AT, received: 4, accepted: 1 })
  })

  it('is written out by claims that go from the one format into the other', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(5, 3))
    const held = await holdClaim(await harness.openOutlet())
    const chunks = await held.claim.read(0, ALL)
    expect(chunks.map(({ format, messages }) => [format, messages])).toEqual([...Array(5).fill([1, 1]), [2, 3]])
    await held.claim.commit(6, null)
    await held.end()
    const { partitions } = await (await harness.openView()).books()
    expect(partitions[0]).toMatchObject({ readingsAppended: 8, readingsCommitted: 8 })
  })
})

it('a log of format 1 that holds no chunk has no newest receipt', async () => {
  await makeLogOfFormat1(harness.dir, 0, 1)
  expect(await (await harness.openView()).newestReceivedAt()).toBe(0)
})

describe('a log of a newer version', () => {
  it('is named as newer, not as corrupt, by whoever opens it', async () => {
    await (await harness.openInlet()).close()
    await changeMeta(harness.dir, { format: 3 })
    await expect(harness.openInlet()).rejects.toMatchObject(NEWER)
    await expect((await harness.openView()).books()).rejects.toMatchObject(NEWER)
  })

  it.each([
    ['has more to say', 100],
    ['says less', 20],
  ])('is named as newer also when only a chunk of it is, whose header %s', async (_what, length) => {
    const inlet = await harness.openInlet()
    for (let i = 0; i < 3; i++) await inlet.append(batchOf(i, 1))
    await inlet.close()
    await putHeader(harness.dir, 1, 3, length)
    const view = await harness.openView()
    expect(await view.read(0, 0, { chunksMax: 1, bytesMax: 1 << 20 })).toHaveLength(1)
    await expect(view.read(0, 1, ALL)).rejects.toMatchObject(NEWER)
    expect(await view.read(0, 2, ALL)).toHaveLength(1)
  })

  it('is called damaged when what says so is itself damaged', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1))
    await inlet.close()
    await putHeader(harness.dir, 0, 3, 100)
    const file = join(harness.dir, 'log', 'data.mdb')
    const bytes = readFileSync(file)
    // The header lies beside its key, which begins with `c`, the partition and the position.
    const key = Buffer.concat([Buffer.from('c'), Buffer.alloc(11)])
    for (let at = bytes.indexOf(key); at !== -1; at = bytes.indexOf(key, at + 1)) {
      const version = at + key.length + 4
      if (bytes.readUInt8(version) === 3) bytes.writeUInt8(4, version)
    }
    writeFileSync(file, bytes)
    await expect((await harness.openView()).read(0, 0, ALL)).rejects.toMatchObject({ code: 'log_corrupt' })
  })
})

it('the newest receipt is known also when no chunk is held any more', async () => {
  let now = RECEIVED_AT
  const inlet = await harness.openInlet({ keepHours: 1, clock: () => now })
  for (let i = 0; i < 3; i++) await inlet.append(batchOf(i * 10, 5))
  const held = await holdClaim(await harness.openOutlet())
  await held.claim.commit(3, null)
  await held.end()
  now += 10 * 3_600_000
  // Retention looks at the position at most every 100 ms.
  await new Promise(resolve => setTimeout(resolve, 150))
  await inlet.append(batchOf(0, 0, { refused: [refusedOf(1)], firstReceivedAt: 0, lastReceivedAt: 0 }))
  expect((await (await harness.openView()).books()).partitions[0]).toMatchObject({ first: 3, end: 3 })
  await inlet.close()
  expect((await harness.openInlet()).newestReceivedAt).toBe(RECEIVED_AT + 25)
})
