/**
 * What was sent and what was acknowledged, by message number: all that verification needs besides the workload. Nine
 * bytes a message, made at the start, so that a long run cannot grow.
 */
export interface Ledger {
  /** Message n goes out with this time. */
  sent(n: number, time: number): void
  acked(n: number): void
  wasSent(n: number): boolean
  wasAcked(n: number): boolean
  timeOf(n: number): number
}

const SENT = 1
const ACKED = 2

export function openLedger(total: number): Ledger {
  const times = new Float64Array(total)
  const marks = new Uint8Array(total)
  return {
    sent(n, time) {
      times[n] = time
      marks[n] = SENT
    },
    acked(n) {
      marks[n] = SENT | ACKED
    },
    wasSent: n => ((marks[n] ?? 0) & SENT) !== 0,
    wasAcked: n => ((marks[n] ?? 0) & ACKED) !== 0,
    timeOf: n => times[n] ?? 0,
  }
}
