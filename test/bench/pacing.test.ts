import { expect, test } from 'vitest'
import { dueAtMs, isHot, messagesDue } from '../../bench/pacing.ts'

test('message k is due exactly when its time has come, and not before', () => {
  for (const rate of [1, 3, 250, 2_000, 33_333]) {
    for (const k of [0, 1, 2, 999, 123_456]) {
      expect(messagesDue(dueAtMs(k, rate) + 1e-6, rate)).toBe(k + 1)
      if (k > 0) expect(messagesDue(dueAtMs(k, rate) - 1e-6, rate)).toBe(k)
    }
  }
  expect(messagesDue(-1, 100)).toBe(0)
})

test('the hot share is exact in the long run and spread evenly', () => {
  for (const share of [0, 0.2, 0.5, 0.8, 1]) {
    const turns = Array.from({ length: 1_000 }, (_, k) => isHot(k, share))
    expect(turns.filter(Boolean).length).toBe(share * 1_000)
    for (let from = 0; from + 10 <= turns.length; from += 10) {
      expect(Math.abs(turns.slice(from, from + 10).filter(Boolean).length - share * 10)).toBeLessThanOrEqual(1)
    }
  }
})
