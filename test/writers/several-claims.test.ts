/** [G5] One writer with the claims of many partitions: how many inserts are under way, and how much it holds, is bounded. */
import { setTimeout as pause } from 'node:timers/promises'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import type { Database, RowBlock, SourceRange } from '../../database/database.ts'
import { SurgetankError } from '../../errors.ts'
import { openTurns } from '../../writers/turns.ts'
import { openWriter, type WriterOptions } from '../../writers/writer.ts'
import { type MemoryLog, openMemoryLog } from './memory-log.ts'

const PARTITIONS = Array.from({ length: 12 }, (_, partition) => partition)
const CHUNK_TEXT_BYTES = 13_000

describe('a writer with twelve partitions', () => {
  it.each([
    ['two', {}, 2],
    ['as many as it is told', { insertsMax: 5 }, 5],
  ])('has %s inserts under way at one time', async (_, options, expected) => {
    const log = openMemoryLog(12)
    for (const partition of PARTITIONS) log.append(partition, 8)
    const { database, insertsMost } = countingDatabase()
    await writeAll(log, PARTITIONS, { database, limits: { rowsMax: 40, bytesMax: 1 << 20 }, ...options })
    expect(insertsMost()).toBe(expected)
  })

  it('plans batches of a twelfth of the bytes that one with a single partition plans', async () => {
    const limits = { rowsMax: 100_000, bytesMax: 24 << 20 }
    const most = async (partitions: readonly number[]) => {
      const log = openMemoryLog(12, { textBytes: CHUNK_TEXT_BYTES })
      for (const partition of partitions) log.append(partition, 20)
      const { database, blockBytesMost } = countingDatabase()
      await writeAll(log, partitions, { database, limits })
      return blockBytesMost()
    }
    const alone = await most([0])
    expect(alone).toBeGreaterThan(20 * 20 * CHUNK_TEXT_BYTES)
    const together = await most(PARTITIONS)
    expect(together).toBeLessThan(2.2 * 1024 * 1024)
    expect(together).toBeGreaterThan(1 << 20)
  })

  it('settles two open plans at one time', async () => {
    const log = openMemoryLog(12)
    for (const partition of PARTITIONS) log.append(partition, 2)
    const failing = countingDatabase()
    const first = openWriter({ ...options(log, PARTITIONS), database: failing.neverAnswering })
    while (PARTITIONS.some(partition => log.place(partition).plan === null)) await pause(2)
    await first.stop()
    const { database, settlingMost } = countingDatabase()
    await writeAll(log, PARTITIONS, { database, limits: { rowsMax: 100, bytesMax: 1 << 20 } })
    expect(settlingMost()).toBe(2)
  })

  it('counts refusals of each partition for itself: that others are taken says nothing about its rows', async () => {
    const log = openMemoryLog(2)
    log.append(0, 7)
    const { database } = countingDatabase()
    const refusing: Database = {
      ...database,
      async insertReadings(block, token, signal) {
        if (token.startsWith('memory/0/')) throw new SurgetankError('database_refuses_rows', 'for this test')
        await database.insertReadings(block, token, signal)
      },
    }
    const alarms: string[] = []
    const alarm = pino({ level: 'error' }, { write: line => void alarms.push(line) })
    const writer = openWriter({ ...options(log, [0, 1]), database: refusing, log: alarm })
    while (alarms.length === 0) {
      log.append(1, 1)
      await pause(2)
    }
    expect(alarms[0]).toMatch(/refuses schema or user/)
    expect(log.place(0).position).toBe(0)
    await writer.stop()
  })
})

describe('turns', () => {
  it('go to those who wait in their order, and a turn that is given up goes to nobody', async () => {
    const { take } = openTurns(1)
    const { signal } = new AbortController()
    const gaveUp = new AbortController()
    const order: string[] = []
    const end = await take(signal)
    const second = take(gaveUp.signal)
    const third = take(signal).then(endThird => {
      order.push('third')
      endThird()
    })
    gaveUp.abort()
    await expect(second).rejects.toThrow()
    end()
    end()
    await third
    const again = await take(signal)
    order.push('again')
    expect(order).toEqual(['third', 'again'])
    again()
    await expect(take(gaveUp.signal)).rejects.toThrow()
  })
})

function options(log: MemoryLog, partitions: readonly number[]) {
  const outlet = log.outlet(partitions)
  const limits = { rowsMax: 10_000, bytesMax: 1 << 20 }
  return { outlet, limits, batchAgeMsMax: 5, retryMsMin: 1, log: pino({ level: 'silent' }) }
}

async function writeAll(
  log: MemoryLog,
  partitions: readonly number[],
  given: Pick<WriterOptions, 'database' | 'limits'> & Partial<WriterOptions>,
): Promise<void> {
  const writer = openWriter({ ...options(log, partitions), ...given })
  await log.written()
  await writer.stop()
}

/** A ClickHouse that takes everything, a little later, and knows how much was asked of it at one time. */
function countingDatabase() {
  const most = { inserts: 0, settling: 0, bytes: 0 }
  let inserts = 0
  let settling = 0
  const database = {
    async insertReadings({ bytes }: RowBlock) {
      most.inserts = Math.max(most.inserts, ++inserts)
      most.bytes = Math.max(
        most.bytes,
        bytes.reduce((sum, part) => sum + part.length, 0),
      )
      await pause(10)
      inserts--
    },
    async waitForInserts() {
      await pause(10)
    },
    storedThrough: async ({ from }: SourceRange) => from,
    catchUp: async () => {},
    async countReadings() {
      most.settling = Math.max(most.settling, ++settling)
      await pause(10)
      return 1_000_000
    },
    storedReadings: async () => [],
    async repairDerived() {
      settling--
      return 0
    },
  } as unknown as Database
  const neverAnswering = {
    ...database,
    insertReadings: (_block: RowBlock, _token: string, signal?: AbortSignal) =>
      new Promise<void>((_, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
      }),
  } as unknown as Database
  return {
    database,
    neverAnswering,
    insertsMost: () => most.inserts,
    settlingMost: () => most.settling,
    blockBytesMost: () => most.bytes,
  }
}
