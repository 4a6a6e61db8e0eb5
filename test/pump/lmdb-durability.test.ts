/** What an acknowledgement stands on: kills, a full disk, a disk that is slow or fails, and bits that flip. */
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { judgeMessages } from '../../manager/verify-messages.ts'
import { openEnv } from '../../pump/lmdb-env.ts'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import { openLmdbView } from '../../pump/lmdb-view.ts'
import type { PumpBooks } from '../../pump/pump.ts'
import { batchOf, holdClaim, lineOf } from '../contracts/pump-samples.ts'
import { until } from '../waits.ts'
import { buildShim, canMount, killed, onSmallDisk, startChild, told } from './children.ts'
import { type LmdbHarness, openLmdbHarness } from './lmdb-harness.ts'

const ALL = { chunksMax: 1_000, bytesMax: 256 << 20 }
const CAN_MOUNT = canMount()

let harness: LmdbHarness
let shim: string | null
beforeEach(async () => {
  harness = await openLmdbHarness()
  shim = buildShim(harness.dir)
})
afterEach(() => harness.destroy())

describe('the log on this disk', () => {
  it('holds every append that resolved, whole, in order and counted, through SIGKILL [G1][G7]', async () => {
    let acknowledged = 0
    for (let round = 0; round < 5; round++) {
      const child = startChild('append', harness.dir, acknowledged)
      child.on('message', ({ appendedTo }: { appendedTo: number }) => {
        acknowledged = appendedTo
      })
      await told(child, 'appendedTo')
      const goal = acknowledged + 100 + 37 * round
      await until(() => acknowledged >= goal)
      await killed(child)
      acknowledged = await expectLines(acknowledged)
    }
    expect(acknowledged).toBeGreaterThan(500)
  })

  /** All lines from 0 on without a gap, at least up to `acknowledged`, and the books agree. Returns where they end. */
  async function expectLines(acknowledged: number): Promise<number> {
    const view = await harness.openView()
    let lines = 0
    for (let from = 0; ; ) {
      const chunks = await view.read(0, from, ALL)
      for (const chunk of chunks) {
        const expected = Array.from({ length: chunk.messages }, (_, i) => lineOf(lines + i))
        expect(chunk.lines.toString()).toBe(expected.join('\n'))
        lines += chunk.messages
      }
      if (chunks.length === 0) break
      from += chunks.length
    }
    expect(lines).toBeGreaterThanOrEqual(acknowledged)
    const books = await view.books()
    expect(books.partitions[0]?.readingsAppended).toBe(lines)
    expect((await view.quarantine(10_000)).length).toBe(books.quarantined)
    expect(judgeMessages(books)).toMatchObject({ accepted: lines, difference: 0, quarantinedMissing: 0 })
    expect(books.messages.letGo.presence).toBe(books.messages.repeated)
    expect(books.messages.repeated).toBeGreaterThan(0)
    await view.close()
    return lines
  }

  it('keeps positions and plans through SIGKILL of the writer [G2]', async () => {
    const inlet = await harness.openInlet()
    for (let i = 0; i < 5; i++) await inlet.append(batchOf(i, 1))
    for (const position of [2, 3]) {
      const child = startChild('hold', harness.dir)
      await told(child, 'claimed')
      child.send(position)
      await told(child, 'committed')
      await killed(child)
    }
    const held = await holdClaim(await harness.openOutlet())
    expect(held.claim.position).toBe(3)
    await held.end()
  })

  it.skipIf(!CAN_MOUNT)(
    'refuses appends while its disk is full, with nothing of them in the log, and goes on after',
    async () => {
      const told = await onSmallDisk<FullDisk>('fillDisk', harness.dir, 16)
      expect(told.errors).toEqual(['log_unavailable', 'log_unavailable', 'log_unavailable'])
      expect(told.during).toEqual(told.before)
      expect(told.after.partitions[0]).toMatchObject({ end: 22, readingsAppended: 22_000 })
      expect(told.after.quarantined).toBe(1)
      expect(told.lines).toEqual([10_000, 10_000])
      expect(told.unhandled).toEqual([])
    },
  )

  it('leaves a part of its disk free for ClickHouse, which alone makes room', async () => {
    const bounds = { bytesMax: 1 << 28, keepHours: 24, quarantineBytesMax: 1 << 20 }
    const inlet = await openLmdbInlet({ dir: harness.dir, ...bounds, freeBytesMin: Number.MAX_SAFE_INTEGER })
    await expect(inlet.append(batchOf(0, 1))).rejects.toMatchObject({ code: 'log_unavailable', fate: 'retry' })
    await inlet.close()
    const view = await harness.openView()
    expect((await view.books()).partitions[0]).toMatchObject({ end: 0 })
    const roomy = await harness.openInlet()
    for (let i = 0; i < 50; i++) await roomy.append(batchOf(0, 1_000))
    const held = await holdClaim(await harness.openOutlet())
    await held.claim.commit(40, null)
    await roomy.close()
    // What is in ClickHouse already makes room inside the file, which never shrinks.
    const drained = await openLmdbInlet({ dir: harness.dir, ...bounds, freeBytesMin: Number.MAX_SAFE_INTEGER })
    for (let i = 0; i < 10; i++) await drained.append(batchOf(0, 1_000))
    const { partitions } = await view.books()
    expect(partitions[0]).toMatchObject({ end: 60 })
    expect(partitions[0]?.first).toBeLessThanOrEqual(40)
    await drained.close()
    await held.end()
  })

  it('resolves an append only after the disk has confirmed it [G1]', async context => {
    if (shim === null) return context.skip('No compiler for the shim here.')
    const env = { LD_PRELOAD: shim, SYNC_DELAY_MS: '150' }
    const child = startChild('timeAppends', harness.dir, 4, env)
    const { took } = await told<{ took: number[] }>(child, 'took')
    for (const ms of took) expect(ms).toBeGreaterThan(149)
  })

  for (const [failure, variable] of [
    ['did not confirm', 'SYNC_FAILS'],
    ['took without its last page', 'META_FAILS'],
  ] as const) {
    it(`has nothing of an append that the disk ${failure}, and takes it again`, async context => {
      if (shim === null) return context.skip('No compiler for the shim here.')
      const env = { LD_PRELOAD: shim, [variable]: join(harness.dir, 'fails') }
      const outcome = await told(startChild('failDisk', harness.dir, 0, env), 'error')
      expect(outcome).toEqual({ error: 'log_unavailable', during: 1, after: 2, unhandled: [] })
    })
  }

  it('undoes a transaction that fails half-way, and goes on', async () => {
    const env = openEnv({ path: join(harness.dir, 'any'), writable: true, mapBytes: 1 << 20 })
    const [a, b] = [Buffer.from('a'), Buffer.from('b')]
    await env.write(db => db.putSync(a, b))
    const failed = env.write(db => {
      db.putSync(a, a)
      db.putSync(b, b)
      throw new RangeError('half-way')
    })
    await expect(failed).rejects.toThrow('half-way')
    expect(await env.read(db => [db.getBinary(a)?.toString(), db.getBinary(b)])).toEqual(['b', undefined])
    await env.write(db => db.putSync(b, a))
    expect(await env.read(db => db.getBinary(b)?.toString())).toBe('a')
    await env.close()
  })

  it('never serves a chunk with a bit flipped, and serves those before it [G3]', async () => {
    const inlet = await harness.openInlet()
    for (let i = 0; i < 5; i++) await inlet.append(batchOf(i * 100, 100))
    await inlet.close()
    const file = join(harness.dir, 'log', 'data.mdb')
    const sound = readFileSync(file)
    for (const bit of [0, 3, 7]) {
      const bytes = Buffer.from(sound)
      const at = bytes.indexOf(lineOf(350)) + 60
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << bit), at)
      writeFileSync(file, bytes)
      const view = await harness.openView()
      expect(await view.read(0, 0, { chunksMax: 3, bytesMax: 1 << 20 })).toHaveLength(3)
      await expect(view.read(0, 3, ALL)).rejects.toMatchObject({ code: 'log_corrupt', fate: 'stop' })
      expect(await view.read(0, 4, ALL)).toHaveLength(1)
      await view.close()
    }
  })

  it('refuses a log that is older than what ClickHouse holds of it', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1))
    await inlet.close()
    const older = readFileSync(join(harness.dir, 'log', 'data.mdb'))
    const again = await harness.openInlet()
    await again.append(batchOf(1, 1))
    const outlet = await harness.openOutlet()
    const held = await holdClaim(outlet)
    await held.claim.commit(2, null)
    await held.end()
    await Promise.all([again.close(), outlet.close()])
    writeFileSync(join(harness.dir, 'log', 'data.mdb'), older)
    await expect(harness.openInlet()).rejects.toMatchObject({ code: 'log_cut', fate: 'stop' })
    const late = await harness.openOutlet()
    await expect(late.consume(async () => {}).ended).rejects.toMatchObject({ code: 'log_cut' })
  })

  it('begins at its beginning in a log made anew, under another name', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1))
    const outlet = await harness.openOutlet()
    const held = await holdClaim(outlet)
    await held.claim.commit(1, null)
    await held.end()
    await Promise.all([inlet.close(), outlet.close()])
    rmSync(join(harness.dir, 'log'), { recursive: true })
    await (await harness.openInlet()).append(batchOf(0, 1))
    const anew = await holdClaim(await harness.openOutlet())
    expect(anew.claim).toMatchObject({ position: 0, plan: null })
    expect(anew.claim.source).not.toBe(held.claim.source)
    expect(anew.claim.source).toMatch(/^[0-9a-f]{12}\/0$/)
    await anew.end()
  })

  it('does not make a directory to look into', async () => {
    const missing = join(harness.dir, 'missing')
    await mkdir(join(harness.dir, 'empty'))
    await expect(openLmdbView({ dir: missing })).rejects.toMatchObject({ code: 'log_missing' })
    const view = await openLmdbView({ dir: join(harness.dir, 'empty') })
    expect(await view.books()).toMatchObject({ partitions: [], bytes: 0 })
    expect(await view.read(0, 0, ALL)).toEqual([])
    expect(await view.quarantine(10)).toEqual([])
    expect(statSync(join(harness.dir, 'empty', 'log'), { throwIfNoEntry: false })).toBeUndefined()
    await view.close()
  })
})

interface FullDisk {
  readonly errors: string[]
  readonly before: PumpBooks
  readonly during: PumpBooks
  readonly after: PumpBooks
  readonly lines: number[]
  readonly unhandled: string[]
}

if (!CAN_MOUNT) console.log('Not run here: the full disk, for want of a mount of its own (unshare -Urm).')
