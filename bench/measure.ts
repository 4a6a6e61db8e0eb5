/** One measurement: a load process against one broker, CPU read from outside at both ends of the window. */
import { type CpuTime, cpuSince, readCpu, readCpuOfAll } from './cpu.ts'
import type { FleetCounts } from './generator.ts'
import type { LoadMessage, LoadOrder, Measured } from './load-messages.ts'
import { endProcess, startScript } from './processes.ts'
import type { Variant } from './variants.ts'

export interface Sample {
  readonly ackedPerSecond: number
  /** µs of the broker's process per acknowledged message; null where the kernel does not say. */
  readonly userUs: number | null
  readonly sysUs: number | null
  /** µs per message of all processes of the variant: for Surgetank also the writer and ClickHouse, as far as they ran. */
  readonly allUs: number | null
  readonly generatorUs: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly acked: number
  /** Why this measurement does not count, as a sentence. */
  readonly failure: string | null
}

export async function measure(variant: Variant, order: LoadOrder): Promise<Sample> {
  const pids = variant.pids()
  const cpu: { broker: CpuTime | null; all: CpuTime }[] = []
  const sampleCpu = () => cpu.push({ broker: readCpu(variant.brokerPid), all: readCpuOfAll(pids) })
  const { measured, counts, drained } = await runLoad(order, sampleCpu)
  const broker = cpuSince(cpu[0]?.broker ?? null, cpu[1]?.broker ?? null)
  const all = cpuSince(cpu[0]?.all ?? null, cpu[1]?.all ?? null)
  const perMessage = (us: number | undefined) => (us === undefined ? null : us / Math.max(1, measured.acked))
  const failure = drained
    ? await variant.check({ first: order.firstCounter, end: order.firstCounter + RANGE }, counts.acked)
    : `${counts.inFlight} messages were never acknowledged`
  return {
    ackedPerSecond: (measured.acked * 1_000) / measured.elapsedMs,
    userUs: perMessage(broker?.userUs),
    sysUs: perMessage(broker?.sysUs),
    allUs: perMessage(all === null ? undefined : all.userUs + all.sysUs),
    generatorUs: measured.generatorUs / Math.max(1, measured.acked),
    p50Ms: measured.p50Ms,
    p99Ms: measured.p99Ms,
    acked: counts.acked,
    failure: failure ?? strayFailure(counts),
  }
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

/** Runs a load process to its end; calls `edge` when the window of measurement begins and when it ends. */
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
