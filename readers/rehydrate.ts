/**
 * The readers' work: rebuild the space after a start. The log's tail that is not yet in ClickHouse, then the newest readings
 * from ClickHouse, merged by [G4] beside whatever ingest merges meanwhile: the order does not matter.
 *
 * The log's end is noted first: all that is appended later is merged by ingest itself. ClickHouse is asked last: a chunk of
 * the tail that was removed before it could be read was committed by then, so ClickHouse has it.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Database, LatestRow } from '../database/database.ts'
import { type Message, parseLines } from '../model/message.ts'
import type { PartitionPlace, PumpView } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'

export interface RehydrateOptions {
  readonly space: Space
  readonly database: Database
  readonly view: PumpView
  /** ms since 1970 UTC, before the broker took connections: who was heard of since is the broker's to tell. */
  readonly startedAt: number
  readonly log: Logger
  readonly stopped: AbortSignal
}

const READ = { chunksMax: 64, bytesMax: 4 << 20 }
const RETRY_MS = 500

/** Rebuilds the state and marks the space warm. Tries for as long as ClickHouse is away; ends early only when stopped. */
export async function rehydrate(options: RehydrateOptions): Promise<void> {
  const { space, view, log, stopped } = options
  const since = performance.now()
  for (let failures = 0; !stopped.aborted; failures++) {
    try {
      const rebuild = await space.claimRebuild()
      if (rebuild === null) return
      const lines = await replayTails(await view.places(), options)
      const rows = await loadLatest(options)
      await rebuild.finish()
      log.info({ metrics: rows, messages: lines, ms: Math.round(performance.now() - since) }, 'the state is rebuilt')
      return
    } catch (error) {
      if (failures % 20 === 10) log.warn({ err: error }, 'the state cannot be rebuilt yet')
      await pause(RETRY_MS, undefined, { signal: stopped }).catch(() => {})
    }
  }
}

async function loadLatest({ database, space, startedAt, stopped }: RehydrateOptions): Promise<number> {
  let rows = 0
  for await (const page of database.latest()) {
    if (stopped.aborted) return rows
    await space.merge(page.map(toMessage))
    // A reading that came late is not the newest, but its device was heard of when it came.
    await space.mergePresence(
      page
        .filter(({ seenAt }) => seenAt < startedAt)
        .map(({ device, seenAt }) => ({ device, online: false, at: seenAt })),
    )
    rows += page.length
  }
  return rows
}

function toMessage({ device, metric, ts, receivedAt, value }: LatestRow): Message {
  return { device, receivedAt, readings: [{ metric, ts, value, sentTs: ts }] }
}

async function replayTails(partitions: readonly PartitionPlace[], options: RehydrateOptions): Promise<number> {
  let messages = 0
  for (const { partition, committed, end } of partitions) {
    for (let from = committed; from < end && !options.stopped.aborted; ) {
      const chunks = await options.view.read(partition, from, READ)
      const last = chunks.at(-1)
      if (last === undefined) break
      for (const chunk of chunks) {
        // After the end it is ingest's to merge.
        if (chunk.position >= end) break
        await options.space.merge(parseLines(chunk.lines.toString('utf8')))
        messages += chunk.messages
      }
      from = last.position + 1
    }
  }
  return messages
}
