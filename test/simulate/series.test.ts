import { expect, test } from 'vitest'
import { parseSeries, parseTimestamp } from '../../simulate/series.ts'

test('a series keeps the order and the very text of its file', () => {
  const text = 'timestamp,value\r\n2014-01-07 02:00:00,94.0\r\n2014-01-07 01:00:00,74.93588199999998\r\n'
  expect(parseSeries('elb', text, 'elb.csv')).toEqual({
    device: 'elb',
    times: [Date.UTC(2014, 0, 7, 2), Date.UTC(2014, 0, 7, 1)],
    values: ['94.0', '74.93588199999998'],
  })
})

test.each([
  ['2014-01-07 02:00:00', Date.UTC(2014, 0, 7, 2)],
  ['2014-01-07T02:00:00.250', Date.UTC(2014, 0, 7, 2, 0, 0, 250)],
  ['2014-01-07T02:00:00Z', Date.UTC(2014, 0, 7, 2)],
  ['2014-01-07 02:00+01:00', Date.UTC(2014, 0, 7, 1)],
  ['2014-13-07 02:00:00', null],
  ['yesterday', null],
  ['', null],
])('the timestamp %s is UTC unless it has a zone', (text, expected) => {
  expect(parseTimestamp(text)).toBe(expected)
})

test.each([
  ['time,value\n', "the first line must be 'timestamp,value'"],
  ['', "the first line must be 'timestamp,value'"],
  ['timestamp,value\nyesterday,1\n', "line 2: 'yesterday' is no timestamp"],
  ['timestamp,value\n2014-01-07 02:00:00,1\n2014-01-07 02:00:00,NaN\n', "line 3: 'NaN' is no number"],
  ['timestamp,value\n2014-01-07 02:00:00,1e999\n', "line 2: '1e999' is no number"],
  ['timestamp,value\n2014-01-07 02:00:00,\n', "line 2: '' is no number"],
  ['timestamp,value\n2014-01-07 02:00:00,1,2\n', 'line 2: has more than two columns'],
  ['timestamp,value\n\n', 'line 2'],
])('a file that is no series is refused with its line: %j', (text, sentence) => {
  expect(() => parseSeries('x', text, 'x.csv')).toThrow(sentence)
})
