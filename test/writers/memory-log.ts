/**
 * A log of several partitions in memory, with what writers need of it: claims that a newer one overtakes, commits that are
 * refused then, retention that cuts too much. It outlives the writers, as a log in another process does.
 *
 * All partitions hold readings of the same device, metric and minutes: their rows meet in the same buckets of each rollup.
 */
import { setMaxListeners } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../../errors.ts'
import { encodeLine } from '../../model/message.ts'
import type { Chunk, Claim, DeadLetter, Plan, PumpOutlet } from '../../pump/pump.ts'
import { accepted } from '../contracts/pump-samples.ts'

export const LOG_DAY = Date.UTC(2026, 10, 20, 12)
export const READINGS_PER_CHUNK = 20

export interface MemoryLog {
  append(partition: number, chunks: number): void
  /** An outlet that takes over the claims of these partitions, from whoever has them. */
  outlet(partitions: readonly number[]): PumpOutlet
  /** Only an overtaken claim that is `told` learns it by its signal; others learn it when they commit. */
  readonly told: { overtaken: boolean }
  /** Retention: chunks before `first` are gone. */
  cut(partition: number, first: number): void
  place(partition: number): Place
  /** The log loses all commits after this one. */
  setBack(partition: number, place: Place): void
  sourceOf(partition: number): string
  readonly commits: string[]
  /** Resolves when all that was appended is committed. */
  written(): Promise<void>
}

export interface Place {
  readonly position: number
  readonly plan: Plan | null
}

interface Partition {
  readonly chunks: Chunk[]
  first: number
  epoch: number
  position: number
  plan: Plan | null
  lost: AbortController
}

interface Readings {
  /** More than 0: each reading is a text of so many bytes instead of a number. */
  readonly textBytes: number
  readonly metricOf: (position: number, index: number) => string
}

export function openMemoryLog(partitions: number, given: Partial<Readings> = {}): MemoryLog {
  const readings = { textBytes: 0, metricOf: () => 'm', ...given }
  const all = Array.from(
    { length: partitions },
    (): Partition => ({ chunks: [], first: 0, epoch: 0, position: 0, plan: null, lost: new AbortController() }),
  )
  const commits: string[] = []
  const told = { overtaken: true }
  const sourceOf = (partition: number) => `memory/${partition}`
  return {
    append,
    outlet,
    told,
    cut: (partition, first) => {
      get(partition).first = first
    },
    place: partition => ({ position: get(partition).position, plan: get(partition).plan }),
    setBack: (partition, { position, plan }) => void Object.assign(get(partition), { position, plan }),
    sourceOf,
    commits,
    written,
  }

  function get(partition: number): Partition {
    const found = all[partition]
    if (found === undefined) throw new RangeError(`There is no partition ${partition}.`)
    return found
  }

  function append(partition: number, count: number): void {
    const { chunks } = get(partition)
    for (let left = count; left > 0; left--) chunks.push(makeChunk(partition, chunks.length, readings))
  }

  function outlet(claimed: readonly number[]): PumpOutlet {
    const stopping = new AbortController()
    setMaxListeners(0, stopping.signal)
    return {
      consume(work) {
        const works = claimed.map(partition => follow(partition, work, stopping.signal))
        const ended = Promise.all(works).then(() => {})
        return {
          ended,
          async stop() {
            stopping.abort()
            await ended
          },
        }
      },
      close: async () => {},
    }
  }

  /** Claims until stopped or overtaken; a failure of `work` is followed by another claim. */
  async function follow(
    partition: number,
    work: (claim: Claim) => Promise<void>,
    stopping: AbortSignal,
  ): Promise<void> {
    while (!stopping.aborted) {
      const { claim, overtaken, drop } = take(partition)
      stopping.addEventListener('abort', drop, { once: true })
      const failed = await work(claim).then(
        () => false,
        () => true,
      )
      stopping.removeEventListener('abort', drop)
      if (overtaken() || !failed) return
      await pause(5)
    }
  }

  function take(partition: number) {
    const state = get(partition)
    const lost = new AbortController()
    if (told.overtaken) state.lost.abort()
    state.lost = lost
    const epoch = ++state.epoch
    const claim: Claim = {
      partition,
      source: sourceOf(partition),
      get position() {
        return state.position
      },
      get plan() {
        return state.plan
      },
      lost: lost.signal,
      begins: async () => state.first,
      ends: async () => state.chunks.length,
      read: async (from, { chunksMax }) => state.chunks.slice(Math.max(from, state.first)).slice(0, chunksMax),
      wait,
      commit,
    }
    return { claim, overtaken: () => epoch !== state.epoch, drop: () => lost.abort() }

    async function wait(position: number, waitMs: number): Promise<void> {
      const deadline = performance.now() + waitMs
      while (state.chunks.length <= position && performance.now() < deadline && !lost.signal.aborted) await pause(2)
    }

    async function commit(position: number, plan: Plan | null, _letters: readonly DeadLetter[] = []): Promise<void> {
      await pause(0)
      if (epoch !== state.epoch) throw new SurgetankError('log_claim_lost', `${sourceOf(partition)} is of another.`)
      if (position < state.position) throw new RangeError('A position never goes back.')
      Object.assign(state, { position, plan })
      commits.push(`${partition}: ${position}${plan === null ? '' : ` to ${plan.to} ${plan.mode}`}`)
    }
  }

  async function written(): Promise<void> {
    while (all.some(({ chunks, position, plan }) => position < chunks.length || plan !== null)) await pause(5)
  }
}

function makeChunk(partition: number, position: number, { textBytes, metricOf }: Readings): Chunk {
  const at = LOG_DAY + position
  const readings = Array.from({ length: READINGS_PER_CHUNK }, (_, index) => {
    const ts = (LOG_DAY - ((position * READINGS_PER_CHUNK + index) % 300) * 1_000) * 1_000
    const value = textBytes > 0 ? 'x'.repeat(textBytes) : partition + position * 10 + index * 0.5
    // Each is an element of its own, because it has a time of its own.
    return { metric: metricOf(position, index), ts, receivedAt: at * 1_000 + index, value, sentTs: ts }
  })
  const lines = Buffer.from(encodeLine({ device: 'shared', receivedAt: at * 1_000, readings }))
  const counts = { ...accepted(1), readings: READINGS_PER_CHUNK, firstReceivedAt: at, lastReceivedAt: at }
  return { partition, position, ...counts, lines }
}
