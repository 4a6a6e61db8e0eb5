/**
 * [G2] Several writers on one ClickHouse, each with partitions of its own, and a former owner that does not know it yet: on the
 * real engine, in a process that is killed. Nothing is lost, nothing is there twice, in the readings and in the rollups.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import type { Database } from '../../database/database.ts'
import { metrics } from '../../metrics.ts'
import { openWriter } from '../../writers/writer.ts'
import { block, type Fixture, held, openFixture, rows, scalar } from '../database/database-fixture.ts'
import { until } from '../waits.ts'
import { LOG_DAY, type MemoryLog, openMemoryLog, READINGS_PER_CHUNK } from './memory-log.ts'

let engine: Fixture
let log: MemoryLog
const opened: { stop(): Promise<void> }[] = []
const databases: Database[] = []

beforeEach(async () => {
  engine = await openFixture()
  await engine.database.migrate()
})

afterEach(async () => {
  for (const writer of opened.splice(0)) await writer.stop()
  for (const database of databases.splice(0)) await database.close()
  await engine.close()
})

describe('[G2] a former owner of a claim', () => {
  it('whose insert arrives late, after another settled and went on, adds nothing', async () => {
    log = openMemoryLog(1)
    log.told.overtaken = false
    log.append(0, 2)
    const frozen = freezeInserts(newDatabase())
    startWriter([0], frozen.database)
    await frozen.reached
    expect(log.place(0)).toEqual({ position: 0, plan: { to: 2, mode: 'whole' } })

    startWriter([0], newDatabase())
    log.append(0, 3)
    await log.written()
    await expectExact()
    await frozen.wake()
    await expectExact()
  })

  it('adds nothing either when the new one had to store the rows past their token', async () => {
    log = openMemoryLog(1)
    log.told.overtaken = false
    log.append(0, 2)
    const frozen = freezeInserts(newDatabase())
    startWriter([0], frozen.database)
    await frozen.reached
    // As a kill between the token's write and the part's rename leaves it.
    await frozen.send()
    await engine.writer.command({ query: 'ALTER TABLE telemetry.readings DELETE WHERE 1 SETTINGS mutations_sync = 1' })

    startWriter([0], newDatabase())
    await log.written()
    await expectExact()
    await frozen.wake()
    await expectExact()
  })

  it('fills no rollup a second time when it wakes in the middle of a repair', async () => {
    log = openMemoryLog(1)
    log.told.overtaken = false
    log.append(0, 2)
    const stopped = freezeInserts(newDatabase())
    const writer = startWriter([0], stopped.database)
    await stopped.reached
    await stopped.send()
    await writer.stop()
    await engine.writer.command({ query: 'TRUNCATE TABLE telemetry_internal.readings_1m' })
    await engine.writer.command({ query: 'TRUNCATE TABLE telemetry_internal.readings_1h' })

    const range = { source: log.sourceOf(0), from: 0, to: 2 }
    const waking = newDatabase()
    let asked = 0
    const late = async () => {
      // The second time it had its answer before it froze: the other one takes over, and repairs what both found lacking.
      if (++asked === 2) {
        startWriter([0], newDatabase())
        await log.written()
      }
    }
    await expect(waking.repairDerived(range, late)).rejects.toMatchObject({ code: 'database_unavailable' })
    expect(asked).toBe(2)
    await expectExact()
  })
})

describe('[G2] several writers at once', () => {
  it('lose nothing and store nothing twice, however often the engine is killed among their inserts', async () => {
    log = openMemoryLog(3)
    for (const partition of [0, 1, 2]) startWriter([partition], newDatabase())
    for (let kill = 0; kill < 6; kill++) {
      for (let feed = 0; feed < 8; feed++) {
        for (const partition of [0, 1, 2]) log.append(partition, 1 + (feed % 3))
        await pause(12 + kill * 3)
      }
      const before = log.commits.length
      engine.child.kill()
      for (const partition of [0, 1, 2]) log.append(partition, 1)
      await engine.restart()
      // Somebody is stored again before the next kill.
      while (log.commits.length < before + 6) await pause(5)
    }
    await log.written()
    await expectExact()
  })

  it('never take the half-way insert of another for something lacking', async () => {
    log = openMemoryLog(2)
    log.append(0, 3)
    startWriter([0], newDatabase())
    await log.written()
    const ofOther = { device: 'shared', metric: 'm', receivedAt: LOG_DAY }
    const half = block(
      Array.from({ length: 50 }, (_, i) => ({ ...ofOther, sentTs: LOG_DAY - i * 1_000, value: i })),
      'memory/1',
      0,
    )
    // Past the views: in the readings and not yet in the rollups, as an insert is for a moment.
    await engine.database.restoreReadings(half, { source: 'memory/1', from: 0, to: 1 }, held)
    for (const from of [0, 1, 2])
      expect(await engine.database.repairDerived({ source: 'memory/0', from, to: from + 1 }, held)).toBe(0)
    expect(await counts()).toMatchObject({ readings: 60 + 50, minutes: 60, hours: 60 })
    expect(await engine.database.repairDerived({ source: 'memory/1', from: 0, to: 1 }, held)).toBeGreaterThan(0)
    expect(await counts()).toMatchObject({ readings: 60 + 50, minutes: 60 + 50, hours: 60 + 50 })
  })

  it('settle while the others insert without a pause', async () => {
    log = openMemoryLog(3)
    for (const partition of [1, 2]) startWriter([partition], newDatabase())
    let feeding = true
    const feed = (async () => {
      while (feeding) {
        for (const partition of [1, 2]) log.append(partition, 1)
        await pause(5)
      }
    })()
    log.append(0, 3)
    const frozen = freezeInserts(newDatabase())
    const writer = startWriter([0], frozen.database)
    await frozen.reached
    await writer.stop()
    const gone = new AbortController()
    let running = true
    const slow = engine.writer
      .command({
        query:
          "INSERT INTO telemetry.readings (device) SELECT 'slow' FROM numbers(600) WHERE sleepEachRow(0.1) = 0 SETTINGS max_block_size = 1",
        clickhouse_settings: { async_insert: 0, insert_deduplication_token: 'memory/9/0-1' },
        abort_signal: gone.signal,
      })
      .catch(() => {
        running = false
      })
    startWriter([0], newDatabase())
    while (log.place(0).plan !== null || log.place(0).position < 3) await pause(5)
    expect(running).toBe(true)
    feeding = false
    gone.abort()
    await Promise.all([feed, slow])
    const sleeping = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%' AND query_kind = 'Insert'"
    await until(async () => (await scalar(engine.writer, sleeping)) === 0)
    for (const table of ['telemetry.readings', 'telemetry_internal.readings_1m', 'telemetry_internal.readings_1h'])
      await engine.writer.command({
        query: `ALTER TABLE ${table} DELETE WHERE device = 'slow' SETTINGS mutations_sync = 1`,
      })
    await log.written()
    await expectExact()
  })
})

describe('[G2] a log that forgot where the writers were', () => {
  it.each([
    ['at the end of a batch', { position: 10, plan: null }],
    ['with the plan that was open then', { position: 10, plan: { to: 15, mode: 'whole' } }],
    ['as if it were new', { position: 0, plan: null }],
  ] as const)('%s, long ago, makes them store nothing twice', async (_, place) => {
    log = openMemoryLog(1)
    await writeInTurn([10, 5, 7, 5])
    log.setBack(0, place)
    await writeInTurn([9])
    await expectExact()
  })

  it('and whose last insert was cut short: its rollups are filled, and no other is touched', async () => {
    log = openMemoryLog(1)
    await writeInTurn([10, 5, 7])
    const database = newDatabase()
    const cutShort: Database = {
      ...database,
      // Past the views, as a kill leaves it that comes between the readings and the rollups.
      async insertReadings(rowsOfBatch, token) {
        const [from = 0, to = 0] = token.split('/').at(-1)?.split('-').map(Number) ?? []
        await database.restoreReadings(rowsOfBatch, { source: log.sourceOf(0), from, to }, held)
      },
    }
    await writeInTurn([6], cutShort)
    log.setBack(0, { position: 10, plan: { to: 15, mode: 'whole' } })
    await writeInTurn([0])
    await expectExact()
  })

  it('together with the plan of an insert that still runs: its end is waited for', async () => {
    log = openMemoryLog(1)
    log.append(0, 2)
    const frozen = freezeInserts(newDatabase())
    const writer = startWriter([0], frozen.database)
    await frozen.reached
    await writer.stop()
    log.setBack(0, { position: 0, plan: null })
    const database = newDatabase()
    const waiting: Database = {
      ...database,
      async waitForInserts(source, signal) {
        await frozen.send()
        await database.waitForInserts(source, signal)
      },
    }
    log.append(0, 3)
    await writeInTurn([0], waiting)
    // Had nobody waited, it would arrive now, under a token that no plan of theirs has.
    await frozen.send()
    await expectExact()
  })

  /** So many chunks, all of them written, then the next. */
  async function writeInTurn(chunks: readonly number[], database = newDatabase()): Promise<void> {
    const writer = startWriter([0], database)
    for (const count of chunks) {
      log.append(0, count)
      await log.written()
    }
    await writer.stop()
  }
})

