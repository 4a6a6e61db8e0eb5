/**
 * Verification of a run, from outside the system: waits until ClickHouse holds what was acknowledged, then compares every
 * reading that was sent with what is stored [G1] [G2] [G3], the newest state with what was sent last [G4], and the rollups with
 * the readings. Messages count in the order of sending: what is equal on one connection was sent as often as it was sent.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { compareDevice, type Findings, isClean, noFindings, type SentReading } from './compare.ts'
import { type Expected, expectMessages, sentReadings, spansOf } from './expected.ts'
import type { Ledger } from './ledger.ts'
import { compareSeries, type SeriesReport } from './series-totals.ts'
import { compareStates, type Newest, newestByMetric, type StatesReport } from './states.ts'
import type { DeviceRange, Stored, StoredRow } from './stored.ts'
import type { Workload } from './workload.ts'

export interface VerifyOptions {
  readonly workload: Workload
  readonly ledger: Ledger
  readonly stored: Stored
  /** Rows of the devices before the run: of a replay there may be some. */
  readonly storedBefore: number
  /** Messages that the broker had taken for repetitions before the run; null when it does not say. */
  readonly repeatedBefore: number | null
  readonly waitMsMax: number
  progress(sentence: string): void
}

export interface VerifyResult extends Findings {
  /** True when nothing was lost, duplicated, changed or made up, and state and rollups agree with the readings. */
  readonly ok: boolean
  /** Messages equal to one of an earlier connection of their device, which may be taken for that one sent again. */
  readonly repetitions: number
  /** Messages that the broker took for repetitions during the run, of any of its devices; null when it does not say. */
  readonly taken_for_repetitions: number | null
  /** False when the time was up before ClickHouse held everything. */
  readonly settled: boolean
  readonly waited_ms: number
  /** Pairs of device and metric whose newest state was compared with what was sent last. */
  readonly states_compared: number
  readonly states_wrong: number
  /** The same in the view `latest`. */
  readonly latest_wrong: number
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
  const repeated = await stored.repeated()
  const rollupsAgree = rollups === null || (rollups.minutely === findings.stored && rollups.hourly === findings.stored)
  const seriesAgree = series === null || series.every(report => report.agrees)
  return {
    ok: isClean(findings) && states.wrong + states.latestWrong === 0 && rollupsAgree && seriesAgree,
    ...findings,
    repetitions: expected.repetitions,
    taken_for_repetitions: repeated === null ? null : repeated - (options.repeatedBefore ?? 0),
    settled,
    waited_ms: waitedMs,
    states_compared: states.compared,
    states_wrong: states.wrong,
    latest_wrong: states.latestWrong,
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
  readonly states: StatesReport
}

async function compareAll(options: VerifyOptions, expected: Expected): Promise<Compared> {
  const { workload, ledger, stored } = options
  const findings = noFindings()
  const states = { compared: 0, wrong: 0, latestWrong: 0 }
  for (const { from, to } of spansOf(workload, expected, MESSAGES_PER_QUERY)) {
    options.progress(`comparing device ${to} of ${workload.devices.length}`)
    const devices = workload.devices.slice(from, to)
    const range = { first: devices[0] ?? '', last: devices.at(-1) ?? '' }
    const rows = await rowsByDevice(stored, range)
    const newest = new Map<string, Newest>()
    devices.forEach((device, offset) => {
      const sent = [...sentReadings(workload, ledger, expected.byDevice[from + offset] ?? [])]
      const found = rows.get(device) ?? []
      compareDevice(findings, device, sent, workload.ownDevices ? found : rowsOfPlaces(found, sent))
      newest.set(device, newestByMetric(sent, found))
    })
    const found = await compareStates({ stored, range, newest, examples: findings.examples })
    states.compared += found.compared
    states.wrong += found.wrong
    states.latestWrong += found.latestWrong
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
