/**
 * Writes to a store of sessions, many to a commit: all that is asked while one is under way goes into the next. Of two writes
 * under one name only the later one is made. A commit takes so many that its turn stays short.
 */
import { SurgetankError } from '../errors.ts'

export interface Commits<Value> {
  /**
   * Durable when it resolves. Rejects with `sessions_unavailable` when it is not, within two seconds; it may be yet. `make` is
   * called when the commit begins. `again`: one that fails is made again until it is through, or replaced.
   */
  put(name: string, make: () => Value, again?: boolean): Promise<void>
  /** With the next commit, or within a second. One that fails is made again, too. */
  putSoon(name: string, make: () => Value): void
  /** What is asked and not yet durable; undefined when there is nothing. */
  newest(name: string): (() => Value) | undefined
  /** What is asked under this name is not wanted any more, unless it is under way. */
  forget(name: string): void
  /** False from a commit that failed, or was late, to one that did not. */
  readonly healthy: boolean
  /** After what was asked before. */
  close(): Promise<void>
}

export interface CommitsOptions<Value> {
  /** Makes all of them durable, or rejects, with some of them durable perhaps. */
  readonly write: (puts: readonly (readonly [string, Value])[]) => Promise<void>
  /** The most that one commit takes. */
  readonly atOnce: number
}

/** Ticks and not the time count, so that a process that was busy, or stopped, does not refuse what it had no turn for. */
const TICK_MS = 100
const WAIT_TICKS_MAX = 20
const SOON_MS = 1_000

interface Put<Value> {
  readonly make: () => Value
  /** What is made again after a failure. */
  readonly again: (() => Value) | null
  readonly waiting: Waiting[]
}

interface Waiting {
  readonly sinceTick: number
  resolve(): void
  reject(error: unknown): void
}

export function openCommits<Value>({ write, atOnce }: CommitsOptions<Value>): Commits<Value> {
  const next = new Map<string, Put<Value>>()
  let underWay = new Map<string, Put<Value>>()
  let running: Promise<void> | null = null
  let soon: NodeJS.Timeout | null = null
  let healthy = true
  let closed = false
  let tick = 0
  let ticking: NodeJS.Timeout | null = null

  return {
    put,
    putSoon,
    newest: name => (next.get(name) ?? underWay.get(name))?.make,
    forget,
    get healthy() {
      return healthy
    },
    close,
  }

  function put(name: string, make: () => Value, again = false): Promise<void> {
    return new Promise((resolve, reject) => {
      const { again: before = null, waiting = [] } = next.get(name) ?? {}
      waiting.push({ resolve, reject, sinceTick: tick })
      next.set(name, { make, again: again ? make : before, waiting })
      start()
    })
  }

  /** Those that have waited long enough hear so; what they asked for goes on. */
  function countTick(): void {
    tick++
    for (const { waiting } of [...underWay.values(), ...next.values()]) {
      for (const { sinceTick, reject } of waiting) if (tick - sinceTick > WAIT_TICKS_MAX) refuse(reject)
    }
  }

  function refuse(reject: Waiting['reject']): void {
    healthy = false
    reject(new SurgetankError('sessions_unavailable', `It was not kept within ${TICK_MS * WAIT_TICKS_MAX} ms.`))
  }

  function putSoon(name: string, make: () => Value): void {
    next.set(name, { make, again: make, waiting: next.get(name)?.waiting ?? [] })
    startSoon()
  }

  function forget(name: string): void {
    for (const { resolve } of next.get(name)?.waiting ?? []) resolve()
    next.delete(name)
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
    ticking ??= setInterval(countTick, TICK_MS)
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
    if (ticking !== null) clearInterval(ticking)
    ticking = null
    // After a failure there is a pause, unless somebody waits.
    if ([...next.values()].some(({ waiting }) => waiting.length > 0)) start()
    else if (next.size > 0) startSoon()
  }

  function take(): Map<string, Put<Value>> {
    const taken = new Map<string, Put<Value>>()
    for (const [name, put] of next) {
      if (taken.size === atOnce) break
      taken.set(name, put)
      next.delete(name)
    }
    return taken
  }

  async function commit(puts: ReadonlyMap<string, Put<Value>>): Promise<void> {
    await write([...puts].map(([name, { make }]) => [name, make()] as const))
  }

  function settle(puts: ReadonlyMap<string, Put<Value>>, failure: SurgetankError | null): void {
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
