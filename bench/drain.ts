/**
 * How fast a backlog goes into ClickHouse: the writer is stopped, load makes the backlog, the writer goes on, and the
 * rows are counted by SQL until all are there.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { orderOf, SHAPES } from './cells.ts'
import { findByScript } from './cpu.ts'
import { RANGE, runLoad } from './measure.ts'
import type { SurgetankVariant } from './variants.ts'
import { READINGS_PER_MESSAGE } from './wire.ts'

export interface DrainSample {
  readonly rows: number
  readonly seconds: number
  readonly rowsPerSecond: number
}

const WRITER_SCRIPT = 'writer-process'
const BACKLOG_MS = 6_000
const DRAIN_MS_MAX = 120_000
const POLL_MS = 100

/** A sentence when it could not be measured. */
export async function measureDrain(variant: SurgetankVariant, firstCounter: number): Promise<DrainSample | string> {
  const writer = findByScript(variant.pids(), WRITER_SCRIPT)
  const [shape] = SHAPES
  if (writer === null || shape === undefined) return 'the writer process was not found'
  const timing = { rate: null, warmupMs: 0, measureMs: BACKLOG_MS }
  const order = orderOf({ shape, key: 'spread' }, variant.port, firstCounter, timing)
  const range = { first: firstCounter, end: firstCounter + RANGE }
  process.kill(writer, 'SIGSTOP')
  try {
    const { counts } = await runLoad(order, () => {})
    const backlog = counts.acked * READINGS_PER_MESSAGE - (await variant.count(range))
    const startedAt = performance.now()
    process.kill(writer, 'SIGCONT')
    const seconds = await secondsUntilStored(variant, range, counts.acked, startedAt)
    if (seconds === null) return `the backlog of ${backlog} rows was not stored within ${DRAIN_MS_MAX / 1_000} s`
    const wrong = await variant.check(range, counts.acked)
    return wrong ?? { rows: backlog, seconds, rowsPerSecond: backlog / seconds }
  } finally {
    process.kill(writer, 'SIGCONT')
  }
}

async function secondsUntilStored(
  variant: SurgetankVariant,
  range: { first: number; end: number },
  acked: number,
  startedAt: number,
): Promise<number | null> {
  for (;;) {
    const rows = await variant.count(range)
    const seconds = (performance.now() - startedAt) / 1_000
    if (rows >= acked * READINGS_PER_MESSAGE) return seconds
    if (seconds * 1_000 > DRAIN_MS_MAX) return null
    await sleep(POLL_MS)
  }
}
