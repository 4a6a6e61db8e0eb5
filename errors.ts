/**
 * The catalogue of errors: code, sentence, and the fate that the caller acts on, never the text.
 *
 * `retry`: it may work later; back off and do the same again.
 * `reject`: this input never works; quarantine it, or answer 4xx.
 * `stop`: an operator must act; exit, or refuse to start.
 */
export type Fate = 'retry' | 'reject' | 'stop'

export const ERRORS = {
  setting_unknown: { fate: 'stop', sentence: 'A setting that does not exist was given.' },
  setting_missing: { fate: 'stop', sentence: 'A part that several processes must share is still embedded in one.' },
  setting_conflict: { fate: 'stop', sentence: 'Two settings contradict each other.' },
  setting_invalid: { fate: 'stop', sentence: 'A setting has a value that it cannot take.' },
  data_dir_in_use: { fate: 'stop', sentence: 'Another surgetank runs on this data directory.' },
  data_dir_unusable: { fate: 'stop', sentence: 'The data directory cannot be written.' },
  no_socket_place: { fate: 'stop', sentence: 'There is no place for the sockets of the SQL engine.' },
  port_in_use: { fate: 'stop', sentence: 'A port that surgetank needs is taken.' },
  log_missing: { fate: 'stop', sentence: 'There is no log here yet.' },
  log_unavailable: { fate: 'retry', sentence: 'The log cannot be written at the moment.' },
  log_corrupt: { fate: 'stop', sentence: 'A chunk of the log does not match its checksum.' },
  log_misconfigured: { fate: 'stop', sentence: 'Kafka is not set up so that the log can be kept in it.' },
  log_cut: { fate: 'stop', sentence: 'The log no longer holds readings that were not yet in ClickHouse.' },
  log_replaced: { fate: 'stop', sentence: 'The topic of the log was deleted and made anew.' },
  log_newer: { fate: 'stop', sentence: 'The log was written by a newer surgetank.' },
  upgrade_order: { fate: 'stop', sentence: 'An older surgetank runs beside this one, and could not go on.' },
  older_beside: { fate: 'retry', sentence: 'An older surgetank runs beside this one; it may be about to end.' },
  log_claim_lost: { fate: 'retry', sentence: 'Another writer has taken over this part of the log.' },
  database_unavailable: { fate: 'retry', sentence: 'ClickHouse does not answer, or asks to wait.' },
  database_refuses_rows: { fate: 'reject', sentence: 'ClickHouse refuses rows of this batch.' },
  database_misconfigured: { fate: 'stop', sentence: 'ClickHouse refuses the schema, the user or the settings.' },
  database_changed: { fate: 'stop', sentence: 'A table of ClickHouse is not as any version of surgetank made it.' },
  database_no_room: { fate: 'stop', sentence: 'There is not enough room to bring the database to this version.' },
  database_newer: { fate: 'stop', sentence: 'The database was written by a newer surgetank.' },
  space_unavailable: { fate: 'retry', sentence: 'Redis does not answer, or asks to wait.' },
  space_refuses: { fate: 'reject', sentence: 'Redis refuses what was asked of it.' },
  space_misconfigured: { fate: 'stop', sentence: 'Redis cannot be used as it is set up.' },
  sessions_unavailable: { fate: 'retry', sentence: 'What a client holds cannot be kept at the moment.' },
  session_too_large: { fate: 'reject', sentence: 'A client holds more than is kept of it.' },
  walls_lost: { fate: 'retry', sentence: 'A wall around the SQL engine that stood before cannot be raised.' },
  child_failed: { fate: 'retry', sentence: 'A child process ended.' },
  unknown_device: { fate: 'reject', sentence: 'No reading of this device was ever received.' },
  invalid_request: { fate: 'reject', sentence: 'The request does not fit its schema.' },
  rehydrating: { fate: 'retry', sentence: 'The state is being rebuilt after a start.' },
  busy: { fate: 'retry', sentence: 'Too many requests of this kind are under way.' },
} as const satisfies Record<string, { fate: Fate; sentence: string }>

export type ErrorCode = keyof typeof ERRORS

/** An error of ours. `detail` says what happened here and what to do; `cause` keeps the foreign error. */
export class SurgetankError extends Error {
  readonly code: ErrorCode
  readonly fate: Fate
  readonly detail: string

  constructor(code: ErrorCode, detail: string, cause?: unknown) {
    super(`${ERRORS[code].sentence} ${detail}`, cause === undefined ? {} : { cause })
    this.name = 'SurgetankError'
    this.code = code
    this.fate = ERRORS[code].fate
    this.detail = detail
  }
}

/**
 * The error of a server that cannot listen: `port_in_use`; or `setting_invalid`, when the address is none of this machine's or
 * the port is one that only the superuser may have.
 */
export function cannotListen(what: 'MQTT' | 'HTTP', host: string, port: number, error: unknown): SurgetankError {
  const setting = `SURGETANK_${what}_PORT`
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRNOTAVAIL': {
      const detail = `SURGETANK_LISTEN is '${host}', which is no address of this machine.`
      return new SurgetankError('setting_invalid', detail, error)
    }
    case 'EACCES': {
      const detail = `${setting} is ${port}, and this user may not listen there: set it to one from 1024 on.`
      return new SurgetankError('setting_invalid', detail, error)
    }
    default: {
      const way = `${setting} names another port, SURGETANK_LISTEN another address.`
      return new SurgetankError('port_in_use', `${what} cannot listen on ${host}:${port}. ${way}`, error)
    }
  }
}

/** The fields of a log line about an error: one of ours is its sentence; only a foreign one needs its trace. */
export function logFields(error: unknown): { why: string; code: ErrorCode } | { err: unknown } {
  return error instanceof SurgetankError ? { why: error.message, code: error.code } : { err: error }
}

/** True when `error` is one of ours with this fate. */
export function hasFate(error: unknown, fate: Fate): error is SurgetankError {
  return error instanceof SurgetankError && error.fate === fate
}
