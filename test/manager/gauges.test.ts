/** When the log will be full, and what is told while nothing moves. */
import { pino } from 'pino'
import { expect, it, vi } from 'vitest'
import { openGauges, secondsUntilFull } from '../../manager/gauges.ts'
import { metrics } from '../../metrics.ts'
import type { PumpView } from '../../pump/pump.ts'
import { openMemorySpace } from '../../space/memory-space.ts'

const MIB = 1 << 20
const MAX = 64 * MIB

/** MiB not yet written, by second. */
it.each([
  ['nothing is known yet', [], Infinity],
  ['one sample tells no rate', [10], Infinity],
  ['the writers keep up', [10, 10, 10], Infinity],
  ['the backlog shrinks', [20, 15, 10], Infinity],
  ['the backlog grows by 1 MiB/s', [10, 11, 12, 13, 14], 50],
  ['the backlog grows by 10 MiB/s', [4, 14], 5],
  ['it is full', [63, 64], 0],
  ['it has been full for the whole window', [64, 64, 64], 0],
  ['it is full but for less than a group commit', [61, 61, 61], 0],
  ['it is full, and one sample is all there is', [64], 0],
  ['it was full and is being written', [64, 40], Infinity],
])('%s', (_when, mib, seconds) => {
  const samples = mib.map((unwritten, second) => ({ at: second * 1_000, bytesUnwritten: unwritten * MIB }))
  expect(secondsUntilFull(samples, MAX)).toBe(seconds)
})

it('what ingest holds is told each second, also while the books never answer', async () => {
  vi.useFakeTimers()
  const view: Pick<PumpView, 'lag'> = { lag: () => new Promise(() => {}) }
  const ingest = { held: 1, heldBytes: 100 }
  const space = openMemorySpace({ devicesMax: 1 })
  const close = openGauges({ view, space, ingest, log: pino({ level: 'silent' }) })
  try {
    vi.advanceTimersByTime(1_000)
    expect(await held()).toEqual([1, 100])
    Object.assign(ingest, { held: 7, heldBytes: 700 })
    vi.advanceTimersByTime(1_000)
    expect(await held()).toEqual([7, 700])
  } finally {
    close()
    vi.useRealTimers()
  }
})

it('a reason that nothing was let go for yet is told as 0, and not missing', async () => {
  const { values } = await metrics.letGo.get()
  expect(Object.fromEntries(values.map(({ labels, value }) => [labels.reason, value]))).toMatchObject({
    qos0_overload: 0,
    presence: 0,
  })
})

async function held(): Promise<(number | undefined)[]> {
  const gauges = [await metrics.heldMessages.get(), await metrics.heldBytes.get()]
  return gauges.map(({ values }) => values[0]?.value)
}
