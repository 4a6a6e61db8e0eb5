/**
 * The log's users as processes of their own, for the tests that kill, freeze or starve them. Started with a role, a
 * directory and, for some, a number; tells what it did over IPC, or on stdout where there is no channel.
 */
import { closeSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import { openLmdbOutlet } from '../../pump/lmdb-outlet.ts'
import { openLmdbView } from '../../pump/lmdb-view.ts'
import type { PumpInlet } from '../../pump/pump.ts'
import { batchOf, refusedOf } from '../contracts/pump-samples.ts'

const [role, dir = '', given = '0'] = process.argv.slice(2)
const number = Number(given)
const MB = 1024 * 1024
const BOUNDS = { dir, bytesMax: 256 * MB, keepHours: 24, quarantineBytesMax: 16 * MB, freeBytesMin: 0 }
const unhandled: string[] = []
process.on('unhandledRejection', error => unhandled.push(String(error)))

const roles: Record<string, () => Promise<void>> = {
  append,
  follow,
  reopen,
  setBack,
  hold,
  fillDisk,
  timeAppends,
  failDisk,
}
void roles[role ?? '']?.()

function tell(what: unknown): void {
  if (process.send === undefined) process.stdout.write(`${JSON.stringify(what)}\n`)
  else process.send(what)
}

/** Appends batches of 1 to 20 lines for ever, from line `number` on, and tells each that was made durable. */
async function append(): Promise<void> {
  const inlet = await openLmdbInlet(BOUNDS)
  for (let from = number; ; ) {
    const count = 1 + (from % 20)
    const refused = from % 3 === 0 ? [refusedOf(from)] : []
    const counts = { repeated: 2, quarantined: refused.length, letGo: { presence: 2 } }
    const received = count + refused.length + 4
    await inlet.append(batchOf(from, count, { refused, counts: { received, ...counts } }))
    await inlet.append(
      batchOf(from, 0, { counts: { received: 2, repeated: 1, quarantined: 0, letGo: { presence: 1 } } }),
    )
    from += count
    tell({ appendedTo: from })
  }
}

/** Commits all that comes, up to line `number`, and tells of a line that is missing or in the wrong place. */
async function follow(): Promise<void> {
  const outlet = await openLmdbOutlet({ dir })
  let next = 0
  let gaps = 0
  tell({ following: true })
  const consumption = outlet.consume(async claim => {
    let position = claim.position
    while (next < number) {
      await claim.wait(position, 5_000)
      for (const chunk of await claim.read(position, { chunksMax: 50, bytesMax: MB })) {
        if (chunk.position !== position) gaps++
        for (const line of chunk.lines.toString().split('\n')) {
          if (!line.endsWith(`,${next++}]]}`)) gaps++
        }
        position = chunk.position + 1
      }
      await claim.commit(position, null)
    }
    tell({ followedTo: next, gaps })
    process.exit(0)
  })
  await consumption.ended
}

/** Opens and closes a view for `number` ms. */
async function reopen(): Promise<void> {
  const until = performance.now() + number
  let opened = 0
  while (performance.now() < until) {
    const view = await openLmdbView({ dir })
    await view.books()
    await view.close()
    opened++
  }
  tell({ opened })
  process.exit(0)
}

/** Does to the environment `dir` what a badly timed opening does: sets its shared transaction number back by `number`. */
async function setBack(): Promise<void> {
  const TXN_AT = 8
  const fd = openSync(join(dir, 'lock.mdb'), 'r+')
  const txn = Buffer.alloc(8)
  readSync(fd, txn, 0, 8, TXN_AT)
  txn.writeBigUInt64LE(txn.readBigUInt64LE(0) - BigInt(number))
  writeSync(fd, txn, 0, 8, TXN_AT)
  closeSync(fd)
  tell({ setBack: Number(txn.readBigUInt64LE(0)) })
}

/** Takes a claim and keeps it. Commits when asked to. */
async function hold(): Promise<void> {
  const outlet = await openLmdbOutlet({ dir })
  outlet.consume(async claim => {
    claim.lost.addEventListener('abort', () => tell({ lost: true }))
    process.on('message', (position: number) => {
      claim.commit(position, null).then(
        () => tell({ committed: position }),
        error => tell({ refused: (error as { code: string }).code }),
      )
    })
    tell({ claimed: claim.position })
    await new Promise(() => {})
  })
}

/** On a disk of a few MB: fills it with a file of another, and tells what appends and the log do then and after. */
async function fillDisk(): Promise<void> {
  const inlet = await openLmdbInlet({ ...BOUNDS, dir: join(dir, 'log') })
  const view = await openLmdbView({ dir: join(dir, 'log') })
  const filler = join(dir, 'filler')
  for (let i = 0; i < 20; i++) await inlet.append(batchOf(i * 100, 100))
  const before = await view.books()
  fillUp(filler)
  const errors = []
  for (let i = 0; i < 3; i++)
    errors.push(await errorOf(inlet, batchOf(2_000, 20_000, { refused: [refusedOf(1, 200_000)] })))
  const during = await view.books()
  rmSync(filler)
  await inlet.append(batchOf(2_000, 10_000, { refused: [refusedOf(1)] }))
  await inlet.append(batchOf(12_000, 10_000))
  const after = await view.books()
  const lines = (await view.read(0, 20, { chunksMax: 10, bytesMax: 64 * MB })).map(({ messages }) => messages)
  // A rejection that nobody holds comes a turn later.
  await new Promise(resolve => setTimeout(resolve, 100))
  tell({ errors, before, during, after, lines, unhandled })
  process.exit(0)
}

function fillUp(path: string): void {
  const fd = openSync(path, 'w')
  for (let bytes = MB; bytes >= 1; bytes = bytes > 4096 ? bytes / 2 : bytes === 1 ? 0 : 1) {
    try {
      for (;;) writeSync(fd, Buffer.alloc(bytes))
    } catch {
      // No room for a piece of this size.
    }
  }
  closeSync(fd)
}

async function errorOf(inlet: PumpInlet, batch: ReturnType<typeof batchOf>): Promise<string> {
  try {
    await inlet.append(batch)
    return 'none'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

/** Tells how long `number` appends took, each. */
async function timeAppends(): Promise<void> {
  const inlet = await openLmdbInlet(BOUNDS)
  const took: number[] = []
  for (let i = 0; i < number; i++) {
    const since = performance.now()
    await inlet.append(batchOf(i, 1))
    took.push(performance.now() - since)
  }
  tell({ took })
  process.exit(0)
}

/** Appends while the file `fails` makes the disk fail, and again when it does not any more. */
async function failDisk(): Promise<void> {
  const inlet = await openLmdbInlet(BOUNDS)
  const view = await openLmdbView({ dir })
  await inlet.append(batchOf(0, 1))
  const failing = join(dir, 'fails')
  writeFileSync(failing, '')
  const error = await errorOf(inlet, batchOf(1, 1))
  const during = (await view.books()).partitions[0]?.end
  rmSync(failing)
  await inlet.append(batchOf(1, 1))
  const after = (await view.books()).partitions[0]?.end
  await new Promise(resolve => setTimeout(resolve, 100))
  tell({ error, during, after, unhandled })
  process.exit(0)
}
