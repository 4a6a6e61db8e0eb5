import { expect, test } from 'vitest'
import { deviceIndexOf, phasesOf, planSchedule, SCENARIOS } from '../../simulate/scenario.ts'

test('a steady schedule spreads the rate evenly and ends with the seconds', () => {
  const schedule = planSchedule(phasesOf('steady', 50, 4))
  expect(schedule.total).toBe(200)
  expect(schedule.dueAt(0)).toBe(0)
  expect(schedule.dueAt(199)).toBe(3_980)
  expect(schedule.dueBy(0)).toBe(1)
  expect(schedule.dueBy(19)).toBe(1)
  expect(schedule.dueBy(1_000)).toBe(51)
  expect(schedule.dueBy(60_000)).toBe(200)
})

test('a spike is a tenth of the rate, then the rate, then a tenth', () => {
  const schedule = planSchedule(phasesOf('spike', 1_000, 9))
  expect(schedule.total).toBe(300 + 3_000 + 300)
  expect(schedule.dueBy(2_999)).toBe(300)
  expect(schedule.dueBy(5_999)).toBe(3_300)
  expect([0, 299, 300, 3_299, 3_300, 3_599].map(schedule.phaseOf)).toEqual([0, 0, 1, 1, 2, 2])
})

test('a message is due exactly when its time has come, in every scenario', () => {
  for (const scenario of SCENARIOS) {
    const schedule = planSchedule(phasesOf(scenario, 333, 6))
    for (let n = 0; n < schedule.total; n++) {
      expect(schedule.dueBy(schedule.dueAt(n) + 1e-6)).toBe(n + 1)
      if (n > 0) expect(schedule.dueBy(schedule.dueAt(n) - 1e-6)).toBe(n)
    }
  }
})

test('the hot key gets 80 % of the messages, and every other device the same share of the rest', () => {
  const counts = new Array<number>(11).fill(0)
  for (let n = 0; n < 5_000; n++) {
    const device = deviceIndexOf('hot-key', n, 11)
    counts[device] = (counts[device] ?? 0) + 1
  }
  expect(counts).toEqual([4_000, ...new Array<number>(10).fill(100)])
})
