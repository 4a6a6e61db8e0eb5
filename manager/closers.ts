/** What was opened, to be closed in the reverse order, whether a start fails half-way or a process ends. */
import type { Logger } from 'pino'

export interface Closers {
  add(close: () => unknown): void
  /** Closes everything once; a part that cannot be closed does not keep the others open. Calls at one time share it. */
  closeAll(): Promise<void>
}

export function openClosers(log: Logger): Closers {
  const steps: (() => unknown)[] = []
  let closing: Promise<void> | null = null
  return { add: close => void steps.push(close), closeAll: () => (closing ??= closeAll()) }

  async function closeAll(): Promise<void> {
    for (let close = steps.pop(); close !== undefined; close = steps.pop()) {
      try {
        await close()
      } catch (error) {
        log.warn({ err: error }, 'a part could not be closed')
      }
    }
  }
}
