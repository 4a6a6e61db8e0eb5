/**
 * `npm run bench -- --against <dist folder>`: this build and another one in turn under the same loads, in pairs, so that a slow
 * moment of the machine meets both. Each build runs as the whole system on one machine, on a directory of its own; the other
 * one stands idle meanwhile.
 */
import { orderOf, SHAPES, type Timing } from './cells.ts'
import { measure, RANGE } from './measure.ts'
import { type ComparedLoad, type Pair, type PartUs, pairsTable } from './pairs.ts'
import { openSurgetank, type StoringVariant } from './variants.ts'

export interface AgainstOptions {
  /** `main.js` of the other build, which was made in a checkout of its own. */
  readonly main: string
  readonly pairs: number
  readonly seconds: number
  /** Messages per second of the open-loop load. */
  readonly rate: number
}

const WARMUP_MS = 1_000

/** Resolves with the table. Rejects when a build loses or doubles a message: its figures would mean nothing. */
export async function compareBuilds(options: AgainstOptions, progress: (line: string) => void): Promise<string[]> {
  const before = await openSurgetank(options.main)
  const after = await openSurgetank().catch(async (error: unknown) => {
    await before.close()
    throw error
  })
  const loads = loadsOf(options).map(load => ({ ...load, pairs: [] as Pair[] }))
  let counter = 0
  try {
    // The first pair does not count: code that has just started is not compiled yet.
    for (let pair = 0; pair <= options.pairs; pair++) {
      for (const load of loads) {
        const us = new Map<StoringVariant, PartUs>()
        // Whoever is second finds the caches and the disk as the first one left them: they take turns.
        for (const build of pair % 2 === 0 ? [before, after] : [after, before]) {
          us.set(build, await partUsOf(build, load, counter))
          counter += RANGE
        }
        if (pair > 0) load.pairs.push({ before: us.get(before) ?? {}, after: us.get(after) ?? {} })
        progress(`pair ${pair} of ${options.pairs}, ${load.name}`)
      }
    }
    return pairsTable(loads)
  } finally {
    await Promise.all([before.close(), after.close()])
  }
}

interface Load extends Pick<ComparedLoad, 'name'> {
  readonly shape: (typeof SHAPES)[number]
  readonly timing: Timing
}

function loadsOf({ seconds, rate }: AgainstOptions): Load[] {
  const [burst, trickle] = SHAPES
  const timing = { warmupMs: WARMUP_MS, measureMs: seconds * 1_000 }
  return [
    { name: 'burst', shape: burst, timing: { ...timing, rate: null } },
    { name: `trickle, ${rate} messages/s`, shape: trickle, timing: { ...timing, rate } },
  ]
}

async function partUsOf(build: StoringVariant, { shape, timing }: Load, firstCounter: number): Promise<PartUs> {
  const sample = await measure(build, orderOf({ shape, key: 'spread' }, build.port, firstCounter, timing))
  if (sample.failure !== null) throw new Error(`A build cannot be compared: ${sample.failure}.`)
  if (sample.endToEnd === null) throw new Error('A build did not store what it acknowledged in time.')
  return sample.endToEnd.partUs
}
