/** One measurement: a load process against one broker, and the CPU of every process that works for it, read from outside. */
import { type CpuTime, cpuSince, readCpuOfAll } from './cpu.ts'
import type { FleetCounts } from './generator.ts'
import type { LoadMessage, LoadOrder, Measured } from './load-messages.ts'
import { endProcess, startScript } from './processes.ts'
import { rowsOf } from './stored.ts'
import { PARTS, type PartName, type PartPids, type Variant } from './variants.ts'

export interface Sample {
  readonly ackedPerSecond: number
  /** µs of the broker's process per acknowledged message, in the window of measurement; null where the kernel does not say. */
  readonly userUs: number | null
  readonly sysUs: number | null
  /** µs per message of all processes of the variant, as far as they ran in the window of measurement. */
  readonly allUs: number | null
  readonly generatorUs: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly acked: number
  /** From the first message sent until all were stored; null where nothing is stored, or something is wrong. */
  readonly endToEnd: EndToEnd | null
  /** Why this measurement does not count, as a sentence. */
  readonly failure: string | null
}

export interface EndToEnd {
  readonly storedPerSecond: number
  /** µs of each part per message. */
  readonly partUs: Partial<Record<PartName, number>>
}

/** A moment, and what each part had used by then. */
interface Reading {
  readonly at: number
  readonly cpu: Partial<Record<PartName, CpuTime>>
}

const STORED_MS_MAX = 90_000

export async function measure(variant: Variant, order: LoadOrder): Promise<Sample> {
  const pids = variant.parts()
  const rowsBefore = (await variant.table?.rows()) ?? 0
  const readings: Reading[] = []
  const { measured, counts, drained } = await runLoad(order, () => readings.push(read(pids)))
  const [start, begin, end] = readings as [Reading, Reading, Reading]
  const isStored = (await variant.table?.reaches(rowsBefore + rowsOf(counts.acked), STORED_MS_MAX)) ?? false
  const all = read(pids)
  const inWindow = usPerMessage(begin, end, measured.acked)
  const broker = cpuSince(begin.cpu.broker ?? null, end.cpu.broker ?? null)
  const range = { first: order.firstCounter, end: order.firstCounter + RANGE }
  const failure = drained
    ? ((await variant.table?.check(range, counts.acked)) ?? null)
    : `${counts.inFlight} messages were never acknowledged`
  return {
    ackedPerSecond: (measured.acked * 1_000) / measured.elapsedMs,
    userUs: broker === null ? null : broker.userUs / Math.max(1, measured.acked),
    sysUs: broker === null ? null : broker.sysUs / Math.max(1, measured.acked),
    allUs: broker === null ? null : Object.values(inWindow).reduce((sum, us) => sum + us, 0),
    generatorUs: measured.generatorUs / Math.max(1, measured.acked),
    p50Ms: measured.p50Ms,
    p99Ms: measured.p99Ms,
    acked: counts.acked,
    endToEnd: isStored
      ? {
          storedPerSecond: (counts.acked * 1_000) / (all.at - start.at),
          partUs: usPerMessage(start, all, counts.acked),
        }
      : null,
    failure: failure ?? strayFailure(counts),
  }
}

function read(pids: PartPids): Reading {
  const cpu: Partial<Record<PartName, CpuTime>> = {}
  for (const part of PARTS) {
    const own = pids[part]
    const used = own === undefined ? null : readCpuOfAll(own)
    if (used !== null) cpu[part] = used
  }
  return { at: performance.now(), cpu }
}

function usPerMessage(from: Reading, to: Reading, messages: number): Partial<Record<PartName, number>> {
  const used: Partial<Record<PartName, number>> = {}
  for (const part of PARTS) {
    const cpu = cpuSince(from.cpu[part] ?? null, to.cpu[part] ?? null)
    if (cpu !== null) used[part] = (cpu.userUs + cpu.sysUs) / Math.max(1, messages)
  }
  return used
}

/** Counters of one measurement; the next one begins where it ends. */
export const RANGE = 5_000_000

function strayFailure(counts: FleetCounts): string | null {
  if (counts.reconnects > 0) return `${counts.reconnects} connections were cut`
  return counts.strayAcks > 0 ? `${counts.strayAcks} acknowledgements of nothing that was sent` : null
}

export interface LoadResult {
  readonly measured: Measured
  readonly counts: FleetCounts
  readonly drained: boolean
}

/** Runs a load process to its end; calls `edge` when it starts to send, when the window of measurement begins and when it ends. */
export async function runLoad(order: LoadOrder, edge: () => void): Promise<LoadResult> {
  const child = startScript('./load-process.js')
  try {
    return await new Promise<LoadResult>((resolve, reject) => {
      let measured: Measured | null = null
      const limit = order.warmupMs + order.measureMs + 90_000
      const timer = setTimeout(() => reject(new Error('The load process did not end in time.')), limit)
      child.once('exit', code => reject(new Error(`The load process ended early (${code}).`)))
      child.on('message', (message: LoadMessage) => {
        if (message.kind !== 'done') edge()
        if (message.kind === 'end') measured = message
        if (message.kind !== 'done' || measured === null) return
        clearTimeout(timer)
        resolve({ measured, counts: message.counts, drained: message.drained })
      })
      child.send(order)
    })
  } finally {
    await endProcess(child)
  }
}
