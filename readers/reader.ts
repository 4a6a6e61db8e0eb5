/** The reader: rebuilds the state where it is not warm. The door of this folder. */
import type { Logger } from 'pino'
import type { Database } from '../database/database.ts'
import type { PumpView } from '../pump/pump.ts'
import type { Space } from '../space/space.ts'
import { rehydrate } from './rehydrate.ts'

export interface ReaderOptions {
  readonly space: Space
  readonly database: Database
  readonly view: PumpView
  /** ms since 1970 UTC, before the broker took connections. */
  readonly startedAt: number
  readonly log: Logger
}

export function openReader(options: ReaderOptions): { close(): Promise<void> } {
  const stopped = new AbortController()
  const done = rehydrate({ ...options, stopped: stopped.signal })
  return {
    async close() {
      stopped.abort()
      await done
    },
  }
}
