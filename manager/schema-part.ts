/**
 * Brings ClickHouse to the schema of this version beside everything else, and says how far it is: in the log, and for
 * `/readyz`. Devices are served meanwhile, their readings wait in the log; the writer begins when this is through.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { Database, MigrationStep } from '../database/database.ts'
import { hasFate, logFields, type SurgetankError } from '../errors.ts'

/** How the schema is, for `/readyz`. */
export interface SchemaState {
  readonly done: boolean
  /** What is under way; null before the first word, and where nothing had to be done. */
  readonly step: MigrationStep | null
  /** Why it cannot go on until an operator acts; tried again all the same. */
  readonly failure: SurgetankError | null
}

export interface SchemaPart {
  readonly state: SchemaState
  /** Resolves when it is there; rejects only once it is closed before. */
  readonly done: Promise<void>
  /** Resolves as soon as something is known: it is there, rows are being written anew, or a first try has failed. */
  readonly known: Promise<void>
  /** No further try; one under way ends with the database. */
  close(): void
}

const SAY_EVERY_MS = 10_000
const PAUSE_MS_MIN = 250
const PAUSE_MS_MAX = 5_000
/** Of what an operator must mend. */
const FAILED_PAUSE_MS = 30_000

export function openSchemaPart(database: Pick<Database, 'migrate'>, log: Logger): SchemaPart {
  const closing = new AbortController()
  const teller = openTeller(log)
  let failure: SurgetankError | null = null
  let isDone = false
  let tellKnown = () => {}
  const known = new Promise<void>(resolve => (tellKnown = resolve))
  const done = bring()
  done.catch(() => {})
  return {
    get state() {
      return { done: isDone, step: teller.step, failure }
    },
    done,
    known,
    close: () => closing.abort(),
  }

  async function bring(): Promise<void> {
    for (let waitMs = PAUSE_MS_MIN; ; waitMs = Math.min(waitMs * 2, PAUSE_MS_MAX)) {
      closing.signal.throwIfAborted()
      const error = await database.migrate(tell).then(
        () => null,
        (reason: unknown) => reason,
      )
      closing.signal.throwIfAborted()
      if (error === null) break
      failure = hasFate(error, 'stop') ? error : null
      const pauseMs = failure === null ? waitMs : FAILED_PAUSE_MS
      log[failure === null ? 'warn' : 'error'](
        { ...logFields(error), waitMs: pauseMs },
        'the schema is not brought to this version yet',
      )
      tellKnown()
      await pause(pauseMs, undefined, { signal: closing.signal })
    }
    failure = null
    isDone = true
    teller.end()
    tellKnown()
  }

  function tell(step: MigrationStep): void {
    failure = null
    teller.told(step)
    if (step.rowsAll > 0) tellKnown()
  }
}

/** Puts steps into the log: the first with what it means, then one in 10 s, and the end. */
export function openTeller(log: Logger) {
  let step: MigrationStep | null = null
  let saidAt = Number.NEGATIVE_INFINITY
  let rewrites = false
  return {
    get step() {
      return step
    },
    told,
    end,
  }

  function told(now: MigrationStep): void {
    if (step === null)
      log.info({ from: now.from, to: now.to }, 'the schema of ClickHouse is brought to another version')
    if (!rewrites && now.rowsAll > 0)
      log.warn(
        { from: now.from, to: now.to, rows: now.rowsAll },
        'all readings are written anew; new ones wait in the log until it is done. There is no way back but a copy',
      )
    rewrites ||= now.rowsAll > 0
    step = now
    if (performance.now() - saidAt < SAY_EVERY_MS) return
    saidAt = performance.now()
    const { from, to, what, rows, rowsAll, secondsLeft } = now
    log.info(
      { from, to, what, rows, rowsAll, percent: percentOf(now), secondsLeft },
      'the schema is being brought to this version',
    )
  }

  function end(): void {
    if (step !== null) log.info({ from: step.from, to: step.to, rows: step.rowsAll }, 'the schema has this version')
    step = null
  }
}

/** Whole percents; 100 only when all is done. */
export function percentOf({ rows, rowsAll }: Pick<MigrationStep, 'rows' | 'rowsAll'>): number {
  return rowsAll === 0 ? 0 : Math.floor((rows / rowsAll) * 100)
}
