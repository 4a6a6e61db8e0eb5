/** Rollups against readings on the real engine [G7], with rows from before they counted by source, and while others insert. */
import { createClient } from '@clickhouse/client'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import type { Database } from '../../database/database.ts'
import { compareRollups } from '../../manager/verify-rollups.ts'
import type { PartitionPlace } from '../../pump/pump.ts'
import { block, type Fixture, held, openFixture } from '../database/database-fixture.ts'
import { insertOld, makeOld } from '../database/old-database.ts'

let on: Fixture
let database: Database
beforeAll(async () => {
  on = await openFixture()
  await makeOld(on, 'telemetry', 1)
  database = openDatabase(on.access)
  await insertOld(on, 'telemetry', readings(5), 'log/0', 0)
  await database.migrate()
  await database.insertReadings(block(readings(7), 'log/0', 1), 'log/0/1-2')
  await database.insertReadings(block([...readings(11), { value: 'text' }], 'log/1', 0), 'log/1/0-1')
})
afterAll(async () => {
  await database.close()
  await on.close()
})

const readings = (count: number) => Array.from({ length: count }, (_, value) => ({ value }))

function viewOf(...plans: (number | null)[]) {
  const places = plans.map(
    (to, partition): PartitionPlace => ({
      partition,
      source: `log/${partition}`,
      first: 0,
      end: 2,
      committed: 1,
      plan: to === null ? null : { to, mode: 'whole' },
    }),
  )
  return { places: async () => places }
}

it('finds as many numbers in the rollups as in the readings, also of rows from before they were counted by source', async () => {
  expect(await compareRollups(viewOf(null, null), database)).toEqual([
    { table: 'minutely', readings: 23, expected: 23, sourcesWrong: 0 },
    { table: 'hourly', readings: 23, expected: 23, sourcesWrong: 0 },
  ])
})

it('waits for the insert of another writer that is half-way, and does not take it for a difference', async () => {
  const range = { source: 'log/1', from: 1, to: 2 }
  await database.restoreReadings(block(readings(3), 'log/1', 1), range, held)
  const repaired = new Promise<number>(resolve => setTimeout(() => resolve(database.repairDerived(range, held)), 400))
  const verdict = await compareRollups(viewOf(null, 2), database)
  expect(await repaired).toBeGreaterThan(0)
  expect(verdict.map(({ readings, expected }) => readings - expected)).toEqual([0, 0])
})

it('sees a rollup that lacks readings of a source, and one that has too many of another', async () => {
  const client = createClient({
    url: on.server.url,
    username: on.server.user,
    password: on.server.password,
    database: 'telemetry',
  })
  const add = (rows: string) =>
    client.command({
      query: `INSERT INTO telemetry_internal.readings_1h (metric, device, bucket, readings, by_source) VALUES ${rows}`,
      clickhouse_settings: { async_insert: 0 },
    })
  await add("('m', 'd', 0, 2, map('log/0', 2))")
  expect((await compareRollups(viewOf(null, null), database))[1]).toEqual({
    table: 'hourly',
    readings: 28,
    expected: 26,
    sourcesWrong: 1,
  })
  // As many too few of another source must not make up for it.
  await database.restoreReadings(block(readings(2), 'log/9', 0), { source: 'log/9', from: 0, to: 1 }, held)
  const verdict = await compareRollups(viewOf(null, null), database)
  expect(verdict).toEqual([
    { table: 'minutely', readings: 26, expected: 28, sourcesWrong: 1 },
    { table: 'hourly', readings: 28, expected: 28, sourcesWrong: 2 },
  ])
  await client.close()
})
