/**
 * How long a peer may take until its whole CONNECT is here. What counts is what has come, not what was read of it: a process that
 * was busy for longer, as in a storm of connects, looks at its sockets once more before it closes one. Otherwise it refuses a
 * whole fleet for its own delay, and the fleet comes back at once, for ever.
 */
const CONNECT_MS_MAX = 5_000

/** Aedes has a clock of its own for the same, which never rings: the most that a timer can wait. */
export const AEDES_CONNECT_MS = 2 ** 31 - 1

/** Calls `late` once, unless the function that it returns was called before. */
export function openConnectTime(late: () => void): () => void {
  let isHere = false
  // Timers come before what has arrived, in each turn of the event loop, and immediates after it.
  const timer = setTimeout(() => setImmediate(() => isHere || late()), CONNECT_MS_MAX)
  return () => {
    isHere = true
    clearTimeout(timer)
  }
}
