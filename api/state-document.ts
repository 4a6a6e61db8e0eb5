/**
 * The state document: a device's state as JSON text.
 *
 * Written by hand, because values must come out as the device sent them ([G3]): -0 stays -0, an integer beyond 2^53 becomes a
 * string of its digits (a number would be rounded by most who read it), and `__proto__` is a name like any other.
 */
import type { DeviceState, MetricState } from '../model/device-state.ts'
import { encodeValue } from '../model/message.ts'
import type { Value } from '../model/reading.ts'
import { timeText, US_PER_MS } from '../model/time.ts'

export interface DocumentView {
  /** ms since 1970 UTC. */
  readonly now: number
  readonly staleAfterMs: number
  readonly rehydrating: boolean
}

/** `{device, version, online, last_seen, rehydrating, metrics: {name: {value, ts, received_at, stale}}}` */
export function stateDocument(state: DeviceState, view: DocumentView): string {
  const metrics = state.metrics.map(metric => `${JSON.stringify(metric.metric)}:${metricDocument(metric, view)}`)
  const { device, lastSeen, online } = state
  return (
    `{"device":${JSON.stringify(device)},"version":${lastSeen},"online":${online},"last_seen":"${timeText(lastSeen)}",` +
    `"rehydrating":${view.rehydrating},"metrics":{${metrics.join(',')}}}`
  )
}

function metricDocument({ value, ts, receivedAt }: MetricState, { now, staleAfterMs }: DocumentView): string {
  const stale = now - receivedAt / US_PER_MS > staleAfterMs
  return `{"value":${jsonValue(value)},"ts":"${timeText(ts)}","received_at":"${timeText(receivedAt)}","stale":${stale}}`
}

/** A value on the wire to people and dashboards. */
export function jsonValue(value: Value): string {
  return typeof value === 'bigint' ? `"${value}"` : encodeValue(value)
}
