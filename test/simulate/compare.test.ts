import { expect, test } from 'vitest'
import {
  canonicalSent,
  canonicalStored,
  compareDevice,
  isClean,
  noFindings,
  type SentReading,
  type StoredReading,
} from '../../simulate/compare.ts'

const sent = (time: number, value: string, acked = true, metric = 't'): SentReading => ({ metric, time, value, acked })
/** Received in the order in which they are written down, unless it is said. */
let receipts = 0
const stored = (time: number, value: string, metric = 't', receivedAt = ++receipts): StoredReading => ({
  metric,
  time,
  value,
  receivedAt,
})

const NONE = { lost: 0, duplicated: 0, phantom: 0, changed: 0, misordered: 0 }

interface Case {
  readonly name: string
  readonly sent: readonly SentReading[]
  readonly stored: readonly StoredReading[]
  readonly found: Partial<ReturnType<typeof noFindings>>
}

const CASES: readonly Case[] = [
  {
    name: 'stored once and unchanged is clean',
    sent: [sent(1, '21.0')],
    stored: [stored(1, '21')],
    found: { acked: 1 },
  },
  {
    name: 'acknowledged and not stored is lost',
    sent: [sent(1, '1'), sent(2, '2')],
    stored: [stored(1, '1')],
    found: { lost: 1 },
  },
  {
    name: 'stored twice is duplicated',
    sent: [sent(1, '1')],
    stored: [stored(1, '1'), stored(1, '1')],
    found: { duplicated: 1 },
  },
  {
    name: 'stored three times is duplicated twice',
    sent: [sent(1, '1')],
    stored: [1, 1, 1].map(() => stored(1, '1')),
    found: { duplicated: 2 },
  },
  { name: 'stored and never sent is a phantom', sent: [], stored: [stored(1, '1')], found: { phantom: 1 } },
  {
    name: 'another value at its place is changed',
    sent: [sent(1, '1')],
    stored: [stored(1, '1.5')],
    found: { changed: 1 },
  },
  {
    name: 'another value beside it is a phantom',
    sent: [sent(1, '1')],
    stored: [stored(1, '1'), stored(1, '2')],
    found: { phantom: 1 },
  },
  {
    name: 'another time is lost and a phantom',
    sent: [sent(1, '1')],
    stored: [stored(2, '1')],
    found: { lost: 1, phantom: 1 },
  },
  {
    name: 'another metric is lost and a phantom',
    sent: [sent(1, '1')],
    stored: [stored(1, '1', 'h')],
    found: { lost: 1, phantom: 1 },
  },
  { name: 'unacknowledged and not stored is allowed', sent: [sent(1, '1', false)], stored: [], found: {} },
  {
    name: 'unacknowledged and stored is allowed',
    sent: [sent(1, '1', false)],
    stored: [stored(1, '1')],
    found: { unackedStored: 1 },
  },
  {
    name: 'unacknowledged and stored twice is duplicated',
    sent: [sent(1, '1', false)],
    stored: [stored(1, '1'), stored(1, '1')],
    found: { duplicated: 1 },
  },
  {
    name: 'unacknowledged and stored changed is a phantom',
    sent: [sent(1, '1', false)],
    stored: [stored(1, '2')],
    found: { phantom: 1 },
  },
  {
    name: 'two messages of one time and value are both stored',
    sent: [sent(1, '1'), sent(1, '1')],
    stored: [stored(1, '1'), stored(1, '1')],
    found: { acked: 2 },
  },
  {
    name: 'one of two messages of one time and value is lost',
    sent: [sent(1, '1'), sent(1, '1')],
    stored: [stored(1, '1')],
    found: { lost: 1 },
  },
  {
    name: 'two values of one time are told apart',
    sent: [sent(1, '1'), sent(1, '2')],
    stored: [stored(1, '2'), stored(1, '2')],
    found: { lost: 1, duplicated: 1 },
  },
  {
    name: 'a value that changes back within one time is three readings',
    sent: ['true', 'false', 'true'].map(value => sent(1, value)),
    stored: ['bool 1', 'bool 0', 'bool 1'].map(value => stored(1, value)),
    found: { acked: 3 },
  },
  {
    name: 'a value that changes back and is stored once is lost',
    sent: ['true', 'false', 'true'].map(value => sent(1, value)),
    stored: ['bool 1', 'bool 0'].map(value => stored(1, value)),
    found: { lost: 1 },
  },
  {
    name: 'two values of one time, received in another order than sent, are out of order',
    sent: [sent(1, '1'), sent(1, '2')],
    stored: [stored(1, '2'), stored(1, '1')],
    found: { misordered: 1 },
  },
  {
    name: 'two values of one time with one receipt are out of order',
    sent: [sent(1, '1'), sent(1, '2')],
    stored: [stored(1, '1', 't', 9), stored(1, '2', 't', 9)],
    found: { misordered: 1 },
  },
  {
    name: 'the order of what may be stored and is not tells nothing',
    sent: [sent(1, '1'), sent(1, '2', false), sent(1, '1')],
    stored: [stored(1, '1'), stored(1, '1')],
    found: { acked: 2 },
  },
  {
    name: 'a number stored as text is changed',
    sent: [sent(1, '5')],
    stored: [stored(1, 'string 5')],
    found: { changed: 1 },
  },
  {
    name: 'the last digit of a large integer is seen',
    sent: [sent(1, '9007199254740993')],
    stored: [stored(1, 'integer 9007199254740992')],
    found: { changed: 1 },
  },
]

test.each(CASES)('$name', ({ sent, stored, found }) => {
  const findings = noFindings()
  compareDevice(findings, 'd', sent, stored)
  const expected = { ...NONE, ...found }
  expect(findings).toMatchObject(expected)
  const faults = expected.lost + expected.duplicated + expected.phantom + expected.changed + expected.misordered
  expect(isClean(findings)).toBe(faults === 0)
  expect(findings.examples.length).toBeGreaterThanOrEqual(Math.min(faults, 1))
})

test('values are compared as doubles, and as digits beyond 2^53', () => {
  expect(canonicalSent('21.0')).toBe(canonicalStored('number', 21, ''))
  expect(canonicalSent('-0')).toBe('-0')
  expect(canonicalSent('9007199254740993')).toBe(canonicalStored('integer', 9007199254740992, '9007199254740993'))
  expect(canonicalStored('2', 9007199254740992, '9007199254740993')).toBe('integer 9007199254740993')
  expect(canonicalStored('bool', 1, '')).not.toBe(canonicalSent('1'))
})
