/**
 * Waits of the tests. Each ends as soon as what it waits for is so, and its limit is only there to tell of what never comes:
 * generous, because a machine may be busy with other things. A part that is away for a moment, as its error says, is not so yet.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { hasFate } from '../errors.ts'

const WAIT_MS_MAX = 120_000
/** Asked at first as often as an event inside the process deserves, later as seldom as one behind a network. */
const [ASK_MS, ASK_MS_MAX] = [2, 50]

/** The ms until the condition held. */
export async function until(holds: () => boolean | Promise<boolean>, what = holds.toString()): Promise<number> {
  const since = performance.now()
  for (let askMs = ASK_MS; !(await answered(holds)); askMs = Math.min(askMs * 1.25, ASK_MS_MAX)) {
    if (performance.now() - since > WAIT_MS_MAX) throw new Error(`Not so within ${WAIT_MS_MAX} ms: ${what}`)
    await pause(askMs)
  }
  return performance.now() - since
}

async function answered(holds: () => boolean | Promise<boolean>): Promise<boolean> {
  try {
    return await holds()
  } catch (error) {
    if (hasFate(error, 'retry')) return false
    throw error
  }
}

/** The first answer that is not null. */
export async function given<T>(ask: () => Promise<T | null>): Promise<T> {
  let answer: T | null = null
  await until(async () => {
    answer = await ask()
    return answer !== null
  }, ask.toString())
  return answer as T
}

/** Watches for a while that something stays so; rejects at once when it does not. */
export async function stays(what: string, holds: () => boolean | Promise<boolean>, ms: number): Promise<void> {
  for (const since = performance.now(); performance.now() - since < ms; await pause(ASK_MS_MAX)) {
    if (!(await holds())) throw new Error(`It did not stay so: ${what}`)
  }
}

const TICK_MS = 50

/** What the work gives and the ms it took, by ticks: a stop of this whole process does not count. */
export async function timed<T>(work: () => Promise<T>): Promise<{ answer: T; ms: number }> {
  let ms = 0
  const timer = setInterval(() => {
    ms += TICK_MS
  }, TICK_MS)
  const answer = await work().finally(() => clearInterval(timer))
  return { answer, ms }
}
