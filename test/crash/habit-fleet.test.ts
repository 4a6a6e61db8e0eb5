/** The fleet of habits against bare Aedes, which notes what comes: it must do what its lines say. */
import { afterEach, expect, test } from 'vitest'
import { type BareBroker, openBareBroker } from '../../bench/bare-broker.ts'
import { type HabitFleet, type Line, openHabitFleet } from './habit-fleet.ts'
import { HABIT_LINES } from './habit-lines.ts'
import { type Habit, inMicros, toggleInSeconds } from './habits.ts'
import type { SentMessage } from './oracle.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

interface Received {
  readonly payload: string
  readonly packetId: number
  readonly dup: boolean
}

/** Acknowledges nothing while `silent`. */
async function openNotingBroker(): Promise<BareBroker & { received: Received[]; silent: boolean }> {
  const state = { received: [] as Received[], silent: false }
  const broker = await openBareBroker(0, {
    authorizePublish(_client, packet, done) {
      const { payload, dup } = packet
      const packetId = 'messageId' in packet ? (packet.messageId as number) : 0
      state.received.push({ payload: payload.toString(), packetId, dup })
      if (!state.silent) done(null)
    },
  })
  cleanups.push(broker.close)
  return Object.assign(state, broker)
}

async function openTestFleet(port: number, lines: readonly Line[], sent: SentMessage[] = []): Promise<HabitFleet> {
  const fleet = await openHabitFleet({ port, lines, oracle: { sent: message => void sent.push(message) } })
  cleanups.push(fleet.close)
  fleet.start()
  return fleet
}

function lineOf(habit: Habit, more: Partial<Line>): Line {
  const devices = [{ id: 'd', habit }]
  return { clientId: 'd', clean: true, qos: 1, resends: 'dup', away: 'measures', devices, ...more }
}

test('what was not acknowledged comes again with DUP=1 and its first packet identifier, in its order', async () => {
  const broker = await openNotingBroker()
  broker.silent = true
  const fleet = await openTestFleet(broker.port, [lineOf(toggleInSeconds, { away: 'sleeps' })])
  await expect.poll(() => broker.received.length).toBeGreaterThan(5)
  const first = broker.received.splice(0)
  broker.silent = false
  broker.cut()
  await expect.poll(() => broker.received.length).toBeGreaterThanOrEqual(first.length)
  expect(broker.received.slice(0, first.length)).toEqual(first.map(message => ({ ...message, dup: true })))
  expect(await fleet.drain(10_000)).toBe(true)
})

test('or with DUP=0 and new packet identifiers, as new messages', async () => {
  const broker = await openNotingBroker()
  broker.silent = true
  const fleet = await openTestFleet(broker.port, [lineOf(inMicros, { resends: 'anew', clean: false })])
  await expect.poll(() => broker.received.length).toBeGreaterThan(5)
  const first = broker.received.splice(0)
  broker.silent = false
  broker.cut()
  await expect.poll(() => broker.received.length).toBeGreaterThanOrEqual(first.length)
  const again = broker.received.slice(0, first.length)
  expect(again.map(({ payload }) => payload)).toEqual(first.map(({ payload }) => payload))
  expect(again.some(({ dup }) => dup)).toBe(false)
  const ids = new Set(first.map(({ packetId }) => packetId))
  expect(again.filter(({ packetId }) => ids.has(packetId))).toEqual([])
  expect(await fleet.drain(10_000)).toBe(true)
})

test('packet identifiers go round through all 16 bits', async () => {
  const broker = await openNotingBroker()
  await openTestFleet(broker.port, [lineOf(inMicros, {})])
  await expect.poll(() => broker.received.length).toBeGreaterThan(110)
  const ids = broker.received.map(({ packetId }) => packetId)
  const [first = 0] = ids
  expect(ids).toEqual(ids.map((_, n) => ((first + n - 1) % 65_535) + 1))
  expect(ids.at(-1)).toBeLessThan(first)
})

test('every line of the rounds publishes JSON that says what the oracle was told, and all is acknowledged', async () => {
  const broker = await openNotingBroker()
  const sent: SentMessage[] = []
  const fleet = await openTestFleet(broker.port, HABIT_LINES, sent)
  await expect.poll(() => new Set(sent.map(({ device }) => device)).size).toBeGreaterThan(20)
  broker.cut()
  await expect.poll(() => fleet.counts().inFlight).toBeGreaterThan(0)
  expect(await fleet.drain(10_000)).toBe(true)
  expect(sent.every(({ acked, attempts }) => acked && attempts >= 1)).toBe(true)
  for (const { payload } of broker.received) expect(() => JSON.parse(payload)).not.toThrow()
})
