/** [G2] Exactly once into ClickHouse, as far as it is the database's part: tokens, rollups, state, ranges. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import { until } from '../waits.ts'
import { block, type Fixture, type GivenRow, held, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
})
afterAll(() => on.close())

/** Rows in readings, the sums of both rollups, and devices in the state. */
async function totals(device: string): Promise<unknown[]> {
  const where = `WHERE device = '${device}'`
  const [[readings, minutes, hours, state] = []] = await rows(
    on.writer,
    `SELECT (SELECT count() FROM telemetry.readings ${where}), (SELECT sum(readings) FROM telemetry_internal.readings_1m ${where}),
      (SELECT sum(readings) FROM telemetry_internal.readings_1h ${where}), (SELECT count() FROM telemetry.latest ${where})`,
  )
  return [readings, minutes, hours, state]
}

function readings(device: string, count: number): GivenRow[] {
  return Array.from({ length: count }, (_, i) => ({ device, sentTs: RECEIVED_AT - i * 1000, value: i }))
}

describe('[G2] one token', () => {
  test('twice stores one copy, in the readings, both rollups and the state', async () => {
    const rowsOfBatch = block(readings('twice', 100), 'twice')
    await on.database.insertReadings(rowsOfBatch, 'token-twice')
    await on.database.insertReadings(rowsOfBatch, 'token-twice')
    expect(await totals('twice')).toEqual([100, 100, 100, 1])
  })

  test('from three clients at once stores one copy', async () => {
    const rowsOfBatch = block(readings('at-once', 1000), 'at-once')
    await Promise.all([1, 2, 3].map(() => on.database.insertReadings(rowsOfBatch, 'token-at-once')))
    expect(await totals('at-once')).toEqual([1000, 1000, 1000, 1])
  })

  test('of another block with the same rows stores them again: the token decides, not the content', async () => {
    const same = readings('again', 10)
    await on.database.insertReadings(block(same, 'again'), 'token-a')
    await on.database.insertReadings(block(same, 'again'), 'token-b')
    expect((await totals('again'))[0]).toBe(20)
  })

  test('that outlived its rows drops them when they come again; restored past it, they are stored once, and the token stays', async () => {
    const rowsOfBatch = block(readings('outlived', 10), 'outlived', 4)
    const range = { source: 'outlived', from: 4, to: 5 }
    await on.database.insertReadings(rowsOfBatch, 'outlived/4-5')
    await on.writer.command({
      query: "ALTER TABLE telemetry.readings DELETE WHERE device = 'outlived' SETTINGS mutations_sync = 1",
    })
    await on.database.insertReadings(rowsOfBatch, 'outlived/4-5')
    expect(await totals('outlived')).toEqual([0, 10, 10, 1])
    for (let times = 0; times < 2; times++) {
      await on.database.restoreReadings(rowsOfBatch, range, held)
      expect(await totals('outlived')).toEqual([10, 10, 10, 1])
    }
    await on.database.insertReadings(rowsOfBatch, 'outlived/4-5')
    expect(await totals('outlived')).toEqual([10, 10, 10, 1])
    expect(await on.database.repairDerived(range, held)).toBe(0)
  })

  test('restores nothing for a claim that is lost in between, and what that left is removed by the next', async () => {
    const rowsOfBatch = block(readings('fenced', 10), 'fenced', 4)
    const range = { source: 'fenced', from: 4, to: 5 }
    let asked = 0
    const lost = async () => {
      if (++asked === 2) throw new SurgetankError('log_claim_lost', 'for this test')
    }
    const apart = "SELECT count() FROM system.tables WHERE database LIKE 'telemetry%' AND name LIKE 'repair%'"
    await expect(on.database.restoreReadings(rowsOfBatch, range, lost)).rejects.toMatchObject({
      code: 'log_claim_lost',
    })
    expect(await totals('fenced')).toEqual([0, 0, 0, 0])
    expect(await scalar(on.writer, apart)).toBe(1)
    await on.database.repairDerived(range, held)
    expect(await scalar(on.writer, apart)).toBe(0)
  })

  test('that a kill was about to forget does not leave the readings without tokens: the next start sets their number again', async () => {
    const rowsOfBatch = block(readings('half-forgotten', 10), 'half-forgotten')
    await on.writer.command({
      query: 'ALTER TABLE telemetry.readings MODIFY SETTING non_replicated_deduplication_window = 0',
    })
    on.child.kill()
    await on.restart()
    await on.database.migrate()
    await on.database.insertReadings(rowsOfBatch, 'token-half-forgotten')
    await on.database.insertReadings(rowsOfBatch, 'token-half-forgotten')
    expect(await totals('half-forgotten')).toEqual([10, 10, 10, 1])
  })

  test('an aborted insert rejects as one to try again, and the same token completes it', async () => {
    const rowsOfBatch = block(readings('aborted', 1000), 'aborted')
    const attempt = on.database.insertReadings(rowsOfBatch, 'token-aborted', AbortSignal.timeout(3))
    await attempt.catch(error => expect(error).toMatchObject({ code: 'database_unavailable', fate: 'retry' }))
    await on.database.insertReadings(rowsOfBatch, 'token-aborted')
    expect(await totals('aborted')).toEqual([1000, 1000, 1000, 1])
  })
})

