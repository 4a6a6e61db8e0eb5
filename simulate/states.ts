/**
 * Compares the newest state that the API shows with the newest of the stored readings [G4].
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isNewer, type Moment, type Value } from '../model/reading.ts'
import type { StateDocument, Stored, StoredRow } from './stored.ts'

const REQUESTS_MAX = 16
/** The state is merged beside the acknowledgement and a moment later: a wrong one is asked again before it counts. */
const TRIES = 10
const RETRY_MS = 200
const EXAMPLES_MAX = 10

export async function compareStates(
  stored: Stored,
  rows: ReadonlyMap<string, readonly StoredRow[]>,
  examples: string[],
): Promise<{ compared: number; wrong: number }> {
  const devices = [...rows.keys()]
  let compared = 0
  let wrong = 0
  await Promise.all(Array.from({ length: REQUESTS_MAX }, work))
  return { compared, wrong }

  async function work(): Promise<void> {
    for (let device = devices.pop(); device !== undefined; device = devices.pop()) {
      const newest = newestByMetric(rows.get(device) ?? [])
      const differences = await settledDifferences(stored, device, newest)
      compared += newest.size
      wrong += differences.length
      examples.push(...differences.slice(0, Math.max(0, EXAMPLES_MAX - examples.length)))
    }
  }
}

async function settledDifferences(stored: Stored, device: string, newest: Map<string, Moment>): Promise<string[]> {
  for (let tries = 1; ; tries++) {
    const differences = stateDifferences(device, newest, await stored.state(device))
    if (differences.length === 0 || tries === TRIES) return differences
    await sleep(RETRY_MS)
  }
}

export function newestByMetric(rows: readonly StoredRow[]): Map<string, Moment> {
  const newest = new Map<string, Moment>()
  for (const { metric, moment } of rows) {
    const known = newest.get(metric)
    if (known === undefined || isNewer(moment, known)) newest.set(metric, moment)
  }
  return newest
}

/** One sentence for each metric whose state is not the newest stored reading. */
export function stateDifferences(device: string, newest: Map<string, Moment>, state: StateDocument | null): string[] {
  const differences: string[] = []
  for (const [metric, moment] of newest) {
    const shown = state?.metrics[metric]
    if (shown !== undefined && Date.parse(shown.ts) === moment.ts && sameValue(shown.value, moment.value)) continue
    const is = shown === undefined ? 'nothing' : `${shown.value} at ${shown.ts}`
    differences.push(
      `${device} ${metric}: the state is ${is}, not ${moment.value} at ${new Date(moment.ts).toISOString()}`,
    )
  }
  return differences
}

/** JSON has no integers beyond 2^53 for this reader: these are compared as the nearest double, or as their digits. */
function sameValue(shown: unknown, stored: Value): boolean {
  if (typeof stored === 'bigint') return shown === String(stored) || shown === Number(stored)
  return shown === stored
}
