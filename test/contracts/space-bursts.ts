/**
 * Bursts: what several units receive within one ms, as a client sends it that was offline and empties its queue. Without times,
 * or all of one second of the device's clock; one by one and in lists.
 */
import fc from 'fast-check'
import type { Message } from '../../model/message.ts'
import type { Reading, Value } from '../../model/reading.ts'

export interface Burst {
  /** Of each unit in the order of sending. */
  readonly messages: readonly Message[]
  /** Some order of their places. */
  readonly order: readonly number[]
  readonly batch: number
}

/** 2025-11-20T12:00:00.123Z, µs. */
const AT = 1_763_640_000_123_000
const SECOND = 1_763_640_000_000_000

const value: fc.Arbitrary<Value> = fc.oneof(
  fc.boolean(),
  fc.integer({ min: 0, max: 3 }),
  fc.constantFrom('on', 'off', null, 2n ** 60n),
)
const element = fc.dictionary(fc.constantFrom('a', 'b', 'c'), value, { minKeys: 1, maxKeys: 3, noNullPrototype: true })
const sending = fc.record({
  unit: fc.integer({ min: 0, max: 2 }),
  /** `own`: a device of this unit alone; `shared`: one that came to all of them. */
  who: fc.constantFrom('own', 'own-timed', 'shared', 'shared-timed'),
  elements: fc.array(element, { minLength: 1, maxLength: 4 }),
})

export const bursts: fc.Arbitrary<Burst> = fc.array(sending, { minLength: 1, maxLength: 25 }).chain(all => {
  // The clock of each unit stands still: its receipts grow all the same.
  const next = [AT, AT, AT + 2]
  const messages = all.map(({ unit, who, elements }): Message => {
    const device = who.startsWith('own') ? `${who}-${unit}` : who
    const sentTs = who.endsWith('timed') ? SECOND : null
    const receivedAt = next[unit] as number
    next[unit] = receivedAt + elements.length
    const readings = elements.flatMap((values, place) =>
      Object.entries(values).map(([metric, value]): Reading => {
        const at = receivedAt + place
        return { metric, ts: sentTs ?? at, receivedAt: at, value, sentTs }
      }),
    )
    return { device, receivedAt, readings }
  })
  const places = messages.map((_, at) => at)
  return fc.record({
    messages: fc.constant(messages),
    order: fc.shuffledSubarray(places, { minLength: places.length }),
    batch: fc.integer({ min: 1, max: 7 }),
  })
})

/** What a device of one unit sent last of each metric. */
export function lastSent(messages: readonly Message[], device: string): Map<string, Value> {
  const sent = messages.filter(message => message.device === device).flatMap(({ readings }) => readings)
  return new Map(sent.map(({ metric, value }) => [metric, value]))
}
