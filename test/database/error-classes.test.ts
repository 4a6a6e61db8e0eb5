/** What is done about each of ClickHouse's errors: only a row's own fault may ever make it a dead letter. */
import { ClickHouseError } from '@clickhouse/client'
import { describe, expect, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { ACCESS_DEFAULTS } from '../../database/database.ts'
import { classOf, translateError } from '../../database/error-classes.ts'
import { block } from './database-fixture.ts'

const RETRY = [
  3, 23, 74, 75, 107, 159, 160, 164, 173, 198, 201, 202, 203, 209, 210, 216, 225, 236, 241, 242, 243, 254, 265, 279,
  285, 286, 290, 297, 319, 369, 373, 394, 415, 416, 425, 439, 473, 574, 668, 735, 999, 1000,
]
const POISON = [6, 20, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 128, 130, 131, 321, 349, 395, 469, 632]
const CONFIGURATION = [16, 36, 44, 47, 60, 62, 73, 81, 115, 193, 194, 218, 497, 516, 692]

describe('the class of a code', () => {
  test.each([
    ['retry', RETRY],
    ['poison', POISON],
    ['configuration', CONFIGURATION],
  ] as const)('%s', (kind, codes) => {
    expect(codes.filter(code => classOf(code, 'message') !== kind)).toEqual([])
  })

  test('a code that nobody has listed is tried again', () => {
    expect(classOf(987_654, 'new in some version')).toBe('retry')
  })

  test('252 is a server that cannot keep up, or a block over too many partitions: its words tell', () => {
    expect(classOf(252, 'Too many parts (3001). Merges are processing significantly slower than inserts.')).toBe(
      'retry',
    )
    expect(classOf(252, 'Too many partitions for single INSERT block (more than 100).')).toBe('poison')
  })
})

describe('a failure of the client', () => {
  const refused = (code: string, message = 'x') => new ClickHouseError({ code, message, type: 'SOME_TYPE' })

  test.each([
    [new Error('connect ECONNREFUSED'), 'database_unavailable', 'retry'],
    [new Error('Timeout error.'), 'database_unavailable', 'retry'],
    [refused('241'), 'database_unavailable', 'retry'],
    [refused('117'), 'database_refuses_rows', 'reject'],
    [refused('60'), 'database_misconfigured', 'stop'],
    [refused('516'), 'database_misconfigured', 'stop'],
  ])('%s has a code and a fate of ours, and stays as the cause', (error, code, fate) => {
    expect(translateError(error, 'inserting')).toMatchObject({ code, fate, cause: error })
  })

  test("somebody else's faulty statement is their request, never a reason to stop", () => {
    expect(translateError(refused('62'), 'a query', 'theirs')).toMatchObject({
      code: 'invalid_request',
      fate: 'reject',
    })
    expect(translateError(refused('117'), 'a query', 'theirs')).toMatchObject({ code: 'invalid_request' })
    expect(translateError(refused('241'), 'a query', 'theirs')).toMatchObject({ code: 'database_unavailable' })
    expect(translateError(refused('516'), 'a query', 'theirs')).toMatchObject({ code: 'database_misconfigured' })
  })

  test('a database that is not there is one to try again, and no password is in the message', async () => {
    const database = openDatabase({
      url: 'http://127.0.0.1:1',
      user: 'surgetank',
      password: 'very-secret',
      ...ACCESS_DEFAULTS,
    })
    const error: unknown = await database.insertReadings(block([{ value: 1 }]), 't').catch(caught => caught)
    expect(error).toMatchObject({ code: 'database_unavailable', fate: 'retry' })
    expect(String((error as Error).message)).not.toContain('very-secret')
    expect(await database.ping()).toBe(false)
    await database.close()
  })
})
