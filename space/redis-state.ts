/**
 * How a device's state is written in its hash: one field for each metric, `.` and its name, so that no name can meet the
 * two fields of our own: `~`, "<newest ts> <last seen>", which every listed device has, and `@`, "<at> <1 online> <tag>".
 *
 * A metric's value is its whole moment, "<ts> <receivedAt - ts> <kind>:<value>", plain to read with redis-cli and exact
 * [G3]. `apply.lua` decides from it by the order of `isNewer` [G4]: at the same ts the later receipt has the greater difference.
 *
 * Times stand in ms, with three decimals where they have µs: Lua's doubles tell µs apart until 2109, and versions before that knew
 * ms only read and compare the same text.
 */
import type { DeviceState, MetricState } from '../model/device-state.ts'
import { KIND, kindOf, type Moment, type Value } from '../model/reading.ts'
import { US_PER_MS } from '../model/time.ts'
import { compareBytewise } from './bytewise.ts'

export function encodeMoment({ ts, receivedAt, value }: Moment): string {
  return `${encodeTime(ts)} ${encodeTime(receivedAt - ts)} ${KIND[kindOf(value)]}:${encodeValue(value)}`
}

/** A time, or a difference of two, in µs: as it stands in Redis, in ms. */
export function encodeTime(us: number): string {
  return us % US_PER_MS === 0 ? String(us / US_PER_MS) : (us / US_PER_MS).toFixed(3)
}

function decodeTime(text: string): number {
  return Math.round(Number(text) * US_PER_MS)
}

/** The kind tells what it was; so a double needs no sign that it is no integer. */
function encodeValue(value: Value): string {
  if (value === null) return ''
  if (typeof value === 'boolean') return value ? '1' : '0'
  return Object.is(value, -0) ? '-0' : String(value)
}

export function fieldOf(metric: string): string {
  return `.${metric}`
}

/** The state from the fields and values of a device's hash; null when the device is not listed. `isLive`: whether a unit's tag lives. */
export function decodeState(
  device: string,
  flat: readonly string[],
  isLive: (tag: string) => boolean,
): DeviceState | null {
  const metrics: MetricState[] = []
  let lastSeen: number | null = null
  let online = false
  for (let at = 0; at + 1 < flat.length; at += 2) {
    const [field, value] = [flat[at] as string, flat[at + 1] as string]
    if (field === '~') lastSeen = decodeTime(value.slice(value.indexOf(' ') + 1))
    else if (field === '@') online = isOnline(value, isLive)
    else metrics.push({ metric: field.slice(1), ...decodeMoment(value) })
  }
  if (lastSeen === null) return null
  metrics.sort((a, b) => compareBytewise(a.metric, b.metric))
  return { device, online, lastSeen, metrics }
}

function isOnline(presence: string, isLive: (tag: string) => boolean): boolean {
  const [, online, tag] = presence.split(' ')
  return online === '1' && isLive(tag ?? '')
}

function decodeMoment(text: string): Moment {
  const afterTs = text.indexOf(' ')
  const afterDelay = text.indexOf(' ', afterTs + 1)
  const ts = decodeTime(text.slice(0, afterTs))
  const receivedAt = ts + decodeTime(text.slice(afterTs + 1, afterDelay))
  return { ts, receivedAt, value: decodeValue(Number(text[afterDelay + 1]), text.slice(afterDelay + 3)) }
}

function decodeValue(kind: number, text: string): Value {
  switch (kind) {
    case KIND.number:
      return Number(text)
    case KIND.integer:
      return BigInt(text)
    case KIND.bool:
      return text === '1'
    case KIND.string:
      return text
    default:
      return null
  }
}
