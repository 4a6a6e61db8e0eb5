/**
 * Metric names as numbers: a fleet shares a few names, each is kept once, and a slot holds its number. Never forgotten.
 *
 * Bound: `NAMES_MAX` names for the whole fleet, for names that devices make up (a serial number in each, say).
 */
import { ownText } from '../model/own-text.ts'

/** About 500 MB of names at their usual length; a Map could hold four times as many. */
export const NAMES_MAX = 4_000_000

export interface MetricNames {
  /** The name's number, or -1. */
  find(name: string): number
  /** Adds a name that is not there; -1 at the bound. */
  add(name: string): number
  name(number: number): string
  readonly full: boolean
}

export function openMetricNames(): MetricNames {
  const numbers = new Map<string, number>()
  const names: string[] = []

  return {
    find: name => numbers.get(name) ?? -1,
    add,
    name: number => names[number] as string,
    get full() {
      return names.length >= NAMES_MAX
    },
  }

  function add(name: string): number {
    if (names.length >= NAMES_MAX) return -1
    const own = ownText(name)
    numbers.set(own, names.length)
    return names.push(own) - 1
  }
}
