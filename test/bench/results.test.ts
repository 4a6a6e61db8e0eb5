import { expect, test } from 'vitest'
import { orderOf, SHAPES, selectCells } from '../../bench/cells.ts'
import type { EndToEnd, Sample } from '../../bench/measure.ts'
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
  endToEnd: null,
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
  expect(lines.find(line => line.startsWith('| Surgetank'))).toContain('FAILED: 3 acknowledged messages are not stored')
  expect(lines.find(line => line.startsWith('| Surgetank'))).not.toContain('900')
  expect(lines.find(line => line.includes('direct'))).toContain('0.010×')
  expect(drainText([{ by: 'one writer', sample: '2 messages are stored twice' }])).toContain(
    '| one writer | FAILED: 2 messages are stored twice |  |  |  |',
  )
})

test('the CPU of each part is told for the variants that store, and only for the parts they have', () => {
  const [cell] = selectCells(['burst', 'spread'])
  if (cell === undefined) throw new Error('no such cell')
  const stored = (storedPerSecond: number, partUs: EndToEnd['partUs']) =>
    sample(storedPerSecond, { endToEnd: { storedPerSecond, partUs } })
  const samples = new Map<VariantName, Sample[]>([
    ['bare', [sample(1_000)]],
    ['surgetank', [stored(400, { broker: 7, writer: 3, ClickHouse: 5 })]],
    ['machines', [stored(200, { broker: 9, writer: 4, 'reader and API': 0.1, Redis: 2, Kafka: 1, ClickHouse: 5 })]],
  ])
  const lines = cellTable({ cell, samples })
  const parts = lines.slice(lines.findIndex(line => line.includes('until all is stored')))
  expect(parts).toEqual([
    '| until all is stored | stored/s | all, CPU µs per message | broker | writer | reader and API | Redis | Kafka | ClickHouse |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
    '| Surgetank | 400 | 15.0 | 7.0 | 3.0 |  |  |  | 5.0 |',
    '| Surgetank on Kafka, Redis, ClickHouse | 200 | 21.1 | 9.0 | 4.0 | 0.1 | 2.0 | 1.0 | 5.0 |',
    '',
  ])
  expect(lines.find(line => line.startsWith('| Surgetank on Kafka'))).toContain('| 0.50× |')
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
