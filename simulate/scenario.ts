/**
 * The scenarios: when each message is meant to be sent, and by which device. Pure, and the same for the same options.
 *
 * steady: the rate all the time, the devices in turn. spike: a tenth of the rate for a third of the time, the full rate
 * for a third, a tenth again. hot-key: the rate all the time, 80 % of the messages on the first device. toggle: the rate all
 * the time, each device in turn with several changes of its boolean in a row, so that they share a second.
 */

export const SCENARIOS = ['steady', 'spike', 'hot-key', 'toggle'] as const
export type Scenario = (typeof SCENARIOS)[number]

export interface Phase {
  readonly name: string
  readonly ms: number
  /** Messages per second. */
  readonly rate: number
}

const HOT_SHARE = 0.8
const QUIET_SHARE = 0.1
/** Odd, so that a device leaves now the one value and now the other. */
const CHANGES_IN_A_ROW = 5

export function phasesOf(scenario: Scenario, rate: number, seconds: number): Phase[] {
  const ms = seconds * 1_000
  if (scenario !== 'spike') return [{ name: scenario, ms, rate }]
  const quiet = rate * QUIET_SHARE
  return [
    { name: 'before', ms: ms / 3, rate: quiet },
    { name: 'spike', ms: ms / 3, rate },
    { name: 'after', ms: ms / 3, rate: quiet },
  ]
}

export interface Schedule {
  readonly total: number
  /** True when nothing but the room in flight decides when a message is sent. */
  readonly atOnce: boolean
  /** Messages whose time has come, `elapsedMs` after the start. */
  dueBy(elapsedMs: number): number
  /** When message n is meant to be sent, ms after the start. */
  dueAt(n: number): number
  /** The phase of message n. */
  phaseOf(n: number): number
}

/** Open-loop: the times depend on nothing that happens during the run. */
export function planSchedule(phases: readonly Phase[]): Schedule {
  const starts: { at: number; first: number; count: number; phase: Phase }[] = []
  let at = 0
  let first = 0
  for (const phase of phases) {
    const count = Math.round((phase.ms * phase.rate) / 1_000)
    starts.push({ at, first, count, phase })
    at += phase.ms
    first += count
  }
  const total = first
  return { total, atOnce: false, dueBy, dueAt, phaseOf }

  function dueBy(elapsedMs: number): number {
    let due = 0
    for (const start of starts) {
      if (elapsedMs < start.at) break
      due = start.first + Math.min(start.count, Math.floor(((elapsedMs - start.at) * start.phase.rate) / 1_000) + 1)
    }
    return due
  }

  function dueAt(n: number): number {
    const start = starts[phaseOf(n)]
    return start === undefined ? 0 : start.at + ((n - start.first) * 1_000) / start.phase.rate
  }

  function phaseOf(n: number): number {
    const after = starts.findIndex(start => n < start.first + start.count)
    return after === -1 ? starts.length - 1 : after
  }
}

/** A schedule of one phase in which everything is due at once: as fast as the messages in flight allow. */
export function atOnce(total: number): Schedule {
  return { total, atOnce: true, dueBy: () => total, dueAt: () => 0, phaseOf: () => 0 }
}

/** The device of message n. */
export function deviceIndexOf(scenario: Scenario, n: number, devices: number): number {
  if (scenario === 'toggle') return Math.floor(n / CHANGES_IN_A_ROW) % devices
  if (scenario !== 'hot-key' || devices === 1) return n % devices
  const hotBefore = Math.floor(n * HOT_SHARE)
  if (Math.floor((n + 1) * HOT_SHARE) > hotBefore) return 0
  return 1 + ((n - hotBefore) % (devices - 1))
}

/** The boolean of message n of a toggle: the other one than in the message of the same device before. */
export function isOpen(n: number, devices: number): boolean {
  const turn = Math.floor(n / (CHANGES_IN_A_ROW * devices))
  return (turn * CHANGES_IN_A_ROW + (n % CHANGES_IN_A_ROW)) % 2 === 0
}
