/** A log and a space that a test drives by hand: each append and merge ends when the test says so. */
import type { IngestLog } from '../../ingest/commit-loop.ts'
import type { Message } from '../../model/message.ts'
import { LINE_FORMAT, type LineFormat } from '../../model/message.ts'
import type { Batch, Chunk, PumpInlet } from '../../pump/pump.ts'
import type { Space } from '../../space/space.ts'
import { accepted } from '../contracts/pump-samples.ts'

export interface Append {
  readonly batch: Batch
  /** Ends the append; resolves when ingest has taken notice. */
  succeed(): Promise<void>
  fail(error: unknown): Promise<void>
}

export interface HandPump extends Pick<PumpInlet, 'append' | 'tail' | 'appendedByOthers' | 'newestReceivedAt'> {
  /** Lines that another unit appends: given to the next look. */
  readonly byOthers: string[]
  /** The next append, as soon as ingest makes it. */
  next(): Promise<Append>
  /** Fails every append that is still under way, and those that follow. */
  giveUp(): void
  /** Appends made so far, and the most that were under way at one time. */
  readonly made: number
  readonly underWayMax: number
}

export interface HandLogBefore {
  /** Lines that the log held before, and of which format. */
  readonly tail?: readonly string[] | undefined
  readonly format?: LineFormat | undefined
  readonly newestReceivedAt?: number | undefined
}

export function openHandPump({ tail = [], format = LINE_FORMAT, newestReceivedAt = 0 }: HandLogBefore = {}): HandPump {
  const waiting: Append[] = []
  const takers: ((append: Append) => void)[] = []
  const open = new Set<Append>()
  const byOthers: string[] = []
  let underWayMax = 0
  let made = 0
  let givenUp = false

  return {
    append,
    byOthers,
    async *appendedByOthers() {
      if (byOthers.length > 0) yield [chunkOf(byOthers.splice(0))]
    },
    newestReceivedAt,
    tail: async () => (tail.length === 0 ? [] : [{ ...chunkOf(tail), format }]),
    next,
    giveUp: () => {
      givenUp = true
      for (const append of open) append.fail(new Error('given up'))
    },
    get made() {
      return made
    },
    get underWayMax() {
      return underWayMax
    },
  }

  function append(batch: Batch): Promise<void> {
    if (givenUp) return Promise.reject(new Error('given up'))
    made++
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): Promise<void> => {
        open.delete(taken)
        settle()
        return turn()
      }
      const taken: Append = { batch, succeed: () => end(resolve), fail: error => end(() => reject(error)) }
      open.add(taken)
      underWayMax = Math.max(underWayMax, open.size)
      const taker = takers.shift()
      if (taker === undefined) waiting.push(taken)
      else taker(taken)
    })
  }

  async function next(): Promise<Append> {
    return waiting.shift() ?? new Promise(resolve => takers.push(resolve))
  }
}

export interface HandSpace extends Pick<Space, 'merge' | 'claimMetric' | 'trackUnmerged'> {
  readonly merged: Message[]
  /** What ingest says when it is asked. */
  unmergedAt: () => number | null
  /** What the next claims answer. */
  answer: ReturnType<Space['claimMetric']>
  /** How the next merges end. */
  merging: () => Promise<void>
}

export function openHandSpace(onMerge: () => void = () => {}): HandSpace {
  const space: HandSpace = {
    merged: [],
    unmergedAt: () => null,
    trackUnmerged: oldestAt => {
      space.unmergedAt = oldestAt
    },
    answer: 'ok',
    merging: async () => {},
    claimMetric: () => space.answer,
    merge: messages => {
      onMerge()
      space.merged.push(...messages)
      return space.merging()
    },
  }
  return space
}

export interface HandLog extends IngestLog {
  readonly lines: string[]
  readonly fields: object[]
}

export function openHandLog(): HandLog {
  const lines: string[] = []
  const fields: object[] = []
  const write = (level: string) => (given: object, sentence: string) => {
    lines.push(`${level}: ${sentence}`)
    fields.push(given)
  }
  return { lines, fields, info: write('info'), warn: write('warn'), error: write('error') }
}

/** Lets everything that is ready run. */
export function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

function chunkOf(lines: readonly string[]): Chunk {
  const text = lines.map(line => `${line}\n`).join('')
  const head = { partition: 0, position: 0, firstReceivedAt: 0, lastReceivedAt: 0 }
  return { ...head, ...accepted(lines.length), readings: lines.length, lines: Buffer.from(text) }
}
