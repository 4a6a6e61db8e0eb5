/** A unit that appends batch after batch to a log, and what the log holds of them afterwards. */
import { setTimeout as pause } from 'node:timers/promises'
import { hasFate } from '../../errors.ts'
import type { Batch, PumpInlet, PumpView } from '../../pump/pump.ts'
import { batchOf, deferred, lineOf } from '../contracts/pump-samples.ts'

export const ALL = { chunksMax: 10_000, bytesMax: 64 << 20 }
/** Of a batch. */
export const LINES = 5

export interface Load {
  readonly count: number
  /** Resolves when so many batches were acknowledged. */
  acked(batches: number): Promise<void>
  /** Resolves with the lines that were acknowledged. */
  stop(): Promise<string[]>
}

/** Appends batch after batch, each until the log has it, as ingest does. */
export function startLoad(inlet: PumpInlet): Load {
  let count = 0
  let running = true
  let told = deferred<void>()
  const ended = append()
  return {
    get count() {
      return count
    },
    acked: async batches => {
      while (count < batches) await told.promise
    },
    stop: async () => {
      running = false
      await ended
      return Array.from({ length: count * LINES }, (_, number) => lineOf(number))
    },
  }

  async function append(): Promise<void> {
    while (running) {
      const batch = batchOf(count * LINES, LINES)
      while (!(await appended(batch))) await pause(20)
      count++
      told.resolve()
      told = deferred<void>()
      await pause(2)
    }
  }

  async function appended(batch: Batch): Promise<boolean> {
    try {
      await inlet.append(batch)
      return true
    } catch (error) {
      if (hasFate(error, 'retry')) return false
      throw error
    }
  }
}

export async function countLines(view: PumpView): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  for (const { partition, end } of await view.places()) {
    for (let at = 0; at < end; ) {
      const chunks = await view.read(partition, at, ALL)
      for (const { lines } of chunks) {
        for (const line of lines.toString().split('\n')) counts.set(line, (counts.get(line) ?? 0) + 1)
      }
      at = (chunks.at(-1)?.position ?? end) + 1
    }
  }
  return counts
}

export function onceEach(lines: readonly string[]): Map<string, number> {
  return new Map(lines.map(line => [line, 1]))
}
