/**
 * Compares the newest state that the API and the view `latest` show with what was sent last: of each metric the reading of the
 * newest time, and of several the one that was sent last [G4]. What this run did not send, such as the other readings of a
 * device of a replay, is compared with the newest stored reading.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isNewer, type Moment, type Value } from '../model/reading.ts'
import { canonicalSent, numberText, type SentReading } from './compare.ts'
import type { DeviceRange, ShownReading, StateDocument, Stored, StoredRow } from './stored.ts'

const REQUESTS_MAX = 16
/** The state is merged beside the acknowledgement and a moment later: a wrong one is asked again before it counts. */
const TRIES = 10
const RETRY_MS = 200
const EXAMPLES_MAX = 10

export interface StatesReport {
  compared: number
  /** In the API. */
  wrong: number
  /** In the view `latest`. */
  latestWrong: number
}

/** What a metric may show: µs, and `canonicalStored` of the value. */
export interface Shown {
  readonly time: number
  readonly value: string
}

/** By metric; several where nobody was told that the last ones had arrived. */
export type Newest = ReadonlyMap<string, readonly Shown[]>

export interface CompareStatesOptions {
  readonly stored: Stored
  readonly range: DeviceRange
  /** By device. */
  readonly newest: ReadonlyMap<string, Newest>
  readonly examples: string[]
}

export async function compareStates({ stored, range, newest, examples }: CompareStatesOptions): Promise<StatesReport> {
  const devices = [...newest.keys()]
  const report: StatesReport = { compared: 0, wrong: 0, latestWrong: 0 }
  const latest = latestByDevice(await stored.latest(range))
  await Promise.all(Array.from({ length: REQUESTS_MAX }, work))
  return report

  async function work(): Promise<void> {
    for (let device = devices.pop(); device !== undefined; device = devices.pop()) {
      const expected = newest.get(device) ?? new Map()
      const inApi = await settledDifferences(stored, device, expected)
      const inView = differencesOf(`latest: ${device}`, expected, latest.get(device) ?? new Map())
      report.compared += expected.size
      report.wrong += inApi.length
      report.latestWrong += inView.length
      examples.push(...[...inApi, ...inView].slice(0, Math.max(0, EXAMPLES_MAX - examples.length)))
    }
  }
}

async function settledDifferences(stored: Stored, device: string, newest: Newest): Promise<string[]> {
  for (let tries = 1; ; tries++) {
    const differences = stateDifferences(device, newest, await stored.state(device))
    if (differences.length === 0 || tries === TRIES) return differences
    await sleep(RETRY_MS)
  }
}

/**
 * What each metric of a device may show. `sent` comes in the order of sending; `rows` are what is stored, and decide where
 * nothing that was sent is as new.
 */
export function newestByMetric(sent: Iterable<SentReading>, rows: readonly StoredRow[]): Newest {
  const newest = new Map<string, Shown[]>(lastSent(sent))
  for (const [metric, moment] of newestStored(rows)) {
    const known = newest.get(metric)
    if (known?.some(shown => shown.time >= moment.ts)) continue
    newest.set(metric, [{ time: moment.ts, value: canonicalValue(moment.value) }])
  }
  return newest
}

/** Of each metric the last that must be stored, of those of the newest time, and what may be stored and would replace it. */
function lastSent(sent: Iterable<SentReading>): Map<string, Shown[]> {
  const last = new Map<string, { must: number; shown: Shown[] }>()
  for (const { metric, time, value, acked } of sent) {
    const known = last.get(metric) ?? { must: Number.NEGATIVE_INFINITY, shown: [] }
    last.set(metric, known)
    if (time < known.must) continue
    if (acked) {
      known.must = time
      known.shown = known.shown.filter(shown => shown.time > time)
    }
    known.shown.push({ time, value: canonicalSent(value) })
  }
  return new Map(
    [...last].filter(([, { must }]) => Number.isFinite(must)).map(([metric, { shown }]) => [metric, shown]),
  )
}

function newestStored(rows: readonly StoredRow[]): Map<string, Moment> {
  const newest = new Map<string, Moment>()
  for (const { metric, moment } of rows) {
    const known = newest.get(metric)
    if (known === undefined || isNewer(moment, known)) newest.set(metric, moment)
  }
  return newest
}

function latestByDevice(rows: readonly StoredRow[]): Map<string, Map<string, Shown>> {
  const byDevice = new Map<string, Map<string, Shown>>()
  for (const row of rows) {
    const metrics = byDevice.get(row.device) ?? new Map<string, Shown>()
    byDevice.set(row.device, metrics.set(row.metric, row))
  }
  return byDevice
}

/** One sentence for each metric whose state in the API is not what it may be. */
export function stateDifferences(device: string, newest: Newest, state: StateDocument | null): string[] {
  const shown = new Map<string, Shown>()
  for (const [metric, allowed] of newest) {
    const reading = state?.metrics[metric]
    if (reading !== undefined) shown.set(metric, shownInApi(reading, allowed))
  }
  return differencesOf(device, newest, shown)
}

/** JSON has no integers beyond 2^53 for this reader: such a one is as good as the sent one when the nearest double is. */
function shownInApi({ value, ts }: ShownReading, allowed: readonly Shown[]): Shown {
  const time = parseMicros(ts)
  const exact = allowed.find(
    ({ value: sent }) =>
      sent.startsWith('integer ') && [sent.slice(8), Number(sent.slice(8))].includes(value as string),
  )
  return { time, value: exact?.value ?? canonicalValue(value as Value) }
}

function differencesOf(who: string, newest: Newest, shown: ReadonlyMap<string, Shown>): string[] {
  const differences: string[] = []
  for (const [metric, allowed] of newest) {
    const is = shown.get(metric)
    if (is !== undefined && allowed.some(({ time, value }) => time === is.time && value === is.value)) continue
    const wanted = allowed.map(textOf).join(' or ')
    differences.push(`${who} ${metric}: the state is ${is === undefined ? 'nothing' : textOf(is)}, not ${wanted}`)
  }
  return differences
}

function textOf({ time, value }: Shown): string {
  return `${value} at ${new Date(Math.floor(time / 1_000)).toISOString().slice(0, -1)}${String(time % 1_000).padStart(3, '0')}Z`
}

/** ISO text with three or six decimals as µs since 1970 UTC. */
export function parseMicros(text: string): number {
  const [, toMillis = text, micros = '000', zone = ''] = /^(.*\.\d{3})(\d{3})?(Z)$/.exec(text) ?? []
  return Date.parse(`${toMillis}${zone}`) * 1_000 + Number(micros)
}

/** A value as `canonicalStored` has it. */
function canonicalValue(value: Value): string {
  if (value === null) return 'null '
  if (typeof value === 'bigint') return `integer ${value}`
  if (typeof value === 'boolean') return `bool ${Number(value)}`
  return typeof value === 'string' ? `string ${value}` : numberText(value)
}
