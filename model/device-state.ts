/** The newest state of a device: what the space holds and dashboards read. */
import type { Moment } from './reading.ts'

export interface MetricState extends Moment {
  readonly metric: string
}

export interface DeviceState {
  readonly device: string
  readonly online: boolean
  /** When the broker last heard of it (a reading, a connect, a disconnect), µs since 1970 UTC. */
  readonly lastSeen: number
  /** In order of their names, bytewise. */
  readonly metrics: readonly MetricState[]
}

/** A device came or went. Ordered by `at`; at the same `at`, offline is the newer one. */
export interface Presence {
  readonly device: string
  readonly online: boolean
  /** ms since 1970 UTC. */
  readonly at: number
}
