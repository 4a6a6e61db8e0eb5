/** `/metrics` of the whole: what this process counts and what the writer's process last told, in one text. */
import { AggregatorRegistry } from 'prom-client'
import { registry } from '../metrics.ts'

export interface AllMetrics {
  /** Prometheus' text format. */
  text(): Promise<string>
  /** The registry of the writer's process as JSON; its counters begin at 0 when it is started again. */
  takeWriters(metrics: unknown[]): void
}

/** Measured by the process that holds them, and meaningless added up: only those of this process are shown. */
const PER_PROCESS = /^telemetry_(process|nodejs)_/

export function openAllMetrics(): AllMetrics {
  let writers: unknown[] = []
  return { text, takeWriters: metrics => (writers = metrics) }

  async function text(): Promise<string> {
    const own = await registry.getMetricsAsJSON()
    const others = writers.filter(metric => !PER_PROCESS.test((metric as { name: string }).name))
    return AggregatorRegistry.aggregate([own, others as typeof own]).metrics()
  }
}
