/** Ends a statement whose client has gone: by a mark at its head, because chDB gives no query ids. */
import { randomUUID } from 'node:crypto'
import type { EngineConnection } from './engine.ts'
import { quote } from './engine-tokens.ts'

/** A statement may not be known to the engine yet when it is to be ended: asked again at this pace until it has ended. */
const KILL_EVERY_MS = 200

export interface Canceller {
  /**
   * Runs `work` with a mark that its statement must begin with; kills that statement when `gone` fires. Settles only
   * when `work` has: its connection must not be closed before.
   */
  during<Result>(gone: AbortSignal, work: (mark: string) => Promise<Result>): Promise<Result>
}

/** `control` is a connection of its own: one that runs a statement could not run the KILL. */
export function openCanceller(control: EngineConnection): Canceller {
  return { during }

  async function during<Result>(gone: AbortSignal, work: (mark: string) => Promise<Result>): Promise<Result> {
    const mark = `/*${randomUUID()}*/ `
    let timer: NodeJS.Timeout | null = null
    const kill = () => {
      // ASYNC: to wait for the end here would hold the only control connection.
      control.run(`KILL QUERY WHERE startsWith(query, ${quote(mark.trim())}) ASYNC`).catch(() => {})
    }
    const start = () => {
      kill()
      timer = setInterval(kill, KILL_EVERY_MS)
    }
    gone.addEventListener('abort', start, { once: true })
    try {
      gone.throwIfAborted()
      return await work(mark)
    } finally {
      gone.removeEventListener('abort', start)
      if (timer !== null) clearInterval(timer)
    }
  }
}
