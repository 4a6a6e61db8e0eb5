/**
 * Runs the load of one run: issues each message when its time has come, and keeps what was sent, what was acknowledged
 * and how long that took, counted from the moment for which the message was meant.
 */
import { createHistogram, performance, type RecordableHistogram } from 'node:perf_hooks'
import type { Devices, DevicesEvents } from './devices.ts'
import type { Ledger } from './ledger.ts'
import type { Phase, Schedule } from './scenario.ts'

export interface Latencies {
  readonly p50: number
  readonly p99: number
  readonly p99_9: number
  readonly max: number
}

export interface PhaseResult {
  readonly phase: string
  readonly sent: number
  readonly acked: number
  /** ms from the intended send to the acknowledgement; null when nothing was acknowledged. */
  readonly ack_ms: Latencies | null
}

export interface LoadResult {
  readonly sent: number
  readonly acked: number
  readonly unacked: number
  readonly seconds: number
  readonly reconnects: number
  readonly ack_ms: Latencies | null
  readonly phases: readonly PhaseResult[]
}

export interface LoadOptions {
  readonly phases: readonly Phase[]
  readonly schedule: Schedule
  /** At QoS 0 nothing is ever acknowledged. */
  readonly qos: 0 | 1 | 2
  readonly ledger: Ledger
  /** Ends the run early: nothing new is sent. */
  readonly signal: AbortSignal
  open(events: DevicesEvents): Promise<Devices>
  progress(now: LoadProgress): void
}

export interface LoadProgress {
  readonly sent: number
  readonly acked: number
  readonly total: number
  readonly inFlight: number
  readonly waiting: number
  readonly reconnects: number
  readonly elapsedMs: number
  readonly p99: number
}

const TICK_MS = 1
const PROGRESS_MS = 500
/** Messages issued and not yet sent; more stay in the schedule, their latency counts all the same. */
const WAITING_MAX = 50_000
const DRAIN_MS_MAX = 30_000
const LATENCY_US_MAX = 60 * 60 * 1_000_000

interface Tally {
  sent: number
  acked: number
  readonly latency: RecordableHistogram
}

export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { phases, schedule, ledger, signal, qos } = options
  const all = openTally()
  const tallies = phases.map(openTally)
  const intended = new Float64Array(schedule.total)
  let startedAt = 0
  let lastAckAt = 0
  let issued = 0
  const devices = await options.open({ sent, settled })

  startedAt = performance.now()
  lastAckAt = startedAt
  await issueAll()
  await settleAll()
  const counts = { sent: all.sent, acked: all.acked, unacked: all.sent - all.acked, reconnects: devices.reconnects }
  await devices.close()
  return {
    ...counts,
    seconds: Math.round(lastAckAt - startedAt) / 1_000,
    ack_ms: latenciesOf(all.latency),
    phases: phases.map((phase, index) => phaseResult(phase.name, tallies[index])),
  }

  function issueAll(): Promise<void> {
    return every(TICK_MS, () => {
      const elapsedMs = performance.now() - startedAt
      const due = schedule.dueBy(elapsedMs)
      while (issued < due && devices.waiting < WAITING_MAX) {
        // What is due at once starts its clock when its connection has room: it is no rate that could be missed.
        intended[issued] = schedule.atOnce ? Number.NaN : startedAt + schedule.dueAt(issued)
        devices.publish(issued++)
      }
      return issued === schedule.total || signal.aborted
    })
  }

  async function settleAll(): Promise<void> {
    let seen = all.acked
    let deadline = performance.now() + DRAIN_MS_MAX
    await every(TICK_MS, () => {
      if (signal.aborted) devices.cancel()
      if (all.acked > seen) deadline = performance.now() + DRAIN_MS_MAX
      seen = all.acked
      return devices.inFlight + devices.waiting === 0 || performance.now() > deadline
    })
  }

  /** Calls `step` until it returns true, with the progress line in between. */
  function every(ms: number, step: () => boolean): Promise<void> {
    let reportAt = 0
    return new Promise(resolve => {
      const timer = setInterval(() => {
        const done = step()
        if (done || performance.now() >= reportAt) {
          reportAt = performance.now() + PROGRESS_MS
          report()
        }
        if (!done) return
        clearInterval(timer)
        resolve()
      }, ms)
    })
  }

  function sent(n: number, time: number, connection: number): void {
    ledger.sent(n, time, connection)
    if (Number.isNaN(intended[n])) intended[n] = performance.now()
    all.sent++
    const tally = tallies[schedule.phaseOf(n)]
    if (tally !== undefined) tally.sent++
  }

  function settled(n: number, connection: number): void {
    lastAckAt = performance.now()
    if (qos === 0) return
    ledger.acked(n, connection)
    const us = Math.min(Math.max(1, Math.round((lastAckAt - (intended[n] ?? 0)) * 1_000)), LATENCY_US_MAX)
    for (const tally of [all, tallies[schedule.phaseOf(n)]]) {
      if (tally === undefined) continue
      tally.acked++
      tally.latency.record(us)
    }
  }

  function report(): void {
    options.progress({
      sent: all.sent,
      acked: all.acked,
      total: schedule.total,
      inFlight: devices.inFlight,
      waiting: devices.waiting,
      reconnects: devices.reconnects,
      elapsedMs: performance.now() - startedAt,
      p99: all.latency.percentile(99) / 1_000,
    })
  }
}

function openTally(): Tally {
  return { sent: 0, acked: 0, latency: createHistogram({ lowest: 1, highest: LATENCY_US_MAX, figures: 3 }) }
}

function phaseResult(phase: string, tally: Tally | undefined): PhaseResult {
  if (tally === undefined) return { phase, sent: 0, acked: 0, ack_ms: null }
  return { phase, sent: tally.sent, acked: tally.acked, ack_ms: latenciesOf(tally.latency) }
}

function latenciesOf(latency: RecordableHistogram): Latencies | null {
  if (latency.count === 0) return null
  const ms = (us: number) => Math.round(us / 10) / 100
  return {
    p50: ms(latency.percentile(50)),
    p99: ms(latency.percentile(99)),
    p99_9: ms(latency.percentile(99.9)),
    max: ms(latency.max),
  }
}
