/**
 * Verification of a run, from outside the system: waits until ClickHouse holds what was acknowledged, then compares every
 * reading that was sent with what is stored [G1] [G2] [G3], the newest state with the newest stored reading [G4], and the
 * rollups with the readings.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { compareDevice, type Findings, isClean, noFindings } from './compare.ts'
import { type Expected, expectMessages, sentReadings, spansOf } from './expected.ts'
import type { Ledger } from './ledger.ts'
import { compareSeries, type SeriesReport } from './series-totals.ts'
import { compareStates, newestOf } from './states.ts'
import type { DeviceRange, Stored, StoredRow } from './stored.ts'
import type { Workload } from './workload.ts'

export interface VerifyOptions {
  readonly workload: Workload
  readonly ledger: Ledger
  readonly stored: Stored
  /** Rows of the devices before the run: of a replay there may be some. */
  readonly storedBefore: number
  readonly waitMsMax: number
  progress(sentence: string): void
}

export interface VerifyResult extends Findings {
  /** True when nothing was lost, duplicated, changed or made up, and state and rollups agree with the readings. */
  readonly ok: boolean
  readonly repetitions: number
  /** False when the time was up before ClickHouse held everything. */
  readonly settled: boolean
  readonly waited_ms: number
  /** Pairs of device and metric whose newest state was compared with the newest stored reading. */
  readonly states_compared: number
  readonly states_wrong: number
  /** Of synthetic runs: readings in the rollups, which must be as many as are stored. */
  readonly rollup_readings: { readonly minutely: number; readonly hourly: number } | null
  /** Of replays: each file's totals against the table and the rollups. */
  readonly series: readonly SeriesReport[] | null
  readonly hint: string | null
}

const POLL_MS = 250
/** How long the count must stand still: longer than a batch waits, so that a second insert of it would be seen. */
const STILL_MS = 2_000
const MESSAGES_PER_QUERY = 50_000

export async function verifyRun(options: VerifyOptions): Promise<VerifyResult> {
  const { workload, ledger, stored } = options
  const expected = expectMessages(workload, ledger)
  const startedAt = Date.now()
  const settled = await waitUntilStored(options, expected)
  const waited_ms = Date.now() - startedAt
  const findings = noFindings()
  const states = { compared: 0, wrong: 0 }
  for (const span of workload.repeats ? workload.devices.map((_, at) => ({ from: at, to: at + 1 })) : spansOf(expected, MESSAGES_PER_QUERY)) {
    options.progress(`comparing device ${span.to} of ${workload.devices.length}`)
    const devices = workload.devices.slice(span.from, span.to)
    const rows = await rowsByDevice(stored, { first: devices[0] ?? '', last: devices.at(-1) ?? '' })
    devices.forEach((device, offset) => {
      const sent = [...sentReadings(workload, ledger, expected.byDevice[span.from + offset] ?? [])]
      compareDevice(findings, device, sent, ownRows(options, sent, rows.get(device) ?? []))
    })
    const found = await compareStates(stored, newestOf(rows), findings.examples)
    states.compared += found.compared
    states.wrong += found.wrong
  }
  return {
    ok: false,
    ...findings,
    repetitions: expected.repetitions,
    settled,
    waited_ms,
    states_compared: states.compared,
    states_wrong: states.wrong,
    rollup_readings: null,
    series: null,
    hint: null,
  }
}
