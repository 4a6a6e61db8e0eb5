/** Waiting for a partition to grow: one question for all partitions that somebody waits for, a few times a second. */
import type { KafkaReader } from './kafka-reader.ts'

export interface EndWatch {
  /** Resolves when the partition ends after `position`, after `waitMs`, or by the signal. Never rejects: Kafka away is no news. */
  wait(
    partition: number,
    position: number,
    until: { readonly waitMs: number; readonly signal: AbortSignal },
  ): Promise<void>
  /** The end as it was last asked for; 0 before. */
  known(partition: number): number
  close(): void
}

const ASK_MS = 50

interface Waiter {
  readonly partition: number
  readonly position: number
  readonly done: () => void
}

export function openEndWatch(reader: Pick<KafkaReader, 'ends'>): EndWatch {
  const ends = new Map<number, number>()
  const waiters = new Set<Waiter>()
  let timer: NodeJS.Timeout | null = null

  return { wait, known: partition => ends.get(partition) ?? 0, close }

  function wait(
    partition: number,
    position: number,
    { waitMs, signal }: { readonly waitMs: number; readonly signal: AbortSignal },
  ): Promise<void> {
    if (signal.aborted || (ends.get(partition) ?? 0) > position) return Promise.resolve()
    return new Promise(resolve => {
      const waiter = { partition, position, done }
      const late = setTimeout(done, waitMs)
      signal.addEventListener('abort', done, { once: true })
      waiters.add(waiter)
      timer ??= setTimeout(ask, 0)
      function done(): void {
        waiters.delete(waiter)
        clearTimeout(late)
        signal.removeEventListener('abort', done)
        resolve()
      }
    })
  }

  async function ask(): Promise<void> {
    try {
      const found = await reader.ends([...new Set(Array.from(waiters, ({ partition }) => partition))])
      for (const [partition, end] of found) ends.set(partition, end)
    } catch {
      // Asked again below; whoever waits has a limit.
    }
    for (const { partition, position, done } of waiters) if ((ends.get(partition) ?? 0) > position) done()
    timer = waiters.size > 0 ? setTimeout(ask, ASK_MS) : null
  }

  function close(): void {
    for (const { done } of waiters) done()
    if (timer !== null) clearTimeout(timer)
  }
}
