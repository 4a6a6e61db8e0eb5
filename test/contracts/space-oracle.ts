/**
 * The oracle of the space: the state as one reads it off the promise, with all steps at hand at once and no thought of
 * speed. It shares no code with the space, the order of [G4] included.
 */
import fc from 'fast-check'
import type { DeviceState, Presence } from '../../model/device-state.ts'
import type { Message } from '../../model/message.ts'
import type { Moment, Value } from '../../model/reading.ts'

/** One thing that happens to a space: a message, a presence or a claim. */
export interface Step {
  readonly message?: Message
  readonly presence?: Presence
  readonly claim?: string
}

const device = fc.constantFrom('press-1', 'press ~1', '__proto__')
/** So few times, in µs, that most readings meet another of the same moment, or of the same ms. */
const time = fc.constantFrom(1000, 1001, 1999, 2000, 3000)
/** ms. */
const presenceTime = fc.integer({ min: 1, max: 3 })
const value: fc.Arbitrary<Value> = fc.oneof(
  fc.constantFrom(0, -0, 1, -1.5, 1e300),
  fc.constantFrom(2n ** 60n, -(2n ** 60n), 2n ** 60n + 1n, 10n ** 63n),
  fc.boolean(),
  fc.constantFrom('', 'on', 'off', 'a text that is longer than a cut', '\uffff', '😀'),
  fc.constant(null),
)
const reading = fc.record({ metric: fc.constantFrom('m', '__proto__', '😀', '\uffff'), ts: time, value })

export const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ message: messageOf(device, time, reading) }) },
  { weight: 2, arbitrary: fc.record({ presence: fc.record({ device, online: fc.boolean(), at: presenceTime }) }) },
  { weight: 1, arbitrary: fc.record({ claim: device }) },
)

function messageOf(
  devices: fc.Arbitrary<string>,
  times: fc.Arbitrary<number>,
  readings: fc.Arbitrary<{ metric: string; ts: number; value: Value }>,
): fc.Arbitrary<Message> {
  return fc
    .record({
      device: devices,
      receivedAt: times,
      elements: fc.array(fc.array(readings, { minLength: 1, maxLength: 2 }), { minLength: 1, maxLength: 2 }),
    })
    .map(({ device, receivedAt, elements }) => ({
      device,
      receivedAt,
      readings: elements.flatMap((of, place) =>
        of.map(({ metric, ts, value }) => ({ metric, ts, receivedAt: receivedAt + place, value, sentTs: ts })),
      ),
    }))
}

/** The states of all devices that must be listed after these steps, in order. */
export function expectedStates(steps: readonly Step[]): DeviceState[] {
  const messages = steps.flatMap(({ message }) => message ?? [])
  const presences = steps.flatMap(({ presence }) => presence ?? [])
  const claims = steps.flatMap(({ claim }) => claim ?? [])
  const heard = [...messages, ...presences].map(({ device }) => device)
  const listed = heard.filter(id => claims.includes(id) || messages.some(({ device }) => device === id))
  return [...new Set(listed)].toSorted().map(id =>
    stateOf(
      id,
      messages.filter(({ device }) => device === id),
      presences.filter(({ device }) => device === id),
    ),
  )
}

function stateOf(device: string, messages: Message[], presences: Presence[]): DeviceState {
  const readings = messages.flatMap(({ readings }) =>
    readings.map(({ metric, ts, receivedAt, value }) => ({ metric, ts, receivedAt, value })),
  )
  const names = [...new Set(readings.map(({ metric }) => metric))].toSorted(bytewise)
  const metrics = names.flatMap(
    name =>
      readings
        .filter(({ metric }) => metric === name)
        .toSorted(momentwise)
        .at(-1) ?? [],
  )
  const presence = presences.toSorted((a, b) => a.at - b.at || Number(b.online) - Number(a.online)).at(-1)
  const receipts = readings.map(({ receivedAt }) => receivedAt)
  const lastSeen = Math.max(...receipts, ...presences.map(({ at }) => at * 1000))
  return { device, online: presence?.online ?? false, lastSeen, metrics }
}

function momentwise(a: Moment, b: Moment): number {
  return a.ts - b.ts || a.receivedAt - b.receivedAt || valuewise(a.value, b.value)
}

function valuewise(a: Value, b: Value): number {
  const kinds = ['number', 'bigint', 'boolean', 'string', 'object']
  const byKind = kinds.indexOf(typeof a) - kinds.indexOf(typeof b)
  if (byKind !== 0) return byKind
  if (typeof a === 'string') return bytewise(a, String(b))
  const byNumber = Number(a) - Number(b)
  if (byNumber !== 0) return byNumber
  return typeof a === 'bigint' ? bytewise(String(a), String(b)) : Number(Object.is(b, -0)) - Number(Object.is(a, -0))
}

function bytewise(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
