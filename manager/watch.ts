/** Does a server answer? Asked every few seconds, beside everything else: nobody waits for one that hangs. */
import type { Database } from '../database/database.ts'
import { metrics } from '../metrics.ts'
import type { Space } from '../space/space.ts'
import { within } from '../within.ts'

export interface Watch {
  /** By the last answer, or the lack of one. */
  readonly up: boolean
  close(): void
}

const EVERY_MS = 2_000
const ANSWER_MS_MAX = 1_500

export function watchDatabase(database: Pick<Database, 'ping'>): Watch {
  return openWatch(
    () => database.ping(),
    up => metrics.databaseUp.set(up ? 1 : 0),
  )
}

export function watchSpace(space: Pick<Space, 'counts'>): Watch {
  return openWatch(
    () => space.counts().then(() => true),
    () => {},
  )
}

function openWatch(answers: () => Promise<boolean>, told: (up: boolean) => void): Watch {
  let up = true
  let asking = false
  const timer = setInterval(() => void ask(), EVERY_MS)
  void ask()
  return {
    get up() {
      return up
    },
    close: () => clearInterval(timer),
  }

  async function ask(): Promise<void> {
    // The last question has not been answered: that is an answer.
    if (asking) return tell(false)
    asking = true
    const answered = answers().catch(() => false)
    void answered.then(() => (asking = false))
    tell((await within(ANSWER_MS_MAX, answered)) ?? false)
  }

  function tell(answers: boolean): void {
    up = answers
    told(answers)
  }
}
