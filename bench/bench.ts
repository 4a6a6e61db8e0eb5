/**
 * `npm run bench`: bare Aedes, Surgetank on one machine and on several, and the direct baseline side by side in one run. The rounds alternate the
 * brokers, each round in another order, so that a slow moment of the machine meets all of them. The door of this folder.
 */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, InvalidArgumentError } from 'commander'
import { compareBuilds } from './against.ts'
import { type Cell, cellName, KEYS, orderOf, SHAPES, selectCells, type Timing } from './cells.ts'
import { measureDrain, measureDrainByTwo } from './drain.ts'
import { type MachinesVariant, openMachines } from './machines.ts'
import { measure, RANGE, type Sample } from './measure.ts'
import { type CellResult, cellTable, type Drained, drainText, type RunFacts, resultsPage } from './results.ts'
import {
  openBare,
  openDirect,
  openSurgetank,
  type StoringVariant,
  VARIANTS,
  type Variant,
  type VariantName,
} from './variants.ts'
import { PAYLOAD_BYTES } from './wire.ts'

interface BenchOptions {
  readonly rounds: number
  readonly seconds: number
  readonly rate?: number
  readonly only: readonly string[]
  /** `main.js` of another build. */
  readonly against?: string
}

/** Of a comparison of builds: so many pairs, and so long that the kernel's count of CPU time tells them apart. */
const AGAINST = { rounds: 10, seconds: 10, rate: 2_000 }

const SELECTABLE = [...VARIANTS, ...SHAPES.map(shape => shape.name), ...KEYS, 'drain']
const WARMUP_MS = 1_000
const RESULTS = fileURLToPath(new URL('../../bench/RESULTS.md', import.meta.url))

/** Of the next measurement: no two share a counter. */
let firstCounter = 0

await new Command('bench')
  .description(
    'bare Aedes, Surgetank on one machine and on several, and one insert per message, interleaved; a complete run writes bench/RESULTS.md',
  )
  .option('--rounds <n>', 'how often each measurement is repeated (default: 3; with --against: 10)', positive)
  .option(
    '--seconds <s>',
    'of each measurement, after one second of warm-up (default: 3; with --against: 10)',
    positive,
  )
  .option('--rate <messages/s>', 'open-loop at this rate instead of as fast as the windows allow', positive)
  .option('--only <names>', `a part of it, by commas: ${SELECTABLE.join(', ')}`, names, [])
  .option('--against <dist>', 'compare the CPU per message of this build with that of another one, in pairs', mainOf)
  .action(runChosen)
  .parseAsync()

async function runChosen(given: Partial<BenchOptions> & Pick<BenchOptions, 'only'>): Promise<void> {
  const { against: main } = given
  if (main === undefined) return run({ rounds: 3, seconds: 3, ...given })
  const { rounds: pairs, ...more } = { ...AGAINST, ...given }
  print(await compareBuilds({ ...more, main, pairs }, line => process.stderr.write(`${line}\n`)))
}

async function run(options: BenchOptions): Promise<void> {
  const [loadBefore = 0] = loadavg()
  const opened = await openVariants(options.only)
  try {
    // What is named are brokers and what to measure of them; the drain alone leaves the cells out.
    const measures = options.only.filter(name => !VARIANTS.some(variant => variant === name))
    const cells = measures.join() === 'drain' ? [] : await measureCells(options, selectCells(options.only), opened.all)
    for (const cell of cells) print(cellTable(cell))
    const drained = await measureDrains(options.only, opened)
    print(drainText(drained))
    if (options.only.length > 0) return
    await writeFile(RESULTS, resultsPage({ ...factsOf(options), loadBefore }, cells, drained))
    print(['bench/RESULTS.md is written.'])
  } finally {
    for (const variant of opened.all) await variant.close()
  }
}

interface Opened {
  /** In the order of the first round. */
  readonly all: readonly Variant[]
  readonly surgetank: StoringVariant | null
  readonly machines: MachinesVariant | null
}