describe('[G5] a log that lost chunks before they were written', () => {
  it('is alarmed on; what is left of a plan is stored under its token, and the writer goes on', async () => {
    log = openMemoryLog(1)
    await openPlan({ chunks: 4, inserted: false })
    log.cut(0, 2)
    const before = await gone()
    startWriter([0], newDatabase())
    log.append(0, 1)
    await log.written()
    expect((await gone()) - before).toBe(2)
    expect(await counts()).toMatchObject({ readings: 3 * READINGS_PER_CHUNK, minutes: 3 * READINGS_PER_CHUNK })
  })

  it('holds nobody up when all of a plan is gone', async () => {
    log = openMemoryLog(1)
    await openPlan({ chunks: 3, inserted: false })
    log.append(0, 2)
    log.cut(0, 4)
    const before = await gone()
    startWriter([0], newDatabase())
    await log.written()
    expect(log.place(0)).toEqual({ position: 5, plan: null })
    // The plan's three, and one that was never planned.
    expect((await gone()) - before).toBe(4)
    expect(await counts()).toMatchObject({ readings: READINGS_PER_CHUNK, minutes: READINGS_PER_CHUNK })
  })

  it('is no loss when the plan was inserted before: nothing is stored twice, and rollups are completed', async () => {
    log = openMemoryLog(1)
    await openPlan({ chunks: 3, inserted: true })
    await engine.writer.command({ query: 'TRUNCATE TABLE telemetry_internal.readings_1m' })
    log.cut(0, 3)
    const before = await gone()
    startWriter([0], newDatabase())
    await log.written()
    expect((await gone()) - before).toBe(0)
    await expectExact()
  })

  /** As a writer leaves it that was killed right before or right after its insert. */
  async function openPlan({ chunks, inserted }: { chunks: number; inserted: boolean }): Promise<void> {
    log.append(0, chunks)
    const frozen = freezeInserts(newDatabase())
    const writer = startWriter([0], frozen.database)
    await frozen.reached
    if (inserted) await frozen.send()
    await writer.stop()
    expect(log.place(0)).toEqual({ position: 0, plan: { to: chunks, mode: 'whole' } })
  }

  async function gone(): Promise<number> {
    return (await metrics.logCut.get()).values[0]?.value ?? 0
  }
})

