import { expect, test } from 'vitest'
import { pairsTable } from '../../bench/pairs.ts'
import { medianInterval } from '../../bench/statistics.ts'

test('the interval of a median goes by ranks: from the second of ten to the last but one', () => {
  const values = [9, 1, 8, 2, 7, 3, 6, 4, 5, 10]
  expect(medianInterval(values)).toEqual({ from: 2, to: 9 })
  expect(medianInterval(values.slice(0, 6))).toEqual({ from: 1, to: 9 })
  expect(medianInterval(values.slice(0, 5))).toBeNull()
  const many = Array.from({ length: 101 }, (_, n) => n)
  // Of 101 tosses of a coin, fewer than 41 are heads in 2.3 of 100 tries.
  expect(medianInterval(many)).toEqual({ from: 40, to: 60 })
})

test('a ratio is taken pair by pair, for all parts together and for each', () => {
  const pairs = Array.from({ length: 10 }, (_, n) => ({
    before: { broker: 10 * (n + 1), writer: 5, ClickHouse: 5 },
    after: { broker: 11 * (n + 1), writer: 5, ClickHouse: 5 },
  }))
  const lines = pairsTable([{ name: 'burst', pairs }])
  expect(lines[0]).toBe('| load | CPU µs per message | before | after | after / before | 95 % interval | pairs |')
  expect(lines.slice(3)).toEqual([
    '|  | broker | 55.0 | 60.5 | 1.100 | 1.100–1.100 | 10 |',
    '|  | writer | 5.0 | 5.0 | 1.000 | 1.000–1.000 | 10 |',
    '|  | ClickHouse | 5.0 | 5.0 | 1.000 | 1.000–1.000 | 10 |',
  ])
  expect(lines[2]).toMatch(/^\| burst \| all \| 65\.0 \| 70\.5 \| 1\.08\d \| 1\.0\d\d–1\.09\d \| 10 \|$/)
})
