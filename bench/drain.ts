/**
 * How fast a backlog goes into ClickHouse: the writers are stopped, load makes the backlog, the writers go on, and the rows
 * are counted until all are there. The pace is that from the first rows stored on: before them, writers that were stopped
 * for so long find their way back to the log, which is told by itself.
 */
import { orderOf, SHAPES } from './cells.ts'
import type { LoadOrder } from './load-messages.ts'
import type { MachinesVariant } from './machines.ts'
import { RANGE, runLoad } from './measure.ts'
import { rowsOf } from './stored.ts'
import type { StoringVariant } from './variants.ts'

export interface DrainSample {
  /** Of the whole backlog. */
  readonly rows: number
  /** From the moment that the writers go on until the first rows are stored. */
  readonly secondsToFirst: number
  readonly rowsPerSecond: number
  /** The share of the rows that each writer stored, where there are several. */
  readonly shares: readonly number[]
}

/** Shorter than the silence after which Kafka gives a writer's partitions away. */
const BACKLOG_MS = 9_000
const DRAIN_MS_MAX = 120_000
const WARM_MS = 1_000
const WARM_LOADS_MAX = 10

/** A sentence when it could not be measured. */
export async function measureDrain(variant: StoringVariant, firstCounter: number): Promise<DrainSample | string> {
  const { writer: writers = [] } = variant.parts()
  const rowsBefore = await variant.table.rows()
  signal(writers, 'SIGSTOP')
  try {
    const { counts } = await runLoad(load(variant, firstCounter, BACKLOG_MS), () => {})
    const wanted = rowsBefore + rowsOf(counts.acked)
    const stored = await variant.table.rows()
    const backlog = wanted - stored
    const startedAt = performance.now()
    signal(writers, 'SIGCONT')
    const late = `the backlog of ${backlog} rows was not stored within ${DRAIN_MS_MAX / 1_000} s`
    if (!(await variant.table.reaches(stored + 1, DRAIN_MS_MAX))) return late
    const [firstRows, firstAt] = [await variant.table.rows(), performance.now()]
    if (!(await variant.table.reaches(wanted, DRAIN_MS_MAX))) return late
    const rowsPerSecond = ((wanted - firstRows) * 1_000) / (performance.now() - firstAt)
    const wrong = await variant.table.check({ first: firstCounter, end: firstCounter + RANGE }, counts.acked)
    return wrong ?? { rows: backlog, secondsToFirst: (firstAt - startedAt) / 1_000, rowsPerSecond, shares: [] }
  } finally {
    signal(writers, 'SIGCONT')
  }
}

/** The same with a second writer. */
export async function measureDrainByTwo(
  variant: MachinesVariant,
  nextCounter: () => number,
): Promise<DrainSample | string> {
  await variant.addWriter()
  if (!(await untilAllWrite(variant, nextCounter))) return 'the second writer was given no partitions'
  const before = await variant.storedByWriter()
  const sample = await measureDrain(variant, nextCounter())
  if (typeof sample === 'string') return sample
  const stored = (await variant.storedByWriter()).map((readings, writer) => readings - (before[writer] ?? 0))
  const sum = stored.reduce((a, b) => a + b, 0)
  return { ...sample, shares: stored.map(readings => readings / sum) }
}

/** The group hands partitions out when it sees the new writer: some load, until each has stored something. */
async function untilAllWrite(variant: MachinesVariant, nextCounter: () => number): Promise<boolean> {
  for (let loads = 0; loads < WARM_LOADS_MAX; loads++) {
    const rows = await variant.table.rows()
    const { counts } = await runLoad(load(variant, nextCounter(), WARM_MS), () => {})
    if (!(await variant.table.reaches(rows + rowsOf(counts.acked), DRAIN_MS_MAX))) return false
    if ((await variant.storedByWriter()).every(readings => readings > 0)) return true
  }
  return false
}

function load(variant: StoringVariant, firstCounter: number, measureMs: number): LoadOrder {
  const [shape] = SHAPES
  return orderOf({ shape, key: 'spread' }, variant.port, firstCounter, { rate: null, warmupMs: 0, measureMs })
}

function signal(pids: readonly number[], name: NodeJS.Signals): void {
  for (const pid of pids) process.kill(pid, name)
}
