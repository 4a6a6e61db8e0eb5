/** What analysts and their tools ask goes on working, however narrow the wall. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SYSTEM_TABLES_ALLOWED } from '../../../database/embedded/analyst-names.ts'
import { SETTINGS_ALLOWED } from '../../../database/embedded/analyst-settings.ts'
import { judgedEngineHere } from '../../servers/walls-here.ts'
import { block, type Fixture, openFixture, raw, rows, scalar } from '../database-fixture.ts'
import { ADDRESSES, ANALYSTS, CLIENTS } from './ordinary.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
  await on.database.insertReadings(block([{ value: 1 }, { metric: 'state', value: 'on' }]), 'log-0/0-1')
})
afterAll(() => on.close())

const CONNECTS = Object.entries(CLIENTS).flatMap(([client, queries]) => queries.map(query => [client, query] as const))

test('more than 60 statements are tried', () => {
  expect(CONNECTS.length + ANALYSTS.length).toBeGreaterThan(60)
})

test.each(CONNECTS)('%s asks %s', async (_, query) => {
  for (const path of ['/', '/?database=default&default_format=Native']) {
    const answer = await raw(on.url, { method: 'POST', path, body: query })
    expect(answer).toMatchObject({ status: 200, broken: false })
    expect(answer.text).not.toContain('__exception__')
  }
})

test.each(ANALYSTS)('an analyst asks %s', async query => {
  const answer = await raw(on.url, { method: 'POST', path: '/', body: query })
  expect(answer.status === 200 ? '' : answer.text).toBe('')
  expect(answer.text).not.toContain('__exception__')
})

test.each(ADDRESSES)('a client asks with %s', async query => {
  const answer = await raw(on.url, { method: 'POST', path: `/?${query}`, body: 'SELECT 1' })
  expect(answer.status).toBe(200)
})

describe('what the engine has', () => {
  /** A new engine brings new names: this fails until somebody has judged them for `analyst-names.ts` and `analyst-settings.ts`. */
  test.runIf(judgedEngineHere).each([
    ['functions', 'system.functions', '8ee95478e26a9eca'],
    ['table functions', 'system.table_functions', '3da5be3bfc6ffa6f'],
    ['settings', 'system.settings', '92b4346cb208ac39'],
    ['tables of system', "system.tables WHERE database = 'system'", 'f98b6a009f309953'],
  ])('are the %s that were judged', async (_, from, hash) => {
    const names = await scalar(
      on.writer,
      `SELECT arrayStringConcat(arraySort(groupArray(name)), ' ') FROM (SELECT name FROM ${from})`,
    )
    expect(createHash('sha256').update(String(names)).digest('hex').slice(0, 16)).toBe(hash)
  })

  test('are all settings that analysts may choose, and none of them a text but those that are shown only', async () => {
    const found = await rows(on.writer, 'SELECT name, type FROM system.settings')
    const types = new Map(found as [string, string][])
    const texts = SETTINGS_ALLOWED.filter(name => types.get(name) === 'String')
    expect(SETTINGS_ALLOWED.filter(name => !types.has(name))).toEqual([])
    expect(texts.sort()).toEqual([
      'bool_false_representation',
      'bool_true_representation',
      'format_csv_null_representation',
      'format_tsv_null_representation',
      'log_comment',
      // Of a choice.
      'output_format_pretty_grid_charset',
    ])
  })

  test('are all tables of system that analysts may read', async () => {
    const found = await rows(on.writer, "SELECT name FROM system.tables WHERE database = 'system'")
    const names = new Set(found.map(([name]) => name))
    expect([...SYSTEM_TABLES_ALLOWED].filter(name => !names.has(name))).toEqual([])
  })
})
