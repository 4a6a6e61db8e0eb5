/**
 * Writes to the sessions' environment, many to a commit: all that is asked while one is under way goes into the next.
 * Of two writes under one name only the later one is made. A commit takes so many that its turn stays short.
 */
import { SurgetankError } from '../errors.ts'
import type { Db, Env } from '../pump/lmdb-env.ts'
import { within } from '../within.ts'

/** Called when the commit begins; null removes what is there. */
export type Make = () => Uint8Array | null

export interface Commits {
  /**
   * Durable when it resolves. Rejects with `sessions_unavailable` when it is not, within two seconds; it may be yet. `again`: one
   * that fails is made again until it is through, or replaced.
   */
  put(name: string, make: Make, again?: boolean): Promise<void>
  /** With the next commit, or within a second. One that fails is made again, too. */
  putSoon(name: string, make: Make): void
  /** What is asked and not yet durable: null for a removal, undefined when there is nothing. */
  newest(name: string): Make | undefined
  /** False from a commit that failed, or was late, to one that did not. */
  readonly healthy: boolean
  /** After what was asked before. */
  close(): Promise<void>
}

export const PUTS_OF_A_COMMIT = 2_000
const WAIT_MS_MAX = 2_000
const SOON_MS = 1_000
/** What a put takes on disk beside its bytes, about. */
const PUT_BYTES = 256

interface Put {
  readonly make: Make
  /** What is made again after a failure. */
  readonly again: Make | null
  readonly waiting: Waiting[]
}

interface Waiting {
  resolve(): void
  reject(error: unknown): void
}

export function openCommits(env: Env, keyOf: (name: string) => Uint8Array): Commits {
  const next = new Map<string, Put>()
  let underWay = new Map<string, Put>()
  let running: Promise<void> | null = null
  let soon: NodeJS.Timeout | null = null
  let healthy = true
  let closed = false

  return {
    put,
    putSoon,
    newest: name => (next.get(name) ?? underWay.get(name))?.make,
    get healthy() {
      return healthy
    },
    close,
  }

  async function put(name: string, make: Make, again = false): Promise<void> {
    const { again: before = null, waiting = [] } = next.get(name) ?? {}
    const made = new Promise<true>((resolve, reject) => waiting.push({ resolve: () => resolve(true), reject }))
    next.set(name, { make, again: again ? make : before, waiting })
    start()
    if ((await within(WAIT_MS_MAX, made)) === true) return
    healthy = false
    throw new SurgetankError('sessions_unavailable', `It was not on disk within ${WAIT_MS_MAX} ms.`)
  }

  function putSoon(name: string, make: Make): void {
    next.set(name, { make, again: make, waiting: next.get(name)?.waiting ?? [] })
    startSoon()
  }

  function startSoon(): void {
    if (closed) return
    soon ??= setTimeout(() => {
      soon = null
      start()
    }, SOON_MS)
  }

  /** What is asked in one turn of the event loop shares the first commit, too. */
  function start(): void {
    running ??= new Promise<void>(resolve => setImmediate(resolve)).then(run)
  }

  async function run(): Promise<void> {
    while (next.size > 0) {
      underWay = take()
      const failure = await commit(underWay).then(() => null, refusalOf)
      healthy = failure === null
      settle(underWay, failure)
      underWay = new Map()
      if (!healthy) break
    }
    running = null
    // After a failure there is a pause, unless somebody waits.
    if ([...next.values()].some(({ waiting }) => waiting.length > 0)) start()
    else if (next.size > 0) startSoon()
  }

  function take(): Map<string, Put> {
    const taken = new Map<string, Put>()
    for (const [name, put] of next) {
      if (taken.size === PUTS_OF_A_COMMIT) break
      taken.set(name, put)
      next.delete(name)
    }
    return taken
  }

  async function commit(puts: ReadonlyMap<string, Put>): Promise<void> {
    const made = [...puts].map(([name, { make }]) => [keyOf(name), make()] as const)
    const bytes = made.reduce((sum, [key, value]) => sum + key.length + (value?.length ?? 0) + PUT_BYTES, 0)
    await env.write(db => write(db, made), bytes)
  }

  function settle(puts: ReadonlyMap<string, Put>, failure: SurgetankError | null): void {
    for (const [name, { again, waiting }] of puts) {
      for (const { resolve, reject } of waiting) failure === null ? resolve() : reject(failure)
      if (failure !== null && again !== null && !next.has(name)) next.set(name, { make: again, again, waiting: [] })
    }
  }

  async function close(): Promise<void> {
    if (soon !== null) clearTimeout(soon)
    soon = null
    closed = true
    if (next.size > 0) start()
    while (running !== null) await running
  }
}

function refusalOf(error: unknown): SurgetankError {
  const why = error instanceof SurgetankError ? error.detail : String(error)
  return new SurgetankError('sessions_unavailable', why, error)
}

function write(db: Db, made: readonly (readonly [Uint8Array, Uint8Array | null])[]): void {
  for (const [key, value] of made) {
    if (value === null) db.removeSync(key)
    else db.putSync(key, value as Buffer)
  }
}
