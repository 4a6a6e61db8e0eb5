/**
 * What is published: the messages of a run by number, either made up from a seed or replayed from recorded series.
 *
 * A message and its readings are a function of its number (and of the moment it was first sent, where the series has no
 * time of its own): nothing but that moment must be kept to know afterwards what must be stored.
 */
import { canonicalSent } from './compare.ts'
import { deviceIndexOf, isOpen, type Scenario } from './scenario.ts'
import type { Series } from './series.ts'

export interface Workload {
  readonly devices: readonly string[]
  readonly total: number
  /** True when the devices are this run's alone; those of a replay may have readings from elsewhere. */
  readonly ownDevices: boolean
  deviceOf(n: number): number
  /** The time of message n that is sent at `now`, ms since 1970 UTC. */
  timeOf(n: number, now: number): number
  payload(n: number, time: number): string
  /** What `payload` says: metric and JSON text of the value. */
  readings(n: number): [metric: string, value: string][]
  /** Equal for messages of the same device, time and content; null for one that is like no other. `time` is what `timeOf` gave. */
  contentOf(n: number, time: number): string | null
}

export interface SyntheticOptions {
  readonly scenario: Scenario
  readonly devices: number
  readonly total: number
  readonly seed: number
  /** Tells this run's devices from those of every other run. */
  readonly run: string
}

/**
 * `counter` is the number of the message: it proves which of them are stored. A toggle has none: a boolean that changes with
 * each message, beside a time in whole seconds, so that only the order of sending tells its messages apart.
 */
export function syntheticWorkload(options: SyntheticOptions): Workload {
  const { scenario, total, seed, run } = options
  const width = String(options.devices).length
  const devices = Array.from({ length: options.devices }, (_, n) => `${run}-${String(n + 1).padStart(width, '0')}`)
  const deviceOf = (n: number) => deviceIndexOf(scenario, n, devices.length)
  const common = { devices, total, ownDevices: true, deviceOf }
  if (scenario === 'toggle') {
    const door = (n: number): [string, string][] => [['door', String(isOpen(n, devices.length))]]
    return {
      ...common,
      timeOf: (_, now) => now - (now % 1_000),
      payload: (n, time) => payloadOf(time / 1_000, door(n)),
      readings: door,
      contentOf: (n, time) => `${deviceOf(n)} ${time} ${isOpen(n, devices.length)}`,
    }
  }
  return {
    ...common,
    timeOf: (_, now) => now,
    payload: (n, time) => payloadOf(time, readings(n)),
    readings,
    contentOf: () => null,
  }

  function readings(n: number): [string, string][] {
    return [
      ['temperature', String((1_500 + (mix(seed, n) % 1_500)) / 100)],
      ['humidity', String((300 + (mix(seed + 1, n) % 500)) / 10)],
      ['counter', String(n)],
    ]
  }
}

/** The rows of the series in turn, each series in the order of its file. */
export function replayWorkload(series: readonly Series[]): Workload {
  const owners: number[] = []
  const rows: number[] = []
  const longest = series.reduce((most, one) => Math.max(most, one.times.length), 0)
  for (let row = 0; row < longest; row++) {
    series.forEach((one, owner) => {
      if (row >= one.times.length) return
      owners.push(owner)
      rows.push(row)
    })
  }
  return {
    devices: series.map(one => one.device),
    total: rows.length,
    ownDevices: false,
    deviceOf: n => owners[n] ?? 0,
    timeOf: n => series[owners[n] ?? 0]?.times[rows[n] ?? 0] ?? 0,
    payload: (n, time) => payloadOf(time, readings(n)),
    readings,
    contentOf: (n, time) => `${owners[n]} ${time} ${canonicalSent(readings(n)[0]?.[1] ?? '')}`,
  }

  function readings(n: number): [string, string][] {
    return [['value', series[owners[n] ?? 0]?.values[rows[n] ?? 0] ?? 'null']]
  }
}

function payloadOf(time: number, readings: readonly [string, string][]): string {
  return `{"ts":${time},"values":{${readings.map(([metric, value]) => `"${metric}":${value}`).join(',')}}}`
}

/** An even spread of 32 bits for a seed and a number (the finalizer of MurmurHash3). */
function mix(seed: number, n: number): number {
  let bits = (Math.imul(seed, 0x9e3779b1) ^ n) >>> 0
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
  return (bits ^ (bits >>> 16)) >>> 0
}
