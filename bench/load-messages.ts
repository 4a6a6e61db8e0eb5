/** What the bench and its load process tell each other. */
import type { FleetCounts } from './generator.ts'

export interface LoadOrder {
  readonly port: number
  readonly devices: readonly string[]
  readonly connections: number
  readonly window: number
  readonly rate: number | null
  readonly hotShare: number
  readonly firstCounter: number
  readonly warmupMs: number
  readonly measureMs: number
}

export interface Measured {
  readonly acked: number
  readonly elapsedMs: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** CPU that the generator itself took, µs. */
  readonly generatorUs: number
}

/** In this order: it starts to send; the window of measurement begins; it has ended; everything is acknowledged, or was given up. */
export type LoadMessage =
  | { readonly kind: 'start' }
  | { readonly kind: 'begin' }
  | ({ readonly kind: 'end' } & Measured)
  | { readonly kind: 'done'; readonly counts: FleetCounts; readonly drained: boolean }
