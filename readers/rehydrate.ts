/**
 * What a reader merges: the newest readings from ClickHouse, and stretches of the log, by [G4] beside whatever ingest merges
 * meanwhile: the order does not matter.
 *
 * A rebuild notes the log's end first: all that is appended later is merged by the ingest that appended it. ClickHouse is
 * read last: a chunk of the tail that was removed before it could be read was committed by then, so ClickHouse has it, and
 * the replica that is asked is first made to fetch it. But nothing is begun that cannot be ended: the tail may be all that
 * the log holds, and is left alone while ClickHouse is away.
 */
import type { Database, LatestRow } from '../database/database.ts'
import { SurgetankError } from '../errors.ts'
import { type Message, parseLines } from '../model/message.ts'
import type { PumpView } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'

export interface Sources {
  readonly space: Space
  readonly database: Database
  readonly view: PumpView
}

/** A stretch of a partition: from `from` up to, not including, `end`. */
interface Stretch {
  readonly partition: number
  readonly from: number
  readonly end: number
}

/** What was merged. */
export interface Rebuilt {
  readonly metrics: number
  readonly messages: number
}

const READ = { chunksMax: 64, bytesMax: 4 << 20 }
/** More than what can lie between a message's append and its merge, and than what the clocks of two machines differ by. */
const MARGIN_MS = 60_000

/** Merges the whole state. Rejects when `stopped` fires; with `database_unavailable` before anything is read. */
export async function rebuildState(sources: Sources, stopped: AbortSignal): Promise<Rebuilt> {
  if (!(await unlessStopped(sources.database.ping(), stopped))) {
    throw new SurgetankError('database_unavailable', 'It does not answer, and most of the state is there.')
  }
  const places = await sources.view.places()
  const tails = places.map(({ partition, committed, end }) => ({ partition, from: committed, end }))
  const messages = await mergeLog(sources, tails, stopped)
  await unlessStopped(sources.database.catchUp(), stopped)
  const metrics = await mergeLatest(sources, stopped)
  return { metrics, messages }
}

/** A replay of the log: all that was appended since shortly before `since`, up to an end in each partition. */
export interface Replay {
  readonly since: number
  readonly ends: ReadonlyMap<number, number>
}

/**
 * Merges what was appended since shortly before `since`; where an earlier replay has covered that, only what came after
 * it. Throws the reason of `stopped` when it fires.
 */
export async function replaySince(
  sources: Sources,
  since: number,
  before: Replay | null,
  stopped: AbortSignal,
): Promise<Replay> {
  const { view } = sources
  const covered = before !== null && before.since <= since ? before : null
  const stretches: Stretch[] = []
  for (const { partition, end } of await view.places()) {
    const from = covered?.ends.get(partition) ?? (await view.positionAt(partition, since - MARGIN_MS))
    stretches.push({ partition, from, end })
  }
  await mergeLog(sources, stretches, stopped)
  const ends = new Map(stretches.map(({ partition, end }) => [partition, end]))
  return { since: covered?.since ?? since, ends }
}

async function mergeLog(
  { space, view }: Sources,
  stretches: readonly Stretch[],
  stopped: AbortSignal,
): Promise<number> {
  const merge = openMerge(space, stopped)
  let messages = 0
  for (const { partition, from: start, end } of stretches) {
    for (let from = start; from < end; ) {
      const chunks = await view.read(partition, from, READ)
      const last = chunks.at(-1)
      if (last === undefined) break
      // After the end it is ingest's to merge.
      for (const chunk of chunks.filter(({ position }) => position < end)) {
        await merge.next(parseLines(chunk.lines.toString('utf8'), chunk.format))
        messages += chunk.messages
      }
      from = last.position + 1
    }
  }
  await merge.end()
  return messages
}

async function mergeLatest({ space, database }: Sources, stopped: AbortSignal): Promise<number> {
  const merge = openMerge(space, stopped)
  let metrics = 0
  for await (const page of database.latest(stopped)) {
    await merge.next(page.flatMap(toMessages))
    metrics += page.length
  }
  await merge.end()
  return metrics
}

/** A ClickHouse that hangs must not hold up a stop. */
function unlessStopped<T>(promise: Promise<T>, stopped: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(stopped.reason)
    if (stopped.aborted) stop()
    stopped.addEventListener('abort', stop, { once: true })
    promise.then(resolve, reject).finally(() => stopped.removeEventListener('abort', stop))
  })
}

/** A reading that came late is not the newest, but its device was heard of when it came: a message without readings. */
function toMessages({ device, metric, ts, receivedAt, value, seenAt }: LatestRow): Message[] {
  const newest = { device, receivedAt, readings: [{ metric, ts, receivedAt, value, sentTs: ts }] }
  return seenAt > receivedAt ? [newest, { device, receivedAt: seenAt, readings: [] }] : [newest]
}

/** One batch settles in the space while the next one is read, and no more: a space never waits for a merge by itself. */
function openMerge(space: Space, stopped: AbortSignal) {
  let settling: Promise<void> = Promise.resolve()

  return { next, end }

  async function next(messages: readonly Message[]): Promise<void> {
    await end()
    await space.merge(messages)
    settling = space.settled()
    settling.catch(() => {})
  }

  async function end(): Promise<void> {
    stopped.throwIfAborted()
    await settling
  }
}