describe('a range of the log', () => {
  beforeAll(async () => {
    for (const position of [5, 6, 7]) {
      await on.database.insertReadings(
        block([...readings('range', position), { device: 'range', value: 'text' }], 'ranges', position),
        `range-${position}`,
      )
    }
  })

  test('is counted from its first position up to, not including, its end', async () => {
    expect(await on.database.countReadings({ source: 'ranges', from: 5, to: 7 })).toBe(13)
    expect(await on.database.countReadings({ source: 'others', from: 5, to: 7 })).toBe(0)
    expect(await on.database.countByPosition({ source: 'ranges', from: 0, to: 100 })).toEqual(
      new Map([
        [5, 6],
        [6, 7],
        [7, 8],
      ]),
    )
    expect((await on.database.countBySource()).get('ranges')).toBe(21)
  })

  test('may begin and end within a chunk', async () => {
    const half = { source: 'ranges', from: 5, fromIndex: 4, to: 6, toIndex: 3 }
    expect(await on.database.countReadings(half)).toBe(5)
    expect(await on.database.storedReadings(half)).toEqual([
      [5, 4],
      [5, 5],
      [6, 0],
      [6, 1],
      [6, 2],
    ])
  })

  test('is listed row by row', async () => {
    expect(await on.database.storedReadings({ source: 'ranges', from: 5, to: 6 })).toEqual(
      [0, 1, 2, 3, 4, 5].map(index => [5, index]),
    )
  })
})

describe('[G2] waiting for the inserts of a source', () => {
  /** One that takes half a second for each row, as a client sends it that is gone since. */
  const slow = (token: string, readings: number, signal = new AbortController().signal) =>
    on.writer.command({
      query: `INSERT INTO telemetry.readings (device) SELECT '${token}' FROM numbers(${readings}) WHERE sleepEachRow(0.5) = 0 SETTINGS max_block_size = 1`,
      clickhouse_settings: { async_insert: 0, insert_deduplication_token: token },
      abort_signal: signal,
    })
  const running = async (token: string) =>
    (await scalar(
      on.writer,
      `SELECT count() FROM system.processes WHERE query LIKE '%${token}%' AND query_kind = 'Insert'`,
    )) === 1
  const under = (token: string) => until(() => running(token), `${token} is being inserted`)
  /** Has one of another source under way meanwhile, and ends it then. */
  async function beside(token: string, work: () => Promise<void>): Promise<void> {
    const gone = new AbortController()
    const insert = slow(token, 1_000, gone.signal).catch(() => {})
    await under(token)
    await work()
    expect(await running(token)).toBe(true)
    gone.abort()
    await insert
    await until(async () => !(await running(token)), `${token} has ended`)
  }
  const stored = (token: string) =>
    scalar(on.writer, `SELECT count() FROM telemetry.readings WHERE device = '${token}'`)

  test.each(['waited/0/0-1', 'waited/0/0-1/0.0-0.1'])('ends when the last has: %s', async token => {
    const insert = slow(token, 10)
    await under(token)
    await on.database.waitForInserts('waited/0')
    expect(await stored(token)).toBe(10)
    await insert
  })

  test('does not wait for those of other sources', () =>
    beside('waited/1/0-1', () => on.database.waitForInserts('waited/0')))

  test('is given up by its signal, as something to try again', () =>
    beside('waited/2/0-1', async () => {
      await expect(on.database.waitForInserts('waited/2', AbortSignal.timeout(100))).rejects.toMatchObject({
        code: 'database_unavailable',
        fate: 'retry',
      })
    }))
})