/** Bare Aedes is always there: everything is told as a ratio to it. */
async function openVariants(only: readonly string[]): Promise<Opened> {
  const chosen = VARIANTS.filter(name => only.includes(name))
  const wanted = (name: VariantName) => chosen.length === 0 || chosen.includes(name)
  const bare = await openBare()
  const surgetank = wanted('surgetank') ? await openSurgetank() : null
  const machines = wanted('machines') ? await openMachinesHere() : null
  const direct = wanted('direct') ? await openDirect() : null
  return { all: [bare, surgetank, machines, direct].filter(variant => variant !== null), surgetank, machines }
}

async function openMachinesHere(): Promise<MachinesVariant | null> {
  const opened = await openMachines()
  if (typeof opened !== 'string') return opened
  process.stderr.write(`machines: not measured, because something is missing here\n${opened}\n`)
  return null
}

async function measureCells(
  options: BenchOptions,
  cells: readonly Cell[],
  variants: readonly Variant[],
): Promise<CellResult[]> {
  const timing: Timing = { rate: options.rate ?? null, warmupMs: WARMUP_MS, measureMs: options.seconds * 1_000 }
  const results = cells.map(cell => ({
    cell,
    samples: new Map<VariantName, Sample[]>(variants.map(variant => [variant.name, []])),
  }))
  for (let round = 0; round < options.rounds; round++) {
    for (const { cell, samples } of results) {
      for (const variant of rotated(variants, round)) {
        const sample = await measure(variant, orderOf(cell, variant.port, nextCounter(), timing))
        samples.get(variant.name)?.push(sample)
        const outcome = sample.failure === null ? figuresOf(sample) : `FAILED: ${sample.failure}`
        process.stderr.write(`round ${round + 1}, ${cellName(cell)}, ${variant.name}: ${outcome}\n`)
      }
    }
  }
  return results
}

function figuresOf(sample: Sample): string {
  return `${Math.round(sample.ackedPerSecond)} acked/s, generator ${sample.generatorUs.toFixed(1)} µs per message`
}

async function measureDrains(only: readonly string[], { surgetank, machines }: Opened): Promise<Drained[]> {
  if (only.length > 0 && !only.includes('drain')) return []
  const drained: Drained[] = []
  if (surgetank !== null) {
    drained.push({ by: 'Surgetank', sample: await measureDrain(surgetank, nextCounter()) })
  }
  if (machines !== null) {
    drained.push({ by: 'from Kafka, one writer', sample: await measureDrain(machines, nextCounter()) })
    drained.push({ by: 'from Kafka, two writers', sample: await measureDrainByTwo(machines, nextCounter) })
  }
  return drained
}

function nextCounter(): number {
  firstCounter += RANGE
  return firstCounter - RANGE
}

function rotated<T>(list: readonly T[], by: number): T[] {
  const shift = by % list.length
  return [...list.slice(shift), ...list.slice(0, shift)]
}

function factsOf(options: BenchOptions): Omit<RunFacts, 'loadBefore'> {
  return {
    date: new Date().toISOString().slice(0, 10),
    node: process.versions.node,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    rounds: options.rounds,
    seconds: options.seconds,
    rate: options.rate ?? null,
    payloadBytes: PAYLOAD_BYTES,
  }
}

function positive(text: string): number {
  const value = /^\d{1,9}(\.\d{1,3})?$/.test(text) ? Number(text) : 0
  if (value > 0) return value
  throw new InvalidArgumentError('It takes a number over 0.')
}

function mainOf(dist: string): string {
  const main = join(resolve(dist), 'main.js')
  if (existsSync(main)) return main
  throw new InvalidArgumentError(`There is no ${main}: build the other version first.`)
}

function names(text: string): string[] {
  const chosen = text.split(',').map(name => name.trim())
  const unknown = chosen.filter(name => !SELECTABLE.includes(name))
  if (unknown.length === 0) return chosen
  throw new InvalidArgumentError(`It takes ${SELECTABLE.join(', ')}; '${unknown.join()}' is none of them.`)
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`)
}
