/** The generator as a process of its own: one order, then it ends. */
import { setTimeout as sleep } from 'node:timers/promises'
import { openFleet } from './generator.ts'
import type { LoadMessage, LoadOrder } from './load-messages.ts'

const DRAIN_MS_MAX = 30_000

process.once('message', (order: LoadOrder) => void run(order))
process.once('disconnect', () => process.exit(1))

async function run(order: LoadOrder): Promise<void> {
  const fleet = await openFleet(order)
  tell({ kind: 'start' })
  fleet.start()
  await sleep(order.warmupMs)
  fleet.latency.reset()
  tell({ kind: 'begin' })
  const before = { acked: fleet.counts().acked, at: performance.now(), cpu: process.cpuUsage() }
  await sleep(order.measureMs)
  const cpu = process.cpuUsage(before.cpu)
  tell({
    kind: 'end',
    acked: fleet.counts().acked - before.acked,
    elapsedMs: performance.now() - before.at,
    p50Ms: fleet.latency.percentile(50) / 1_000,
    p99Ms: fleet.latency.percentile(99) / 1_000,
    generatorUs: cpu.user + cpu.system,
  })
  const drained = await fleet.drain(DRAIN_MS_MAX)
  tell({ kind: 'done', counts: fleet.counts(), drained })
  fleet.close()
  process.disconnect()
}

function tell(message: LoadMessage): void {
  process.send?.(message)
}