function newDatabase(): Database {
  const database = openDatabase(engine.access)
  databases.push(database)
  return database
}

function startWriter(partitions: readonly number[], database: Database) {
  const writer = openWriter({
    outlet: log.outlet(partitions),
    database,
    limits: { rowsMax: 200, bytesMax: 8 << 20 },
    batchAgeMsMax: 10,
    retryMsMin: 20,
    log: pino({ level: 'silent' }),
  })
  opened.push(writer)
  return writer
}

/** The first insert is held right before it is sent, as by SIGSTOP, until `wake`; the rest of the writer sees an endless call. */
function freezeInserts(database: Database) {
  let reach = () => {}
  const reached = new Promise<void>(resolve => {
    reach = resolve
  })
  let send: () => Promise<void> = async () => {}
  let wake = () => {}
  const awake = new Promise<void>(resolve => {
    wake = resolve
  })
  const frozen: Database = {
    ...database,
    async insertReadings(rowsOfBatch, token, signal) {
      send = () => database.insertReadings(rowsOfBatch, token)
      reach()
      await Promise.race([awake, new Promise(resolve => signal?.addEventListener('abort', resolve, { once: true }))])
      signal?.throwIfAborted()
      await send()
    },
  }
  return {
    database: frozen,
    reached,
    /** The insert, as the engine gets it. */
    send: () => send(),
    async wake(): Promise<void> {
      await send()
      wake()
    },
  }
}

async function counts() {
  const [found] = await rows(
    engine.writer,
    `SELECT count(), uniqExact(source, source_position, source_index), sum(value), (SELECT sum(readings) FROM telemetry_internal.readings_1m),
       (SELECT sum(readings) FROM telemetry_internal.readings_1h), (SELECT sum(value_sum) FROM telemetry_internal.readings_1h) FROM telemetry.readings`,
  )
  const [readings, places, sum, minutes, hours, sumOfHours] = (found ?? []).map(Number)
  return { readings, places, sum, minutes, hours, sumOfHours }
}

/** Every reading of the log once in the readings, and counted once by each rollup, for its source. */
async function expectExact(): Promise<void> {
  const expected: [string, number][] = []
  for (let partition = 0; partition < 3; partition++) {
    try {
      expected.push([log.sourceOf(partition), log.place(partition).position * READINGS_PER_CHUNK])
    } catch {
      break
    }
  }
  const total = expected.reduce((sum, [, readings]) => sum + readings, 0)
  const found = await counts()
  expect(found).toMatchObject({ readings: total, places: total, minutes: total, hours: total })
  expect(found.sumOfHours).toBe(found.sum)
  for (const [source, readings] of expected) {
    const [stored] = await rows(
      engine.writer,
      `SELECT (SELECT count() FROM telemetry.readings WHERE source = '${source}'), (SELECT sum(by_source['${source}']) FROM telemetry_internal.readings_1m),
         (SELECT sum(by_source['${source}']) FROM telemetry_internal.readings_1h)`,
    )
    expect(stored, source).toEqual([readings, readings, readings])
  }
}
