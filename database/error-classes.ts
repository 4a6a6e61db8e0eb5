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
const CONFIGURATION = new Set([16, 36, 44, 46, 47, 60, 62, 73, 81, 115, 192, 193, 194, 218, 497, 516, 692, 701])

/** Who may not, rather than what is wrong with the statement. */
const ACCESS = new Set([192, 193, 194, 497, 516])

const TOO_MANY_PARTS = 252

/** What an operator can do about it, where that is plain from the code. */
const ADVICE: Readonly<Record<number, string>> = {
  81: 'The database does not exist: start a part that may create it, or create it.',
  192: 'Check the user and the password that are set for ClickHouse.',
  193: 'Check the user and the password that are set for ClickHouse.',
  194: 'Set the password of the ClickHouse user.',
  225: 'The server has no ClickHouse Keeper, which replicated tables need: configure it, or name no cluster.',
  497: 'The ClickHouse user lacks a right: grant it, or set another user.',
  516: 'Check the user and the password that are set for ClickHouse.',
  701: 'Name a cluster of system.clusters, or none.',
}

/** A Keeper that is not configured, rather than one that is away. */
const NO_KEEPER = 225

/** Why a server is not who it should be, or what is spoken is not TLS: it stays so until somebody acts. */
const TLS_FAULTS = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'EPROTO',
  'HPE_INVALID_CONSTANT',
])

/** The class of a ClickHouse error code. 252 has two meanings that only its message tells apart. */
export function classOf(code: number, message: string): ErrorClass {
  if (code === TOO_MANY_PARTS) return /too many partitions for single insert/i.test(message) ? 'poison' : 'retry'
  if (POISON.has(code)) return 'poison'
  if (code === NO_KEEPER) return /without zookeeper/i.test(message) ? 'configuration' : 'retry'
  return CONFIGURATION.has(code) ? 'configuration' : 'retry'
}

/** The code that ClickHouse gave, also inside of an error of ours; null for an error without one. */
export function codeOf(error: unknown): number | null {
  const given = error instanceof SurgetankError ? error.cause : error
  return given instanceof ClickHouseError ? Number(given.code) : null
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
    const fault = (error as { code?: unknown } | null)?.code
    if (typeof fault === 'string' && TLS_FAULTS.has(fault)) return tlsFault(doing, fault, error)
    return new SurgetankError('database_unavailable', `${doing}: ${sentence(error)}`, error)
  }
  const code = Number(error.code)
  const advice = ADVICE[code] === undefined ? '' : ` ${ADVICE[code]}`
  const detail = `${doing}: ${sentence(error)} (ClickHouse code ${error.code})${advice}`
  const kind = classOf(code, error.message)
  if (kind === 'retry') return new SurgetankError('database_unavailable', detail, error)
  if (author === 'theirs' && !ACCESS.has(code)) return new SurgetankError('invalid_request', detail, error)
  return new SurgetankError(kind === 'poison' ? 'database_refuses_rows' : 'database_misconfigured', detail, error)
}

function tlsFault(doing: string, fault: string, error: unknown): SurgetankError {
  const advice =
    fault === 'EPROTO' || fault === 'ERR_SSL_WRONG_VERSION_NUMBER' || fault === 'HPE_INVALID_CONSTANT'
      ? 'The port speaks another protocol: https goes to the port for TLS, usually 8443, http to 8123.'
      : 'The certificate of the server is not trusted: set the certificate of its authority, or the name that it is made for.'
  return new SurgetankError('database_misconfigured', `${doing}: ${sentence(error)} (${fault}). ${advice}`, error)
}

/** The message, cut: ClickHouse repeats whole statements in some of them. */
function sentence(error: unknown): string {
  const message = error instanceof Error ? error.message || error.name : String(error)
  return message.replace(/\s+/g, ' ').trim().slice(0, 400)
}
