/** The oracle by itself: what it must see is put before it by hand. */
import { expect, test } from 'vitest'
import { canonicalSent, noFindings } from '../../simulate/compare.ts'
import type { StoredRow } from '../../simulate/stored.ts'
import { type Element, type Habit, listWithoutTime, toggleInSeconds, toggleWithoutTime } from './habits.ts'
import { openOracle } from './oracle.ts'

const NOW = 1_763_640_000_000_000

interface Case {
  readonly name: string
  readonly habit: Habit
  /** How often each message was sent; all are acknowledged. */
  readonly attempts: readonly number[]
  /** Which elements are stored, in the order of their receipts; of a number, that element. */
  readonly stored: readonly number[]
  readonly found: Partial<ReturnType<typeof noFindings>>
}

const CASES: readonly Case[] = [
  { name: 'all once is clean', habit: toggleWithoutTime, attempts: [1, 1, 1], stored: [0, 1, 2], found: {} },
  {
    name: 'one that was sent again may be stored twice',
    habit: toggleWithoutTime,
    attempts: [1, 2, 2],
    stored: [0, 1, 2, 1, 2],
    found: {},
  },
  {
    name: 'one that was sent once may not',
    habit: toggleWithoutTime,
    attempts: [1, 1],
    stored: [0, 1, 1],
    found: { duplicated: 2 },
  },
  {
    name: 'one that is not stored is lost, with all its readings',
    habit: toggleWithoutTime,
    attempts: [1, 2],
    stored: [0],
    found: { lost: 2 },
  },
  {
    name: 'one that was received before what was sent before it is out of order',
    habit: toggleWithoutTime,
    attempts: [1, 1, 1],
    stored: [0, 2, 1],
    found: { misordered: 1 },
  },
  {
    name: 'the elements of a list count by themselves',
    habit: listWithoutTime,
    attempts: [1, 1],
    stored: [0, 1, 3],
    found: { lost: 2 },
  },
  {
    name: 'three changes within a second are three readings',
    habit: toggleInSeconds,
    attempts: [1, 1, 1],
    stored: [0, 1],
    found: { lost: 1 },
  },
]

test.each(CASES)('$name', ({ habit, attempts, stored, found }) => {
  const { oracle, elements } = sentBy(habit, attempts)
  const rows = stored.flatMap((n, receipt) => rowsOf(elements[n], NOW + receipt))
  const findings = noFindings()
  oracle.compare(findings, 'd', rows)
  expect(findings).toMatchObject({ lost: 0, duplicated: 0, phantom: 0, changed: 0, misordered: 0, ...found })
})

test('elements that share a receipt, or whose readings are those of another, are told', () => {
  const { oracle, elements } = sentBy(toggleWithoutTime, [1, 1])
  const shared = noFindings()
  oracle.compare(shared, 'd', [...rowsOf(elements[0], NOW), ...rowsOf(elements[1], NOW)])
  expect(shared).toMatchObject({ lost: 0, misordered: 1 })
  const mixed = noFindings()
  const [door] = rowsOf(elements[1], NOW)
  oracle.compare(mixed, 'd', [door as StoredRow, ...rowsOf(elements[0], NOW).slice(1), ...rowsOf(elements[1], NOW + 1)])
  expect(mixed).toMatchObject({ lost: 0, changed: 1 })
})

test('the state must be what was sent last, also where it was stored twice', () => {
  const { oracle, elements } = sentBy(toggleWithoutTime, [1, 2])
  const rows = [0, 1, 1].flatMap((n, receipt) => rowsOf(elements[n], NOW + receipt))
  const newest = oracle.compare(noFindings(), 'd', rows)
  expect(newest.get('door')).toEqual([{ time: NOW + 2, value: 'bool 0' }])
  const timed = sentBy(toggleInSeconds, [1, 1, 1, 1])
  expect(timed.oracle.compare(noFindings(), 'd', []).get('door')).toEqual([{ time: NOW, value: 'bool 0' }])
})

function sentBy(habit: Habit, attempts: readonly number[]) {
  const oracle = openOracle()
  const elements: Element[] = []
  attempts.forEach((times, n) => {
    const written = habit.write(n, NOW + n)
    elements.push(...written.elements)
    oracle.sent({ device: 'd', elements: written.elements, acked: true, attempts: times })
  })
  return { oracle, elements }
}

function rowsOf(element: Element | undefined, receivedAt: number): StoredRow[] {
  const time = element?.time ?? receivedAt
  return (element?.values ?? []).map(([metric, text]) => {
    const value = canonicalSent(text)
    const moment = { ts: time, receivedAt, value: JSON.parse(text) as number | boolean }
    return { device: 'd', metric, time, value, receivedAt, moment }
  })
}
