/**
 * What to do when ClickHouse refuses: its error codes, sorted by what the caller must do, and their translation into ours.
 *
 * A batch must never become a dead letter for a fault of the server, and must never be tried for ever for a fault of a
 * row. So only codes that can only mean "this row" are poison, and a code that is not listed is tried again.
 * Numbers and names: src/Common/ErrorCodes.cpp of ClickHouse; the retried ones agree with the Kafka Connect sink.
 */
import { ClickHouseError } from '@clickhouse/client'
import { SurgetankError } from '../errors.ts'

export type ErrorClass = 'retry' | 'poison' | 'configuration'

/** Values that do not parse, convert or fit: bisect, and quarantine the row. */
const POISON = new Set([6, 20, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 128, 130, 131, 321, 349, 395, 469, 632])

/** The schema, the user, the settings or the statement are wrong: every batch would fail; an operator must act. */
const CONFIGURATION = new Set([16, 36, 44, 46, 47, 60, 62, 73, 81, 115, 192, 193, 194, 218, 497, 516, 692])

/** Who may not, rather than what is wrong with the statement. */
const ACCESS = new Set([192, 193, 194, 497, 516])

const TOO_MANY_PARTS = 252

/** The class of a ClickHouse error code. 252 has two meanings that only its message tells apart. */
export function classOf(code: number, message: string): ErrorClass {
  if (code === TOO_MANY_PARTS) return /too many partitions for single insert/i.test(message) ? 'poison' : 'retry'
  if (POISON.has(code)) return 'poison'
  return CONFIGURATION.has(code) ? 'configuration' : 'retry'
}

/** Whose statement failed: one of ours, or the text of somebody who asks. */
export type Author = 'ours' | 'theirs'

/**
 * Any failure of the client as one of our errors, the original as `cause`. Network failures, time-outs and answers
 * without a code are `retry`. A refused statement of somebody else is `invalid_request`, never a reason to stop.
 */
export function translateError(error: unknown, doing: string, author: Author = 'ours'): SurgetankError {
  if (error instanceof SurgetankError) return error
  if (!(error instanceof ClickHouseError)) {
    return new SurgetankError('database_unavailable', `${doing}: ${sentence(error)}`, error)
  }
  const code = Number(error.code)
  const detail = `${doing}: ${sentence(error)} (ClickHouse code ${error.code})`
  const kind = classOf(code, error.message)
  if (kind === 'retry') return new SurgetankError('database_unavailable', detail, error)
  if (author === 'theirs' && !ACCESS.has(code)) return new SurgetankError('invalid_request', detail, error)
  return new SurgetankError(kind === 'poison' ? 'database_refuses_rows' : 'database_misconfigured', detail, error)
}

/** The message, cut: ClickHouse repeats whole statements in some of them. */
function sentence(error: unknown): string {
  const message = error instanceof Error ? error.message || error.name : String(error)
  return message.replace(/\s+/g, ' ').trim().slice(0, 400)
}
