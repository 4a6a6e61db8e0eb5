/**
 * What every adapter of the pump promises, run over each. An adapter's test gives the way to open its parts on one log
 * that no other test uses.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import type { Batch, Claim, PumpInlet, PumpOutlet, PumpView } from '../../pump/pump.ts'
import { countsMessages } from './pump-books.ts'
import { batchOf, deferred, holdClaim, letterOf, lineOf, RECEIVED_AT, refusedOf, rejection } from './pump-samples.ts'

export interface PumpHarness {
  openInlet(bounds?: InletBounds): Promise<PumpInlet>
  openOutlet(): Promise<PumpOutlet>
  openView(): Promise<PumpView>
  destroy(): Promise<void>
}

export interface InletBounds {
  readonly bytesMax?: number
  readonly keepHours?: number
  readonly quarantineBytesMax?: number
  readonly clock?: () => number
}

const ALL = { chunksMax: 1_000, bytesMax: 64 << 20 }

/** `exact`: false where the log only estimates how much it holds, and lets go of refused messages by the segment. */
export function pumpContract(
  name: string,
  fresh: () => Promise<PumpHarness>,
  { exact }: { readonly exact: boolean },
): void {
  describe(`${name}, as every pump`, () => {
    let harness: PumpHarness
    beforeEach(async () => {
      harness = await fresh()
    })
    afterEach(() => harness.destroy())

    appends()
    claims()
    keepsBooks()
    countsMessages(() => harness, exact)
    makesRoom()

    function appends(): void {
      it('holds a batch as soon as its append resolves, for every reader [G1]', async () => {
        const view = await harness.openView()
        const inlet = await harness.openInlet()
        await inlet.append(batchOf(0, 3))
        const [chunk, ...others] = await view.read(0, 0, ALL)
        expect(others).toEqual([])
        expect(chunk).toMatchObject({ partition: 0, position: 0, messages: 3, readings: 3 })
        expect(chunk).toMatchObject({ firstReceivedAt: RECEIVED_AT, lastReceivedAt: RECEIVED_AT + 3 })
        expect(chunk?.lines.toString()).toBe([0, 1, 2].map(lineOf).join('\n'))
      })

      it('gives positions that grow by one, in the order of the appends', async () => {
        const inlet = await harness.openInlet()
        for (let i = 0; i < 20; i++) await inlet.append(batchOf(i * 5, 5))
        const view = await harness.openView()
        const chunks = await view.read(0, 0, ALL)
        expect(chunks.map(({ position }) => position)).toEqual(Array.from({ length: 20 }, (_, i) => i))
        const lines = chunks.flatMap(({ lines }) => lines.toString().split('\n'))
        expect(lines).toEqual(Array.from({ length: 100 }, (_, i) => lineOf(i)))
      })

      it('gives every byte of a line back as it was [G3]', async () => {
        const inlet = await harness.openInlet()
        const line = `{"device":"d","receivedAt":1,"readings":[["ä\u2028😀\\u0000\\n",null,-0],["n",null,9007199254740993]]}`
        await inlet.append(batchOf(0, 1, { lines: Buffer.from(line), readings: 2 }))
        const [chunk] = await (await harness.openView()).read(0, 0, ALL)
        expect(chunk?.lines.toString()).toBe(line)
      })

      it('reads no more than the limits, but always one chunk when there is one', async () => {
        const inlet = await harness.openInlet()
        for (let i = 0; i < 6; i++) await inlet.append(batchOf(i * 10, 10))
        const view = await harness.openView()
        const positions = async (from: number, chunksMax: number, bytesMax: number) =>
          (await view.read(0, from, { chunksMax, bytesMax })).map(({ position }) => position)
        expect(await positions(0, 2, 1 << 20)).toEqual([0, 1])
        expect(await positions(3, 10, 1)).toEqual([3])
        expect(await positions(4, 10, 1 << 20)).toEqual([4, 5])
        expect(await positions(6, 10, 1 << 20)).toEqual([])
      })

      it('gives the newest chunks as its tail, the newest last', async () => {
        const inlet = await harness.openInlet()
        for (let i = 0; i < 6; i++) await inlet.append(batchOf(i * 10, 10))
        const tail = await inlet.tail(25)
        expect(tail.map(({ position }) => position)).toEqual([3, 4, 5])
        expect(await inlet.tail(1_000)).toHaveLength(6)
        expect(await inlet.tail(0)).toEqual([])
      })

      it('goes on where it was after it is opened again', async () => {
        const first = await harness.openInlet()
        await first.append(batchOf(0, 2))
        await first.close()
        const second = await harness.openInlet()
        await second.append(batchOf(2, 2))
        const view = await harness.openView()
        expect((await view.read(0, 0, ALL)).map(({ position }) => position)).toEqual([0, 1])
        expect((await view.books()).partitions[0]).toMatchObject({ end: 2, readingsAppended: 4 })
      })
    }

    function claims(): void {
      it('tells a claim of what comes, and lets it wait no longer than asked', async () => {
        const inlet = await harness.openInlet()
        const held = await holdClaim(await harness.openOutlet())
        const since = performance.now()
        await held.claim.wait(0, 60)
        expect(performance.now() - since).toBeGreaterThan(50)
        const told = held.claim.wait(0, 20_000)
        await inlet.append(batchOf(0, 4))
        await told
        expect(await held.claim.read(0, ALL)).toHaveLength(1)
        await held.end()
      })

      it('keeps position and plan for the next claim [G2]', async () => {
        const inlet = await harness.openInlet()
        for (let i = 0; i < 5; i++) await inlet.append(batchOf(i * 10, 10))
        const outlet = await harness.openOutlet()
        const first = await holdClaim(outlet)
        expect(first.claim).toMatchObject({ position: 0, plan: null })
        expect([await first.claim.begins(), await first.claim.ends()]).toEqual([0, 5])
        await first.claim.commit(2, null)
        await first.claim.commit(2, { to: 4, mode: 'bisected' })
        expect(first.claim).toMatchObject({ position: 2, plan: { to: 4, mode: 'bisected' } })
        const second = await holdClaim(await harness.openOutlet())
        expect(second.claim).toMatchObject({
          position: 2,
          plan: { to: 4, mode: 'bisected' },
          source: first.claim.source,
        })
        await second.claim.commit(4, null)
        expect((await second.claim.read(4, ALL)).map(({ position }) => position)).toEqual([4])
        await Promise.all([first.end(), second.end()])
      })

      it('refuses the commit of a claim that was taken over, and changes nothing [G2]', async () => {
        const inlet = await harness.openInlet()
        for (let i = 0; i < 3; i++) await inlet.append(batchOf(i * 10, 10))
        const older = await holdClaim(await harness.openOutlet())
        const newer = await holdClaim(await harness.openOutlet())
        const letters = [letterOf(older.claim.source, 0, 0)]
        expect((await rejection(older.claim.commit(3, null, letters))).code).toBe('log_claim_lost')
        expect(older.claim.lost.aborted).toBe(true)
        const books = await (await harness.openView()).books()
        expect(books.partitions[0]).toMatchObject({ committed: 0, deadLetters: 0 })
        await newer.claim.commit(1, null)
        expect(newer.claim.lost.aborted).toBe(false)
        await Promise.all([older.end(), newer.end()])
      })

      it('tells a claim that it was taken over also while it commits nothing', async () => {
        await harness.openInlet()
        const older = await holdClaim(await harness.openOutlet())
        const told = new Promise(resolve => older.claim.lost.addEventListener('abort', resolve))
        const newer = await holdClaim(await harness.openOutlet())
        await told
        expect(newer.claim.lost.aborted).toBe(false)
        await Promise.all([older.end(), newer.end()])
      })

      it('takes a repeated commit as done, and its dead letters once', async () => {
        const inlet = await harness.openInlet()
        await inlet.append(batchOf(0, 10))
        const held = await holdClaim(await harness.openOutlet())
        const letters = [letterOf(held.claim.source, 0, 3), letterOf(held.claim.source, 0, 4)]
        for (let i = 0; i < 3; i++) await held.claim.commit(1, null, letters)
        const view = await harness.openView()
        expect((await view.books()).partitions[0]).toMatchObject({
          committed: 1,
          deadLetters: 2,
          readingsCommitted: 10,
        })
        const entries = await view.quarantine(10)
        expect(entries.map(({ id }) => id).sort()).toEqual(['r1', 'r2'])
        expect(await view.quarantineEntry('r1')).toMatchObject({
          device: 'press-1',
          reason: 'refused',
          detail: 'no such type',
        })
        expect(Buffer.from((await view.quarantineEntry('r2'))?.bytes ?? []).toString()).toBe(lineOf(4))
        expect((await view.quarantineEntry('r2'))?.bytesTotal).toBe(lineOf(4).length)
        await held.end()
      })

      it('claims again after work that may be tried again has failed', async () => {
        const inlet = await harness.openInlet()
        await inlet.append(batchOf(0, 1))
        const again = deferred<Claim>()
        let times = 0
        const consumption = (await harness.openOutlet()).consume(async claim => {
          if (times++ === 0) throw new SurgetankError('database_unavailable', 'It was asked to fail.')
          again.resolve(claim)
        })
        expect((await again.promise).position).toBe(0)
        await consumption.stop()
        await consumption.ended
      })

      it('ends with the error that an operator must act on', async () => {
        await harness.openInlet()
        const { ended } = (await harness.openOutlet()).consume(async () => {
          throw new SurgetankError('database_misconfigured', 'It was asked to fail.')
        })
        expect((await rejection(ended)).code).toBe('database_misconfigured')
      })

      it('lets the step under way be committed when it is stopped, and opens no other', async () => {
        const inlet = await harness.openInlet()
        await inlet.append(batchOf(0, 10))
        const outlet = await harness.openOutlet()
        const planned = deferred<void>()
        const insert = deferred<void>()
        const seen: unknown[] = []
        const consumption = outlet.consume(async claim => {
          await claim.commit(0, { to: 1, mode: 'whole' })
          planned.resolve()
          await insert.promise
          seen.push(claim.lost.aborted)
          await claim.commit(1, null)
          seen.push(claim.lost.aborted)
          seen.push((await rejection(claim.commit(1, { to: 1, mode: 'whole' }))).code)
        })
        await planned.promise
        const stopped = consumption.stop()
        insert.resolve()
        await stopped
        await consumption.ended
        expect(seen).toEqual([false, true, 'log_claim_lost'])
        expect((await (await harness.openView()).books()).partitions[0]).toMatchObject({ committed: 1, plan: null })
      })
    }

    function keepsBooks(): void {
      it('keeps books that balance at each step [G7]', async () => {
        const inlet = await harness.openInlet()
        const view = await harness.openView()
        const held = await holdClaim(await harness.openOutlet())
        for (let i = 0; i < 6; i++) await inlet.append(batchOf(100 + i * 10, 10, { readings: 20 + i }))
        await held.claim.commit(4, { to: 5, mode: 'whole' }, [letterOf(held.claim.source, 1, 1)])
        const books = await view.books()
        expect(books.partitions).toEqual([
          {
            partition: 0,
            source: held.claim.source,
            first: 0,
            end: 6,
            committed: 4,
            plan: { to: 5, mode: 'whole' },
            readingsAppended: 135,
            readingsCommitted: 86,
            deadLetters: 1,
            oldestUnwrittenAt: RECEIVED_AT + 140,
          },
        ])
        expect(books.bytesUnwritten * 3).toBe(books.bytes)
        await held.claim.commit(6, null)
        const after = await view.books()
        expect(after).toMatchObject({ bytesUnwritten: 0, bytes: books.bytes })
        expect(after.partitions[0]).toMatchObject({ readingsCommitted: 135, oldestUnwrittenAt: null })
        await held.end()
      })

      it('keeps a refused message as it came, and no line when only such came', async () => {
        const inlet = await harness.openInlet()
        await inlet.append(batchOf(0, 0, { refused: [refusedOf(1), refusedOf(2)] }))
        await inlet.append(batchOf(0, 1, { refused: [refusedOf(3)] }))
        const view = await harness.openView()
        expect(await view.books()).toMatchObject({ quarantined: 3, quarantinedKept: 3 })
        const chunks = await view.read(0, 0, ALL)
        expect(chunks.filter(({ lines }) => lines.length > 0).map(({ messages }) => messages)).toEqual([1])
        const entries = await view.quarantine(2)
        expect(entries.map(({ id, detail }) => [id, detail])).toEqual([
          ['m3', 'number 3'],
          ['m2', 'number 2'],
        ])
        const { payload, topic, ...about } = refusedOf(1)
        const entry = await view.quarantineEntry('m1')
        expect(entry).toMatchObject({ ...about, where: topic })
        expect(Buffer.from(entry?.bytes ?? [])).toEqual(payload)
        expect(entry?.bytesTotal).toBe(payload.length)
        expect(await view.quarantineEntry('m4')).toBeNull()
        expect(await view.quarantineEntry('../m1')).toBeNull()
      })

      it('knows how long the whole of a refused message was of which only the beginning is kept', async () => {
        const inlet = await harness.openInlet()
        const oversized = { ...refusedOf(1), reason: 'packet_too_large', payloadBytes: 3 << 20 }
        await inlet.append(batchOf(0, 0, { refused: [oversized, refusedOf(2)] }))
        const view = await harness.openView()
        const sizes = (await view.quarantine(10)).map(({ id, bytes, bytesTotal }) => [id, bytes.length, bytesTotal])
        expect(sizes).toEqual([
          ['m2', 20, 20],
          ['m1', 20, 3 << 20],
        ])
        expect(await view.quarantineEntry('m1')).toMatchObject({ reason: 'packet_too_large', bytesTotal: 3 << 20 })
      })

      if (exact)
        it('lets the oldest refused messages make room, and counts them all', async () => {
          const inlet = await harness.openInlet({ quarantineBytesMax: 64 * 1024 })
          for (let i = 1; i <= 40; i++) await inlet.append(batchOf(0, 0, { refused: [refusedOf(i, 5_000)] }))
          const view = await harness.openView()
          const { quarantined, quarantinedKept, messages } = await view.books()
          expect(quarantined).toBe(40)
          const evicted = 40 - quarantinedKept
          expect(messages.quarantined).toEqual({ waiting: quarantinedKept, retried: 0, dropped: 0, evicted })
          expect(quarantinedKept).toBeGreaterThan(4)
          expect(quarantinedKept).toBeLessThan(13)
          expect(await view.quarantineEntry('m1')).toBeNull()
          expect(await view.quarantineEntry('m40')).toMatchObject({ detail: 'number 40' })
        })
    }

    function makesRoom(): void {
      it('forgets what is old only when it is committed [G5]', async () => {
        let now = RECEIVED_AT
        const inlet = await harness.openInlet({ keepHours: 1, clock: () => now })
        for (let i = 0; i < 10; i++) await inlet.append(batchOf(i, 1))
        const held = await holdClaim(await harness.openOutlet())
        const view = await harness.openView()
        const first = async () => (await view.books()).partitions[0]?.first
        now += 100 * 3_600_000
        await inlet.append(batchOf(10, 1))
        expect(await first()).toBe(0)
        await held.claim.commit(6, { to: 8, mode: 'whole' })
        let appended = 11
        while ((await first()) !== 6) await inlet.append(batchOf(appended++, 1))
        for (let i = 0; i < 5; i++) await inlet.append(batchOf(appended++, 1))
        expect(await first()).toBe(6)
        expect((await held.claim.read(0, ALL))[0]?.position).toBe(6)
        const { partitions } = await view.books()
        expect(partitions[0]).toMatchObject({ readingsAppended: appended, readingsCommitted: 6 })
        await held.end()
      })

      it('keeps what is committed for as long as asked', async () => {
        const inlet = await harness.openInlet({ keepHours: 1, clock: () => RECEIVED_AT + 1_800_000 })
        await inlet.append(batchOf(0, 1))
        const held = await holdClaim(await harness.openOutlet())
        await held.claim.commit(1, null)
        await inlet.append(batchOf(1, 1))
        expect((await (await harness.openView()).books()).partitions[0]?.first).toBe(0)
        await held.end()
      })

      it('refuses appends at its cap, nothing of them in the log, and takes them when there is room [G5]', async () => {
        const bytesMax = 2 << 20
        const inlet = await harness.openInlet({ bytesMax, keepHours: 1_000 })
        const view = await harness.openView()
        let appended = 0
        let full: SurgetankError | null = null
        while (full === null && appended < 1_000) {
          full = await inlet.append(batchOf(0, 500, { refused: [refusedOf(1)] })).then(() => null, toSurgetankError)
          if (full === null) appended++
        }
        expect(full).toMatchObject({ code: 'log_unavailable', fate: 'retry' })
        const books = await view.books()
        expect(books.partitions[0]).toMatchObject({ end: appended, readingsAppended: appended * 500 })
        expect(books).toMatchObject({ quarantined: appended, bytesMax })
        expect(books.bytes).toBeLessThanOrEqual(bytesMax)
        expect(books.bytesUnwritten).toBeGreaterThan(bytesMax * 0.9)
        const held = await holdClaim(await harness.openOutlet())
        await held.claim.commit(3, null)
        for (let i = 0; i < 3; i++) await appendWhenRoom(inlet, batchOf(0, 500))
        expect((await rejection(inlet.append(batchOf(0, 500)))).code).toBe('log_unavailable')
        const { partitions } = await view.books()
        expect(partitions[0]?.end).toBe(appended + 3)
        if (exact) expect(partitions[0]?.first).toBe(3)
        // What is refused takes no room of the log.
        await inlet.append(batchOf(0, 0, { refused: [refusedOf(2)] }))
        await held.end()
      })
    }
  })
}

/** A log that estimates how much it holds takes a moment to know of the room that was made. */
async function appendWhenRoom(inlet: PumpInlet, batch: Batch): Promise<void> {
  for (let tries = 1; ; tries++) {
    const refused = await inlet.append(batch).then(() => null, toSurgetankError)
    if (refused === null) return
    if (tries === 50) throw refused
    await pause(100)
  }
}

function toSurgetankError(error: unknown): SurgetankError {
  if (error instanceof SurgetankError) return error
  throw error
}
