/**
 * Open-loop pacing: when message k of a constant rate is meant to be sent. Latency counts from that moment, also when
 * the message had to wait for its turn, so that a slow broker cannot hide by slowing the generator (no coordinated
 * omission).
 */

/** How many messages are due `elapsedMs` after the start: message 0 at once. */
export function messagesDue(elapsedMs: number, rate: number): number {
  return elapsedMs < 0 ? 0 : Math.floor((elapsedMs * rate) / 1_000) + 1
}

/** When message k is due, in ms after the start. */
export function dueAtMs(k: number, rate: number): number {
  return (k * 1_000) / rate
}

/** True when message k is one of the `share` (0 to 1) that go to the hot device: spread evenly, exact in the long run. */
export function isHot(k: number, share: number): boolean {
  return Math.floor((k + 1) * share) > Math.floor(k * share)
}
