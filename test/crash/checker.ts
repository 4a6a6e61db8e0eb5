/**
 * The checker: outside of the system, it knows what the fleets sent, in which order, and what was acknowledged, and asks
 * ClickHouse and the API what became of it. Every row of the table is looked at.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Fleet, Journal } from '../../bench/generator.ts'
import { readingsOf } from '../../bench/wire.ts'
import { compareDevice, type Findings, isClean, noFindings, type SentReading } from '../../simulate/compare.ts'
import { compareStates, type Newest, newestByMetric } from '../../simulate/states.ts'
import { openStored, type StoredRow } from '../../simulate/stored.ts'
import type { HabitFleet } from './habit-fleet.ts'
import type { Oracle } from './oracle.ts'
import { runCommand, type SystemOptions } from './system.ts'

interface SentMessage {
  readonly device: string
  readonly ts: number
  acked: boolean
}

export interface FleetJournal extends Journal {
  readonly messages: ReadonlyMap<number, SentMessage>
}

export function openJournal(): FleetJournal {
  const messages = new Map<number, SentMessage>()
  return {
    messages,
    sent: (counter, device, ts) => void messages.set(counter, { device, ts, acked: false }),
    acked: counter => {
      const message = messages.get(counter)
      if (message !== undefined) message.acked = true
    },
  }
}

export interface CheckReport extends Findings {
  /** Metrics whose state in the API is not what was sent last. */
  readonly statesWrong: number
  /** The same in the view `latest`. */
  readonly latestWrong: number
  readonly statesCompared: number
  /** Readings that the rollups count; both must be all that is stored. */
  readonly minutely: number
  readonly hourly: number
  /** Messages that were sent, again and again, and never acknowledged; answers to nothing that was sent. */
  readonly neverAcked: number
  readonly strayAcks: number
  /** Clients with clean=0 that came back and heard "no session". */
  readonly sessionsLost: number
  /** What `surgetank verify` says. */
  readonly booksBalance: boolean
}

const QUIET_MS_MAX = 60_000

/** Who sent, and what they know. */
export interface Senders {
  readonly fleet: Fleet
  readonly journal: FleetJournal
  readonly habits?: { readonly fleet: HabitFleet; readonly oracle: Oracle }
}

/** `checkAll` of one fleet. */
export function check(journal: FleetJournal, system: SystemOptions, fleet: Fleet): Promise<CheckReport> {
  return checkAll(system, { fleet, journal })
}

/** Waits until the writers have caught up, and compares. */
export async function checkAll(system: SystemOptions, { fleet, journal, habits }: Senders): Promise<CheckReport> {
  const counts = [fleet.counts(), ...(habits === undefined ? [] : [habits.fleet.counts()])]
  const { http, sql } = system.ports
  const stored = openStored(`http://127.0.0.1:${sql}`, `http://127.0.0.1:${http}`)
  try {
    await quiet(() => stored.lag())
    const sent = sentByDevice(journal)
    const devices = [...sent.keys(), ...(habits?.oracle.devices ?? [])].sort()
    const range = { first: devices[0] ?? '', last: devices.at(-1) ?? '' }
    const rows = new Map<string, StoredRow[]>()
    for await (const batch of stored.rows(range)) for (const row of batch) listOf(rows, row.device).push(row)
    const findings = noFindings()
    const newest = new Map<string, Newest>()
    for (const device of new Set([...devices, ...rows.keys()])) {
      const found = rows.get(device) ?? []
      const own = sent.get(device)
      if (own === undefined && habits !== undefined) {
        newest.set(device, habits.oracle.compare(findings, device, found))
        continue
      }
      compareDevice(findings, device, own ?? [], found)
      newest.set(device, newestByMetric(own ?? [], found))
    }
    const states = await compareStates({ stored, range, newest, examples: findings.examples })
    const verified = await runCommand(['verify', '--json'], system)
    if (verified.code !== 0)
      findings.examples.push(`verify exits ${verified.code}: ${verified.stdout}${verified.stderr}`)
    return {
      ...findings,
      statesWrong: states.wrong,
      latestWrong: states.latestWrong,
      statesCompared: states.compared,
      minutely: await stored.rollupCount('minutely', range),
      hourly: await stored.rollupCount('hourly', range),
      neverAcked: counts.reduce((sum, { inFlight }) => sum + inFlight, 0),
      strayAcks: counts.reduce((sum, each) => sum + each.strayAcks, 0),
      sessionsLost: habits?.fleet.counts().sessionsLost ?? 0,
      booksBalance: verified.code === 0,
    }
  } finally {
    await stored.close()
  }
}

/** True when all is stored once, unchanged and in its order, all was acknowledged, and everything that is derived agrees. */
export function holds(report: CheckReport): boolean {
  const { statesWrong, latestWrong, neverAcked, strayAcks, sessionsLost } = report
  const { stored, minutely, hourly, booksBalance, statesCompared } = report
  const faults = (isClean(report) ? 0 : 1) + statesWrong + latestWrong + neverAcked + strayAcks + sessionsLost
  return faults === 0 && minutely === stored && hourly === stored && booksBalance && statesCompared > 0
}

function sentByDevice(journal: FleetJournal): Map<string, SentReading[]> {
  const sent = new Map<string, SentReading[]>()
  for (const [counter, { device, ts, acked }] of journal.messages) {
    for (const [metric, value] of readingsOf(counter)) {
      listOf(sent, device).push({ metric, time: ts * 1_000, value: String(value), acked })
    }
  }
  return sent
}

async function quiet(lag: () => Promise<number | null>): Promise<void> {
  const deadline = performance.now() + QUIET_MS_MAX
  // Twice in a row: the gauge is read once a second.
  for (let still = 0; still < 3 && performance.now() < deadline; ) {
    still = (await lag()) === 0 ? still + 1 : 0
    await pause(500)
  }
}

function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  const list = lists.get(key) ?? []
  if (list.length === 0) lists.set(key, list)
  return list
}
