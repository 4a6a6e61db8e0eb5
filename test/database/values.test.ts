/** [G3] and [G4] in ClickHouse: every value comes back as it was sent, and `latest` is the newest by the order of the model. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { LatestRow } from '../../database/database.ts'
import { openRowBlock } from '../../database/row-binary.ts'
import { isNewer, type Value } from '../../model/reading.ts'
import { block, type Fixture, type GivenRow, openFixture, RECEIVED_AT, rows, scalar } from './database-fixture.ts'

let on: Fixture
beforeAll(async () => {
  on = await openFixture()
  await on.database.migrate()
})
afterAll(() => on.close())

const VALUES: readonly Value[] = [
  0,
  -0,
  1,
  -1,
  0.1,
  21.5,
  1e308,
  -1e308,
  5e-324,
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  1e21,
  123456789.12345679,
  9007199254740993n,
  -9007199254740993n,
  18446744073709551616n,
  BigInt('9'.repeat(64)),
  true,
  false,
  null,
  '',
  ' ',
  'text',
  'a\nb\n\nc',
  'tab\tquote"\'`\\',
  '\0',
  'x\0y',
  '\u{1f600} \u00e9 \u4e2d',
  '\uffff',
  'null',
  '1',
  'x'.repeat(127),
  'x'.repeat(128),
  '\u00e9'.repeat(128),
]

async function latestOf(prefix: string): Promise<Map<string, LatestRow>> {
  const found = new Map<string, LatestRow>()
  for await (const page of on.database.latest()) {
    for (const row of page) if (row.device.startsWith(prefix)) found.set(`${row.device}/${row.metric}`, row)
  }
  return found
}

describe('[G3] a value', () => {
  const at = RECEIVED_AT - 5
  const given = VALUES.map((value, i): GivenRow => ({ device: 'values', metric: `m${i}`, sentTs: at, value }))
  beforeAll(() => on.database.insertReadings(block(given, 'values'), 'values'))

  test('comes back from history exactly, with its times', async () => {
    const points = await on.database.history(
      { device: 'values', metrics: null, from: 0, to: RECEIVED_AT, order: 'asc', limit: 1000 },
      null,
    )
    expect(points).toHaveLength(VALUES.length)
    for (const point of points) {
      expect(point.value).toBe(VALUES[Number(point.metric.slice(1))])
      expect(point).toMatchObject({ ts: at, receivedAt: RECEIVED_AT })
    }
  })

  test('comes back from the state exactly', async () => {
    const latest = await latestOf('values')
    for (const [i, value] of VALUES.entries()) expect(latest.get(`values/m${i}`)?.value).toBe(value)
  })

  test('is a number for SQL only when it is one', async () => {
    const query =
      "SELECT kind, count(), countIf(isNull(value)) FROM telemetry.readings WHERE device = 'values' GROUP BY kind ORDER BY kind"
    const kinds = await rows(on.analyst, query)
    const nulls = Object.fromEntries(kinds.map(([kind, all, none]) => [kind, [all, none]]))
    expect(nulls).toEqual({ number: [13, 0], integer: [4, 0], bool: [2, 0], string: [14, 14], null: [1, 1] })
    const views = await rows(
      on.analyst,
      "SELECT count() FROM telemetry.latest WHERE device = 'values' AND isNull(value) = (kind IN ('string', 'null'))",
    )
    expect(views).toEqual([[VALUES.length]])
  })

  test('keeps the time that the device gave, also when its clock was ahead', async () => {
    const ahead = RECEIVED_AT + 3_600_000_001
    // The last ms of the year 9999, as a log that held whole ms tells it.
    const far = Date.UTC(9999, 11, 31, 23, 59, 59, 999) * 1_000
    await on.database.insertReadings(
      block(
        [
          { device: 'clock', value: 1, sentTs: ahead },
          { device: 'clock', value: 2 },
          { device: 'clock', value: 3, sentTs: 946_684_800_000_001 },
          { device: 'clock', value: 4, sentTs: far },
        ],
        'clock',
      ),
      'clock',
    )
    const query =
      "SELECT toUnixTimestamp64Micro(ts), sent_ts, value FROM telemetry.readings WHERE device = 'clock' ORDER BY value"
    expect(await rows(on.analyst, query)).toEqual([
      [RECEIVED_AT, ahead, 1],
      [RECEIVED_AT, null, 2],
      [946_684_800_000_001, 946_684_800_000_001, 3],
      [RECEIVED_AT, expect.anything(), 4],
    ])
    const exact = "SELECT toString(sent_ts) FROM telemetry.readings WHERE device = 'clock' AND value = 4"
    expect(await scalar(on.analyst, exact)).toBe('253402300799999000')
  })

  test('keeps the time of a clock that stands in 1970', async () => {
    const given = [0, 1, 86_400_000_000].map((sentTs, value): GivenRow => ({ device: '1970', value, sentTs }))
    await on.database.insertReadings(block(given, '1970'), '1970')
    const query =
      "SELECT sent_ts, toUnixTimestamp64Micro(received_at) FROM telemetry.readings WHERE device = '1970' ORDER BY value"
    expect(await rows(on.analyst, query)).toEqual(given.map(({ sentTs }) => [sentTs, RECEIVED_AT]))
  })

  test('a block of many chunks of memory keeps each row whole', async () => {
    const count = 40_000
    const builder = openRowBlock()
    for (let i = 0; i < count; i++) {
      const reading = {
        metric: `m${i % 7}`,
        ts: RECEIVED_AT - i,
        receivedAt: RECEIVED_AT,
        value: i % 3 === 0 ? `\u00e9${i}` : i,
        sentTs: RECEIVED_AT - i,
      }
      builder.add({
        device: 'large',
        reading,
        source: 'large',
        position: 2 ** 40 + i,
        index: i,
      })
    }
    const large = builder.finish()
    expect(large.bytes.length).toBeGreaterThan(2)
    expect(large.bytes.reduce((sum, chunk) => sum + chunk.length, 0)).toBe(builder.bytes)
    await on.database.insertReadings(large, 'large')
    const query = `SELECT count(), countIf(value = source_index), countIf(value_str = concat('\u00e9', toString(source_index))), max(source_position) FROM telemetry.readings WHERE device = 'large'`
    const texts = Math.ceil(count / 3)
    expect(await rows(on.analyst, query)).toEqual([[count, count - texts, texts, 2 ** 40 + count - 1]])
  })
})

describe('[G4] the newest reading', () => {
  test('is the same as by isNewer, in every order of arrival, with ties of every kind', async () => {
    const moments = VALUES.filter(value => !Object.is(value, -0)).flatMap((value): GivenRow[] => [
      { value, sentTs: RECEIVED_AT - 1000 },
      { value, sentTs: RECEIVED_AT - 1000, receivedAt: RECEIVED_AT - 500 },
    ])
    const expected = new Map<string, Value>()
    const inserts: GivenRow[][] = [[], [], []]
    for (let device = 0; device < 60; device++) {
      const some = moments.filter((_, i) => ((i * 7919 + device * 104729) >>> 3) % 4 === 0)
      const given = some.map((row): GivenRow => ({ ...row, device: `tie-${device}` }))
      for (const [i, row] of given.entries()) inserts[(i * 31 + device * 17) % inserts.length]?.push(row)
      const newest = given
        .map(({ value, sentTs, receivedAt }) => ({ ts: sentTs ?? 0, receivedAt: receivedAt ?? RECEIVED_AT, value }))
        .reduce((best, one) => (isNewer(one, best) ? one : best))
      expected.set(`tie-${device}/temperature`, newest.value)
    }
    for (const [i, given] of inserts.entries()) {
      await on.database.insertReadings(block(i === 1 ? given.reverse() : given, 'ties', i), `tie-${i}`)
    }
    const latest = await latestOf('tie-')
    expect(latest.size).toBe(60)
    for (const [key, value] of expected) expect(latest.get(key)?.value).toBe(value)
    await on.writer.command({ query: 'OPTIMIZE TABLE telemetry_internal.state FINAL' })
    for (const [key, row] of await latestOf('tie-')) expect(row.value).toBe(expected.get(key))
  })

  test('is the newest in the view also while nothing is merged, whichever came first', async () => {
    await on.writer.command({ query: 'SYSTEM STOP MERGES telemetry_internal.state' })
    const orders = { rising: [1, 2, 3], falling: [3, 2, 1], between: [1, 3, 2] }
    for (const [device, order] of Object.entries(orders))
      for (const value of order) {
        const row = { device: `unmerged-${device}`, value, sentTs: RECEIVED_AT - 10_000 + value }
        await on.database.insertReadings(block([row], device, value), `${device}/${value}-${value + 1}`)
      }
    for (const device of Object.keys(orders))
      for (const filter of ['', ` WHERE device = 'unmerged-${device}'`]) {
        const view = `SELECT toUnixTimestamp64Micro(ts), toString(kind), value, value_str FROM telemetry.latest${filter}`
        const found = await rows(on.analyst, `SELECT * FROM (${view}) WHERE value = 3`)
        expect(found.length, view).toBe(filter === '' ? 3 : 1)
      }
    const latest = await latestOf('unmerged-')
    expect([...latest.values()].map(({ value, ts }) => [value, ts])).toEqual(
      Object.keys(orders).map(() => [3, RECEIVED_AT - 10_000 + 3]),
    )
    await on.writer.command({ query: 'SYSTEM START MERGES telemetry_internal.state' })
  })

  test('a late, older reading does not replace it', async () => {
    await on.database.insertReadings(
      block([{ device: 'late', value: 'new', sentTs: RECEIVED_AT - 10 }], 'late', 1),
      'late-1',
    )
    await on.database.insertReadings(
      block([{ device: 'late', value: 'old', sentTs: RECEIVED_AT - 99, receivedAt: RECEIVED_AT + 60_000 }], 'late', 2),
      'late-2',
    )
    expect((await latestOf('late')).get('late/temperature')?.value).toBe('new')
  })
})
