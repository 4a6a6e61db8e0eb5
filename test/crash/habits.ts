/**
 * Habits of devices: how their messages look, what time they write, and what they do when a connection was lost. Each is one
 * that real fleets have, and each has lost readings, or shown a wrong state, in some system. Pure.
 */

/** What a message says, in the order of its payload. */
export interface Element {
  /** µs since 1970 UTC; null when it has none, and that of receipt counts. */
  readonly time: number | null
  /** The metrics and the JSON texts of their values: numbers and booleans. */
  readonly values: readonly (readonly [metric: string, value: string])[]
}

export interface Written {
  readonly payload: string
  readonly elements: readonly Element[]
}

export interface Habit {
  /** Messages that one look at the clock brings, written in one go. */
  readonly atOnce: number
  /** Message n of a device, from 0 on, at `now`: whole µs since 1970 UTC, later than that of every message before. */
  write(n: number, now: number): Written
}

/** Names the elements of messages without a time: their receipts are not known to who sent them. */
export const NUMBER = 'n'

/** Whole seconds, and a boolean that changes many times in each: only the order of sending tells what it is. */
export const toggleInSeconds: Habit = {
  atOnce: 2,
  write(n, now) {
    const door = String(n % 2 === 0)
    const ts = secondsOf(now)
    return { payload: `{"ts":${ts},"values":{"door":${door}}}`, elements: [at(ts * 1e6, ['door', door])] }
  },
}

/** Whole seconds and the same value again and again: only `seq` tells that they are several. */
export const numbered: Habit = {
  atOnce: 2,
  write(n, now) {
    const ts = secondsOf(now)
    return { payload: `{"ts":${ts},"seq":${n},"values":{"pulse":1}}`, elements: [at(ts * 1e6, ['pulse', '1'])] }
  },
}

/** Samples faster than a thousand a second, in µs, with equal values. */
export const inMicros: Habit = {
  atOnce: 3,
  write(_, now) {
    return { payload: `{"ts":${now},"values":{"level":0.5}}`, elements: [at(now, ['level', '0.5'])] }
  },
}

/** No time at all: of what is written in one go, the last counts. */
export const toggleWithoutTime: Habit = {
  atOnce: 3,
  write(n) {
    const door = String(n % 2 === 0)
    return {
      payload: `{"door":${door},"${NUMBER}":${n}}`,
      elements: [at(null, ['door', door], [NUMBER, String(n)])],
    }
  },
}

/** A list without times: of its elements, the last counts. */
export const listWithoutTime: Habit = {
  atOnce: 2,
  write(n) {
    const elements = [30, 20].map((base, place) =>
      at(null, ['t', String(base + (n % 5))], [NUMBER, String(n * 2 + place)]),
    )
    return { payload: `[${elements.map(valuesText).join(',')}]`, elements }
  },
}

/** A list in which elements share a time. */
export const listInSeconds: Habit = {
  atOnce: 1,
  write(n, now) {
    const ts = secondsOf(now)
    const elements = [30, 20, 25].map(base => at(ts * 1e6, ['t', String(base - (n % 3))]))
    return { payload: `[${elements.map(one => `{"ts":${ts},"values":${valuesText(one)}}`).join(',')}]`, elements }
  },
}

/** The same moment in many ways to write it, now and then older than the newest; two nanoseconds of one µs are two readings. */
export const inManyForms: Habit = {
  atOnce: 2,
  write(n, now) {
    const time = n % 5 === 0 ? now - 3_000_137 : now
    const seconds = `${Math.floor(time / 1e6)}`
    const micros = String(time % 1e6).padStart(6, '0')
    const utc = new Date(Number(seconds) * 1_000).toISOString().slice(0, -5)
    const east = new Date((Number(seconds) + 5_400) * 1_000).toISOString().slice(0, -5)
    const forms = [`${seconds}.${micros}`, `"${utc}.${micros}Z"`, `"${east}.${micros}+01:30"`, `${seconds}${micros}000`]
    const ts = forms[n % forms.length] as string
    const twin = `${seconds}${micros}999`
    const text = (written: string) => `{"ts":${written},"values":{"flow":7}}`
    const elements = [at(time, ['flow', '7']), at(time, ['flow', '7'])]
    return { payload: `[${text(ts)},${text(twin)}]`, elements }
  },
}

/** Nanoseconds, several of one µs, with equal values. */
export const inNanos: Habit = {
  atOnce: 2,
  write(n, now) {
    // Both messages of a pair are written in one ms, and get one µs of it.
    const time = now - (now % 1_000) + ((n >> 1) % 1_000)
    const nanos = n % 2 === 0 ? '001' : '002'
    return { payload: `{"ts":${time}${nanos},"values":{"spin":1}}`, elements: [at(time, ['spin', '1'])] }
  },
}

/** One milliseconds' time for each message, as most devices have it. */
export const inMillis: Habit = {
  atOnce: 1,
  write(n, now) {
    const ts = Math.floor(now / 1_000)
    return { payload: `{"ts":${ts},"values":{"rpm":${n}}}`, elements: [at(ts * 1_000, ['rpm', String(n)])] }
  },
}

function at(time: number | null, ...values: readonly (readonly [string, string])[]): Element {
  return { time, values }
}

function valuesText({ values }: Element): string {
  return `{${values.map(([metric, value]) => `"${metric}":${value}`).join(',')}}`
}

function secondsOf(now: number): number {
  return Math.floor(now / 1e6)
}
