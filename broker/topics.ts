/**
 * What a topic or a status payload means. Pure: decides and touches nothing.
 *
 * `devices/{device}/telemetry` carries JSON, `devices/{device}/telemetry/{metric}` a plain value, `devices/{device}/status`
 * presence. Everything else is refused with a reason, kept and acknowledged: closing the connection would make the device
 * send the same message again for ever.
 */
import { deviceIdFault, isDeviceId } from '../model/ids.ts'
import { LIMITS } from '../model/limits.ts'

export interface Telemetry {
  readonly kind: 'telemetry'
  readonly device: string
  /** Null when the payload is JSON. */
  readonly metric: string | null
}
export interface Status {
  readonly kind: 'status'
  readonly device: string
}
/** A message that is kept, with the reason, and not stored as a reading. */
export interface Refused {
  readonly kind: 'refused'
  /** Empty when the topic names no valid device. */
  readonly device: string
  readonly reason: 'unknown_topic' | 'invalid_topic' | 'invalid_device' | 'invalid_metric' | 'invalid_status'
  readonly detail: string
}
/** `$SYS/...`: the broker's own; a client that publishes there is closed. */
export interface Reserved {
  readonly kind: 'reserved'
}
export type Route = Telemetry | Status | Refused | Reserved

/** Control characters, NUL, and the mark that decoding leaves for ill-formed UTF-8 [MQTT-1.5.3-1, -2]. */
const ODD_CHARACTER = /[\u0000-\u001f\u007f-\u009f\ufffd]/

export function parseTopic(topic: string): Route {
  if (topic.startsWith('$SYS/')) return { kind: 'reserved' }
  const bytes = Buffer.byteLength(topic)
  if (bytes > LIMITS.topicBytesMax) {
    return refuse('invalid_topic', `A topic takes up to ${LIMITS.topicBytesMax} bytes; this one has ${bytes}.`)
  }
  if (ODD_CHARACTER.test(topic))
    return refuse('invalid_topic', 'The topic holds a control character or ill-formed UTF-8.')
  const levels = topic.split('/')
  if (levels.length > LIMITS.topicLevelsMax) {
    return refuse('invalid_topic', `A topic takes up to ${LIMITS.topicLevelsMax} levels.`)
  }
  return parseLevels(levels)
}

function parseLevels(levels: readonly string[]): Route {
  const [root, device, branch, metric] = levels
  const known = root === 'devices' && (branch === 'telemetry' || (branch === 'status' && levels.length === 3))
  if (!known || device === undefined || levels.length > 4) {
    return refuse(
      'unknown_topic',
      'Telemetry goes to devices/{device}/telemetry or devices/{device}/telemetry/{metric}.',
    )
  }
  const fault = deviceIdFault(device)
  if (fault !== null) return refuse('invalid_device', fault)
  if (branch === 'status') return { kind: 'status', device }
  if (metric === undefined) return { kind: 'telemetry', device, metric: null }
  if (metric === '' || metric.length > LIMITS.metricNameCharsMax) {
    return refuse('invalid_metric', `A metric name takes 1 to ${LIMITS.metricNameCharsMax} characters.`, device)
  }
  return { kind: 'telemetry', device, metric }
}

function refuse(reason: Refused['reason'], detail: string, device = ''): Refused {
  return { kind: 'refused', device, reason, detail }
}

/** What is kept of the topic of a refused message: as much as a topic may have, in whole characters. */
export function keptTopic(topic: string): string {
  if (Buffer.byteLength(topic) <= LIMITS.topicBytesMax) return topic
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  // As if more were to come: a character that the cut goes through is left out.
  return decoder.decode(Buffer.from(topic).subarray(0, LIMITS.topicBytesMax), { stream: true })
}

export function refuseStatus(device: string): Refused {
  return refuse('invalid_status', 'A status is online, offline, or {"state":"online"} or {"state":"offline"}.', device)
}

/** A status or will payload is a word or a small document; more is none. */
const STATUS_BYTES_MAX = 256

/** `online`, `offline`, or JSON `{"state":"online"|"offline"}`; null for anything else. */
export function parseStatus(payload: Buffer | string): 'online' | 'offline' | null {
  if (payload.length > STATUS_BYTES_MAX) return null
  const text = payload.toString().trim()
  const state = text.startsWith('{') ? parseState(text) : text
  return state === 'online' || state === 'offline' ? state : null
}

function parseState(text: string): unknown {
  try {
    return (JSON.parse(text) as { state?: unknown }).state
  } catch {
    return null
  }
}

/**
 * True when a client may subscribe to this filter: a plain topic below its own `devices/{id}/cmd/`, no wildcard. A client whose
 * id is no device id has none: with `+` or `a/b` as its id it would name the commands of others.
 */
export function isOwnCommandTopic(clientId: string, filter: string): boolean {
  if (!isDeviceId(clientId)) return false
  if (!filter.startsWith(`devices/${clientId}/cmd/`) || /[+#]/.test(filter) || ODD_CHARACTER.test(filter)) return false
  return Buffer.byteLength(filter) <= LIMITS.topicBytesMax && filter.split('/').length <= LIMITS.topicLevelsMax
}
