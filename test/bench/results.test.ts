import { expect, test } from 'vitest'
import { orderOf, SHAPES, selectCells } from '../../bench/cells.ts'
import type { Sample } from '../../bench/measure.ts'
import { cellTable, drainText } from '../../bench/results.ts'
import { ratioOf, spreadOf } from '../../bench/statistics.ts'
import type { VariantName } from '../../bench/variants.ts'

const sample = (ackedPerSecond: number, more: Partial<Sample> = {}): Sample => ({
  ackedPerSecond,
  userUs: 8,
  sysUs: 2,
  allUs: 12,
  generatorUs: 1,
  p50Ms: 5,
  p99Ms: 9,
  acked: 1_000,
  failure: null,
  ...more,
})

test('a spread is the median, the least and the greatest of what is known', () => {
  expect(spreadOf([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 })
  expect(spreadOf([4, null, 1])).toEqual({ median: 2.5, min: 1, max: 4 })
  expect(spreadOf([null])).toBeNull()
})

test('a ratio is taken round by round, so that a slow moment of the machine counts for both', () => {
  expect(ratioOf([50, 5], [100, 10])).toEqual({ median: 0.5, min: 0.5, max: 0.5 })
  expect(ratioOf([50, null], [100, 10])?.median).toBe(0.5)
  expect(ratioOf([50], [])).toBeNull()
})

test('a variant that lost a message is printed as failed, without figures', () => {
  const [cell] = selectCells(['burst', 'hot'])
  if (cell === undefined) throw new Error('no such cell')
  const samples = new Map<VariantName, Sample[]>([
    ['bare', [sample(1_000)]],
    ['surgetank', [sample(900), sample(800, { failure: '3 acknowledged messages are not stored' })]],
    ['direct', [sample(10)]],
  ])
  const lines = cellTable({ cell, samples })
  expect(lines[0]).toBe('### burst, 80 % on one device')
  expect(lines.find(line => line.includes('Surgetank'))).toContain('FAILED: 3 acknowledged messages are not stored')
  expect(lines.find(line => line.includes('Surgetank'))).not.toContain('900')
  expect(lines.find(line => line.includes('direct'))).toContain('0.010×')
  expect(drainText(['2 messages are stored twice'])).toEqual([
    'Draining a backlog: FAILED: 2 messages are stored twice.',
    '',
  ])
})

test('a selection takes what it names, and everything of what it does not name', () => {
  expect(selectCells([])).toHaveLength(4)
  expect(selectCells(['bare']).map(cell => `${cell.shape.name}-${cell.key}`)).toHaveLength(4)
  expect(selectCells(['trickle']).map(cell => `${cell.shape.name}-${cell.key}`)).toEqual([
    'trickle-spread',
    'trickle-hot',
  ])
})

test('every device of a shape has a name of its own, and only the hot key has a hot share', () => {
  for (const cell of selectCells([])) {
    const order = orderOf(cell, 1_883, 7, { rate: null, warmupMs: 0, measureMs: 1 })
    expect(new Set(order.devices).size).toBe(SHAPES.find(shape => shape === cell.shape)?.devices)
    expect(order.hotShare > 0).toBe(cell.key === 'hot')
  }
})
