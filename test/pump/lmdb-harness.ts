/** A log in a directory of its own; everything that was opened on it is closed with it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import { openLmdbOutlet } from '../../pump/lmdb-outlet.ts'
import { openLmdbView } from '../../pump/lmdb-view.ts'
import type { PumpHarness } from '../contracts/pump-contract.ts'
import { RECEIVED_AT } from '../contracts/pump-samples.ts'

export interface LmdbHarness extends PumpHarness {
  readonly dir: string
}

/** The clock stands where the samples were received: they must not be too old to be kept on a later day. */
const BOUNDS = { bytesMax: 256 << 20, keepHours: 24, quarantineBytesMax: 16 << 20, clock: () => RECEIVED_AT }

export async function openLmdbHarness(): Promise<LmdbHarness> {
  const dir = await mkdtemp(join(tmpdir(), 'surgetank-pump-'))
  const opened: { close(): Promise<void> }[] = []

  return {
    dir,
    openInlet: async bounds => held(await openLmdbInlet({ dir, ...BOUNDS, ...bounds })),
    openOutlet: async () => held(await openLmdbOutlet({ dir })),
    openView: async () => held(await openLmdbView({ dir })),
    destroy,
  }

  function held<T extends { close(): Promise<void> }>(part: T): T {
    opened.push(part)
    return part
  }

  async function destroy(): Promise<void> {
    for (const part of opened.reverse()) await part.close()
    await rm(dir, { recursive: true, force: true })
  }
}
