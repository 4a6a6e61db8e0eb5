/**
 * Verification of a run, from outside the system: waits until ClickHouse holds what was acknowledged, then compares every
 * reading that was sent with what is stored [G1] [G2] [G3], the newest state with the newest stored reading [G4], and the
 * rollups with the readings.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { compareDevice, type Findings, isClean, noFindings, type SentReading } from './compare.ts'
import { type Expected, expectMessages, sentReadings, spansOf } from './expected.ts'
import type { Ledger } from './ledger.ts'
import { compareSeries, type SeriesReport } from './series-totals.ts'
import { compareStates } from './states.ts'
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
  const waitedMs = Date.now() - startedAt
  const { findings, states } = await compareAll(options, expected)
  const rollups = workload.ownDevices ? await countRollups(stored, wholeRange(workload)) : null
  const series = workload.ownDevices ? null : await compareSeries(workload, ledger, expected, stored)
  const rollupsAgree = rollups === null || (rollups.minutely === findings.stored && rollups.hourly === findings.stored)
  const seriesAgree = series === null || series.every(report => report.agrees)
  return {
    ok: isClean(findings) && states.wrong === 0 && rollupsAgree && seriesAgree,
    ...findings,
    repetitions: expected.repetitions,
    settled,
    waited_ms: waitedMs,
    states_compared: states.compared,
    states_wrong: states.wrong,
    rollup_readings: rollups,
    series,
    hint: hintOf(options, findings),
  }
}

/** Rows of the run's devices as they are now; of a replay's devices there may be some before it begins. */
export async function countStored(workload: Workload, stored: Stored): Promise<number> {
  if (workload.ownDevices) return stored.count(wholeRange(workload))
  let count = 0
  for (const device of workload.devices) count += await stored.count({ first: device, last: device })
  return count
}

/** True once the acknowledged readings are there and the count stands still; false when the time was up. */
async function waitUntilStored(options: VerifyOptions, expected: Expected): Promise<boolean> {
  const { workload, stored, storedBefore, waitMsMax } = options
  const until = Date.now() + waitMsMax
  let count = -1
  let stillSince = Date.now()
  for (;;) {
    const now = await countStored(workload, stored)
    if (now !== count) stillSince = Date.now()
    count = now
    const reached = count >= storedBefore + expected.ackedReadings
    options.progress(`${count - storedBefore} of ${expected.ackedReadings} readings in ClickHouse`)
    const still = Date.now() - stillSince >= STILL_MS
    // A system that is sent the same again may rightly store nothing; then only its own lag says that it is done.
    if (still && (reached || (await stored.lag()) === 0)) return true
    if (Date.now() > until) return false
    await sleep(POLL_MS)
  }
}

interface Compared {
  readonly findings: Findings
  readonly states: { compared: number; wrong: number }
}

async function compareAll(options: VerifyOptions, expected: Expected): Promise<Compared> {
  const { workload, ledger, stored } = options
  const findings = noFindings()
  const states = { compared: 0, wrong: 0 }
  for (const { from, to } of spansOf(workload, expected, MESSAGES_PER_QUERY)) {
    options.progress(`comparing device ${to} of ${workload.devices.length}`)
    const devices = workload.devices.slice(from, to)
    const rows = await rowsByDevice(stored, { first: devices[0] ?? '', last: devices.at(-1) ?? '' })
    devices.forEach((device, offset) => {
      const sent = [...sentReadings(workload, ledger, expected.byDevice[from + offset] ?? [])]
      const found = rows.get(device) ?? []
      compareDevice(findings, device, sent, workload.ownDevices ? found : rowsOfPlaces(found, sent))
    })
    const found = await compareStates(stored, rows, findings.examples)
    states.compared += found.compared
    states.wrong += found.wrong
  }
  return { findings, states }
}

async function rowsByDevice(stored: Stored, range: DeviceRange): Promise<Map<string, StoredRow[]>> {
  const byDevice = new Map<string, StoredRow[]>()
  for await (const batch of stored.rows(range)) {
    for (const row of batch) {
      const rows = byDevice.get(row.device)
      if (rows === undefined) byDevice.set(row.device, [row])
      else rows.push(row)
    }
  }
  return byDevice
}

/** The rows at the metrics and times that were replayed; what a device sent at other times is not this run's. */
function rowsOfPlaces(rows: readonly StoredRow[], sent: readonly SentReading[]): StoredRow[] {
  const places = new Set(sent.map(reading => `${reading.metric} ${reading.time}`))
  return rows.filter(row => places.has(`${row.metric} ${row.time}`))
}

async function countRollups(stored: Stored, range: DeviceRange): Promise<{ minutely: number; hourly: number }> {
  return { minutely: await stored.rollupCount('minutely', range), hourly: await stored.rollupCount('hourly', range) }
}

/** All devices of a run of its own: their ids are in order. */
function wholeRange(workload: Workload): DeviceRange {
  return { first: workload.devices[0] ?? '', last: workload.devices.at(-1) ?? '' }
}

function hintOf({ storedBefore }: VerifyOptions, findings: Findings): string | null {
  if (storedBefore === 0 || findings.duplicated === 0) return null
  return 'These devices had readings before this replay: replay into a fresh data directory to see this run alone.'
}
