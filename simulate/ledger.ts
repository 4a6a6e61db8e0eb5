/**
 * What was sent, what was acknowledged, and on which connection of its device: all that verification needs besides the
 * workload, by message number. Thirteen bytes a message, made at the start, so that a long run cannot grow.
 */
export interface Ledger {
  /** Message n goes out with this time, ms, on this connection: how many the device had before. */
  sent(n: number, time: number, connection?: number): void
  /** Acknowledged on this connection. */
  acked(n: number, connection?: number): void
  wasSent(n: number): boolean
  wasAcked(n: number): boolean
  timeOf(n: number): number
  /** The first and the last connection on which it may have been sent; of many, all beyond 65,535 count as one. */
  connectionsOf(n: number): { readonly first: number; readonly last: number }
  /** True when a device had more than one connection. */
  readonly reconnected: boolean
}

const SENT = 1
const ACKED = 2
const CONNECTION_MAX = 65_535

export function openLedger(total: number): Ledger {
  const times = new Float64Array(total)
  const marks = new Uint8Array(total)
  const firsts = new Uint16Array(total)
  const lasts = new Uint16Array(total)
  let reconnected = false
  return {
    sent(n, time, connection = 0) {
      times[n] = time
      marks[n] = SENT
      firsts[n] = Math.min(connection, CONNECTION_MAX)
      lasts[n] = CONNECTION_MAX
      if (connection > 0) reconnected = true
    },
    acked(n, connection = 0) {
      marks[n] = SENT | ACKED
      lasts[n] = Math.min(connection, CONNECTION_MAX)
      if (connection > 0) reconnected = true
    },
    wasSent: n => ((marks[n] ?? 0) & SENT) !== 0,
    wasAcked: n => ((marks[n] ?? 0) & ACKED) !== 0,
    timeOf: n => times[n] ?? 0,
    connectionsOf: n => ({ first: firsts[n] ?? 0, last: lasts[n] ?? 0 }),
    get reconnected() {
      return reconnected
    },
  }
}
