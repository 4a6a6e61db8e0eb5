/**
 * `surgetank simulate`: publishes the telemetry of a fleet over MQTT, made up or replayed, and can prove afterwards that
 * every acknowledged reading is stored once and unchanged. The door of this folder.
 *
 * It stands outside the system: it speaks MQTT, HTTP and SQL like any device, dashboard and analyst, and shares no state
 * with what it tests.
 */
import type { Command } from 'commander'
import type { DatabaseAccess } from '../database/database.ts'
import { shownJson, shownText } from '../shown-text.ts'
import { openDevices } from './devices.ts'
import { type Ledger, openLedger } from './ledger.ts'
import { type LoadResult, runLoad } from './load.ts'
import { commandWithOptions, conflictOf, DEFAULT_RATE, type SimulateOptions } from './options.ts'
import { loadSummary, openProgressLine, type ProgressLine, progressText, verifySummary } from './report.ts'
import { atOnce, type Phase, phasesOf, planSchedule, type Schedule } from './scenario.ts'
import { readSeries } from './series.ts'
import { openStored, type Stored } from './stored.ts'
import { countStored, type VerifyResult, verifyRun } from './verify.ts'
import { replayWorkload, syntheticWorkload, type Workload } from './workload.ts'

export interface SimulateResult extends LoadResult {
  /** Names the run: the devices of a synthetic one are `<run>-<n>`. */
  readonly run: string
  readonly scenario: string
  readonly seed: number
  readonly qos: 0 | 1 | 2
  readonly devices: number
  /** Null for as fast as it goes. */
  readonly rate: number | null
  readonly verify: VerifyResult | null
}

const SENTENCE_CHARS_MAX = 400

/**
 * The command for the command line: prints the result and sets the exit code. `serverOf` tells the ClickHouse server that is
 * configured, or null.
 */
export function simulateCommand(serverOf: () => DatabaseAccess | null): Command {
  const command = commandWithOptions()
  command.action(async (given: SimulateOptions) => {
    const server = given.verify && command.getOptionValueSource('sql') === 'default' ? serverOf() : null
    const options = server === null ? given : { ...given, sql: server.url, server }
    const conflict = conflictOf(options)
    if (conflict !== null) command.error(`error: ${conflict}`)
    const interrupted = new AbortController()
    process.once('SIGINT', () => interrupted.abort())
    const result = await runSimulate(options, interrupted.signal).catch((error: unknown) =>
      command.error(`error: ${sentenceOf(error)}`),
    )
    process.stdout.write(`${shownJson(JSON.stringify(result, null, options.json ? undefined : 2))}\n`)
    const isUnsettled = result.verify?.settled === false
    const isUnacked = result.qos > 0 && !interrupted.signal.aborted && (result.unacked > 0 || result.acked === 0)
    if (result.verify?.ok === false || isUnsettled || isUnacked) process.exitCode = 1
  })
  return command
}

/**
 * One run: load, and verification when it was asked for. Ends early, but complete, when `signal` fires. Rejects with a
 * sentence when a file cannot be replayed, or the broker, the API or ClickHouse cannot be reached.
 */
export async function runSimulate(options: SimulateOptions, signal: AbortSignal): Promise<SimulateResult> {
  const seed = options.seed ?? Date.now() % 1_000_000_000
  const run = `sim-${seed}-${Date.now().toString(36)}`
  const { workload, phases, schedule } = await planRun(options, seed, run)
  const ledger = openLedger(workload.total)
  const line = openProgressLine(process.stderr)
  const stored = options.verify ? openStored(options.server ?? options.sql, options.http) : null
  try {
    const storedBefore = stored === null ? 0 : await reachable(options.sql, countStored(workload, stored))
    const repeatedBefore = (await stored?.repeated()) ?? null
    const load = await runLoad({
      phases,
      schedule,
      qos: options.qos,
      ledger,
      signal,
      open: events => openDevices({ ...options, inFlightMax: options.inflight, workload }, events),
      progress: now => line.show(progressText(nameOf(options), now)),
    })
    line.end()
    if (!options.json) say(loadSummary(load))
    const verify =
      stored === null
        ? null
        : await verifyStored({ options, workload, ledger, stored, storedBefore, repeatedBefore, line })
    return {
      run,
      scenario: nameOf(options),
      seed,
      qos: options.qos,
      devices: workload.devices.length,
      rate: schedule.atOnce ? null : (options.rate ?? DEFAULT_RATE),
      ...load,
      verify,
    }
  } finally {
    line.end()
    await stored?.close()
  }
}

interface Run {
  readonly workload: Workload
  readonly phases: readonly Phase[]
  readonly schedule: Schedule
}

async function planRun(options: SimulateOptions, seed: number, run: string): Promise<Run> {
  const { scenario, seconds, devices, replay, rate } = options
  if (replay === undefined) {
    const phases = phasesOf(scenario, rate ?? DEFAULT_RATE, seconds)
    const schedule = planSchedule(phases)
    const workload = syntheticWorkload({ scenario, devices, total: schedule.total, seed, run })
    return { workload, phases, schedule }
  }
  const workload = replayWorkload(await Promise.all(replay.map(readSeries)))
  const ms = rate === undefined ? 0 : (workload.total * 1_000) / rate
  const phases = [{ name: 'replay', ms, rate: rate ?? 0 }]
  return { workload, phases, schedule: rate === undefined ? atOnce(workload.total) : planSchedule(phases) }
}

interface Verification {
  readonly options: SimulateOptions
  readonly workload: Workload
  readonly ledger: Ledger
  readonly stored: Stored
  readonly storedBefore: number
  readonly repeatedBefore: number | null
  readonly line: ProgressLine
}

async function verifyStored({ options, line, ...run }: Verification): Promise<VerifyResult> {
  const verify = await verifyRun({
    ...run,
    waitMsMax: options.verifyTimeout * 1_000,
    progress: sentence => line.show(`verify: ${sentence}`),
  })
  line.end()
  if (!options.json) say(verifySummary(verify))
  return verify
}

async function reachable<T>(url: string, answer: Promise<T>): Promise<T> {
  return answer.catch((error: unknown) => {
    throw new Error(`ClickHouse does not answer at ${url} (${sentenceOf(error)}).`)
  })
}

/** One short line: what answers in the place of ClickHouse may answer with a page, and that is the error's message then. */
function sentenceOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return shownText(text.replace(/\s+/g, ' ').trim().slice(0, SENTENCE_CHARS_MAX))
}

function nameOf(options: SimulateOptions): string {
  return options.replay === undefined ? options.scenario : 'replay'
}

function say(lines: readonly string[]): void {
  process.stderr.write(`${lines.map(shownText).join('\n')}\n`)
}
