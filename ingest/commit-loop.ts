/**
 * The commit loop: takes parts in order, one append in flight, and hands each on only when it is durable [G1].
 *
 * What was durable before, repetitions only, is handed on without an append; that they came is in the tally, which the next
 * append takes along, or one of its own a second later.
 *
 * A part that the log does not take is tried again, the very same part, after a growing pause, until the log takes it or
 * the loop is closed: nothing is given up and nothing is acknowledged meanwhile [G5]. What waits is bounded by the caller,
 * which tells the broker to stop reading.
 */
import { hasFate, type SurgetankError } from '../errors.ts'
import { metrics } from '../metrics.ts'
import type { PumpInlet } from '../pump/pump.ts'
import { within } from '../within.ts'
import { openLineMemory, Part } from './part.ts'
import type { Tally } from './tally.ts'

/** The part of a pino logger that ingest uses. */
export interface IngestLog {
  info(fields: object, sentence: string): void
  warn(fields: object, sentence: string): void
  error(fields: object, sentence: string): void
}

export interface CommitLoopOptions<Held> {
  readonly pump: Pick<PumpInlet, 'append'>
  readonly tally: Tally
  readonly log: IngestLog
  /** ms from any start, for durations. */
  readonly clock: () => number
  /** The part is durable. */
  readonly committed: (part: Part<Held>) => void
  /** `stalled` changed. */
  readonly stalledChanged: () => void
  /** The log failed for good (fate `stop`): nothing more is appended or acknowledged, and the process must end. */
  readonly failed: (error: SurgetankError) => void
}

export interface CommitLoop<Held> {
  /** The part that takes the next message of this day and size. A commit is on its way when this returns. */
  partFor(receivedAt: number, bytes: number): Part<Held>
  /** True while the log refuses appends. */
  readonly stalled: boolean
  /**
   * When the oldest message came that is to be stored and is not known to be durable, ms; null when there is none. After
   * `close`, of what the append in flight was to store and may have stored.
   */
  readonly oldestAt: number | null
  /** Begins an append for what is in the tally, unless one is under way anyway. */
  keepTally(): void
  /**
   * Ends after the append in flight, and one more for what is in the tally unless the log takes nothing; parts not yet durable are
   * dropped, unacknowledged.
   */
  close(): Promise<void>
}

const RETRY_MS_MIN = 50
const RETRY_MS_MAX = 1_000
/** An append that takes longer says nothing of when it will end: what waits must not grow, and somebody should know. */
const SLOW_MS = 2_000
/** An end waits no longer for what only counts. */
const REST_MS_MAX = 1_000

export function openCommitLoop<Held>(options: CommitLoopOptions<Held>): CommitLoop<Held> {
  const { pump, tally, log, clock } = options
  const memory = openLineMemory()
  let parts: Part<Held>[] = []
  /** The part whose append is in flight, or ended in doubt with the loop. */
  let current: Part<Held> | null = null
  /** Parts are taken one after another; `ended` is when the last one was. */
  let running = false
  let ended: Promise<void> = Promise.resolve()
  let nextTurn: NodeJS.Immediate | null = null
  let stalled = false
  let closed = false
  let endPause = () => {}

  return {
    partFor,
    get stalled() {
      return stalled
    },
    get oldestAt() {
      return current?.oldestAt ?? parts.find(part => part.oldestAt !== null)?.oldestAt ?? null
    },
    keepTally,
    close,
  }

  function partFor(receivedAt: number, bytes: number): Part<Held> {
    if (!running && nextTurn === null) nextTurn = setImmediate(begin)
    const last = parts.at(-1)
    if (last?.isLarge && nextTurn !== null) begin()
    else if (last?.hasRoom(receivedAt, bytes)) return last
    return openPart()
  }

  function openPart(): Part<Held> {
    const part = new Part<Held>(memory.take())
    parts.push(part)
    return part
  }

  function keepTally(): void {
    if (tally.isEmpty || closed || running || nextTurn !== null) return
    openPart()
    begin()
  }

  /**
   * In the next turn, so that the packets of all sockets that became readable together share a commit; at once when a part
   * is large, so that the disk is at work while the rest is still being read.
   */
  function begin(): void {
    if (nextTurn !== null) clearImmediate(nextTurn)
    nextTurn = null
    running = true
    ended = run()
  }

  async function run(): Promise<void> {
    while (!closed) {
      const part = parts.shift()
      if (part === undefined) break
      current = part
      tally.receive(part.held.length)
      tally.repeat(part.repetitions, part.repeated)
      // What repetitions repeat was taken by an earlier append, and those have all resolved.
      if (!(part.isDurable && part.held.length > 0) && !(await commit(part))) break
      current = null
      options.committed(part)
      memory.giveBack(part.lines)
    }
    running = false
  }

  /** True when the part is durable; false when the loop was closed before. */
  async function commit(part: Part<Held>): Promise<boolean> {
    const batch = part.batch(tally)
    for (let pauseMs = RETRY_MS_MIN; !closed; pauseMs = Math.min(pauseMs * 2, RETRY_MS_MAX)) {
      const start = clock()
      const slow = setTimeout(hangs, SLOW_MS)
      try {
        await pump.append(batch)
        metrics.commitSeconds.observe((clock() - start) / 1000)
        recover()
        return true
      } catch (error) {
        if (hasFate(error, 'stop')) giveUp(error)
        else fail(error)
      } finally {
        clearTimeout(slow)
      }
      if (!closed) await pause(pauseMs)
    }
    return false
  }

  function hangs(): void {
    log.warn({ ms: SLOW_MS }, 'the log does not answer; nothing is acknowledged until it does')
    stall()
  }

  function fail(error: unknown): void {
    metrics.logErrors.inc()
    if (!hasFate(error, 'retry'))
      log.error({ err: error }, 'the log failed in a way that is not known; the same batch is tried again')
    else if (!stalled) log.warn({ err: error }, 'the log takes nothing; nothing is acknowledged until it does')
    stall()
  }

  function stall(): void {
    if (stalled) return
    stalled = true
    options.stalledChanged()
  }

  /** What the append did is unknown, or the log is another's by now: to go on would be to guess. */
  function giveUp(error: SurgetankError): void {
    closed = true
    options.failed(error)
  }

  function recover(): void {
    if (!stalled) return
    stalled = false
    log.info({}, 'the log takes readings again')
    options.stalledChanged()
  }

  function pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ms)
      endPause = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  async function close(): Promise<void> {
    closed = true
    endPause()
    await ended
    parts = []
    if (current === null && !tally.isEmpty) await keepRest()
  }

  /** Of what is durable and acknowledged only its count is at stake: it is tried once, and not for long. */
  async function keepRest(): Promise<void> {
    const kept = pump.append(new Part(memory.take()).batch(tally)).then(
      () => null,
      (error: unknown) => error,
    )
    const error = await within(REST_MS_MAX, kept)
    if (error !== null)
      log.warn({ err: error }, 'the log did not take the last counts of messages; its books lack them')
  }
}
