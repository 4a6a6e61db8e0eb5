/** A row of the hostile table, and the pieces that rows are made of. */
import type { Reason } from '../../ingest/refusal.ts'
import type { Value } from '../../model/reading.ts'

/** When each payload comes, ms. */
export const NOW = Date.UTC(2026, 10, 20, 12)
/** A time of a device, in ms and in µs. */
export const TS = NOW - 60_000
export const TS_US = TS * 1000
export const DAY = 86_400_000

/** [metric, value]; with the device's own time [metric, value, µs], null for none; of a later element also its place. */
export type Stored = readonly (readonly [metric: string, value: Value, sentTs?: number | null, element?: number])[]
export type Row = readonly [what: string, payload: string | Uint8Array, expected: Stored | Reason]

export const v = (value: Value): Stored => [['v', value]]
export const timed = (ms: number): Stored => timedUs(ms * 1000)
export const timedUs = (us: number): Stored => [['a', 1, us]]
export const withTs = (ts: string): string => `{"ts":${ts},"values":{"a":1}}`
export const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`
export const members = (count: number): string =>
  Array.from({ length: count }, (_, index) => `"m${index}":${index}`).join()
export const counted = (count: number): Stored => Array.from({ length: count }, (_, index) => [`m${index}`, index])
export const bytes = (...parts: (string | number[])[]): Uint8Array =>
  Buffer.concat(parts.map(part => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))))
