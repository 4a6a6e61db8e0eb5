/**
 * What a person sees of a run, on stderr: a live line on a terminal, and a summary. The result itself is JSON on stdout.
 */
import type { Latencies, LoadProgress, LoadResult } from './load.ts'
import type { SeriesReport } from './series-totals.ts'
import type { VerifyResult } from './verify.ts'

export interface ProgressLine {
  show(line: string): void
  /** Removes the line, so that what is printed next stands alone. */
  end(): void
}

/** A line that is written over; silent where stderr is no terminal. */
export function openProgressLine(stream: NodeJS.WriteStream): ProgressLine {
  if (!stream.isTTY) return { show: () => {}, end: () => {} }
  return {
    show: line => void stream.write(`\r\x1b[2K${line.slice(0, (stream.columns ?? 80) - 1)}`),
    end: () => void stream.write('\r\x1b[2K'),
  }
}

export function progressText(name: string, now: LoadProgress): string {
  const rate = now.elapsedMs > 0 ? Math.round((now.acked * 1_000) / now.elapsedMs) : 0
  const counts = `${grouped(now.sent)} of ${grouped(now.total)} sent, ${grouped(now.acked)} acknowledged (${grouped(rate)}/s)`
  const reconnects = now.reconnects > 0 ? `, ${now.reconnects} reconnects` : ''
  return `${name}: ${counts}, p99 ${now.p99.toFixed(1)} ms, ${now.inFlight} in flight, ${now.waiting} waiting${reconnects}`
}

export function loadSummary(load: LoadResult): string[] {
  const lines = [
    `sent ${grouped(load.sent)}, acknowledged ${grouped(load.acked)} in ${load.seconds} s, ${load.reconnects} reconnects`,
  ]
  for (const phase of load.phases) {
    lines.push(`  ${phase.phase}: ${grouped(phase.acked)} acknowledged${latencyText(phase.ack_ms)}`)
  }
  return lines
}

function latencyText(latency: Latencies | null): string {
  return latency === null ? '' : `, p50 ${latency.p50} ms, p99 ${latency.p99} ms, p99.9 ${latency.p99_9} ms`
}

export function verifySummary(verify: VerifyResult): string[] {
  const { lost, duplicated, phantom, changed, misordered } = verify
  const lines = [
    `${grouped(verify.acked)} acknowledged readings, ${grouped(verify.stored)} stored: ` +
      `lost ${lost}, duplicated ${duplicated}, phantom ${phantom}, changed ${changed}, out of order ${misordered}`,
    `newest state: ${grouped(verify.states_compared)} compared, ${verify.states_wrong} wrong, ${verify.latest_wrong} wrong in latest`,
  ]
  if (!verify.settled) lines.push(`not everything was in ClickHouse after ${Math.round(verify.waited_ms / 1_000)} s`)
  if (verify.repetitions > 0) lines.push(`${verify.repetitions} messages may be an earlier one sent again`)
  if (verify.taken_for_repetitions !== null) {
    lines.push(`the broker took ${verify.taken_for_repetitions} messages for repetitions`)
  }
  if (verify.rollup_readings !== null) {
    const { minutely, hourly } = verify.rollup_readings
    lines.push(`rollups: minutely ${grouped(minutely)}, hourly ${grouped(hourly)} readings`)
  }
  lines.push(...(verify.series ?? []).flatMap(seriesSummary), ...verify.examples.map(example => `  ${example}`))
  if (verify.hint !== null) lines.push(verify.hint)
  lines.push(verify.ok ? 'verified' : 'NOT VERIFIED')
  return lines
}

function seriesSummary(report: SeriesReport): string[] {
  const rows = [
    ['file', report.file],
    ['table', report.table],
    ['minutely', report.minutely],
    ['hourly', report.hourly],
  ] as const
  return [
    `${report.device}: ${report.agrees ? 'agrees' : 'DIFFERS'}`,
    ...rows.map(([name, totals]) => {
      const last = 'last' in totals ? `  last ${totals.last}` : ''
      return `  ${name.padEnd(9)} count ${totals.count}  sum ${totals.sum}  min ${totals.min}  max ${totals.max}${last}`
    }),
  ]
}

function grouped(count: number): string {
  return count.toLocaleString('en-US')
}
