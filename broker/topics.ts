/**
 * What a topic or a status payload means. Pure: decides and touches nothing.
 *
 * `devices/{device}/telemetry` carries JSON, `devices/{device}/telemetry/{metric}` a plain value, `devices/{device}/status`
 * presence. Everything else is refused with a reason, kept and acknowledged: closing the connection would make the device
 * send the same message again for ever.
 */
import { DEVICE_ID, LIMITS } from '../model/limits.ts'

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
/**
 * Topics that mean something to a broker, or will: a message there is acknowledged and let go, with its own reason. A bridge
 * says in `$SYS/` that it is there; below `cmd`, `reply` and `state` the way back to devices is going to be.
 */
export interface Reserved {
  readonly kind: 'reserved'
  readonly reason: ReservedReason
}
export type ReservedReason = 'reserved_sys' | 'reserved_share' | 'reserved_cmd' | 'reserved_reply' | 'reserved_state'
export type Route = Telemetry | Status | Refused | Reserved

/** Control characters, NUL, and the mark that decoding leaves for ill-formed UTF-8 [MQTT-1.5.3-1, -2]. */
const ODD_CHARACTER = /[\u0000-\u001f\u007f-\u009f\ufffd]/

/** `devices/{device}/{branch}/...` */
const RESERVED_BRANCHES: ReadonlyMap<string, ReservedReason> = new Map([
  ['cmd', 'reserved_cmd'],
  ['reply', 'reserved_reply'],
  ['state', 'reserved_state'],
])

export function parseTopic(topic: string): Route {
  if (topic.startsWith('$SYS/')) return { kind: 'reserved', reason: 'reserved_sys' }
  if (topic.startsWith('$share/')) return { kind: 'reserved', reason: 'reserved_share' }
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
  const reserved = root === 'devices' && levels.length > 3 ? RESERVED_BRANCHES.get(branch ?? '') : undefined
  const isOfDevice = branch === 'telemetry' ? levels.length <= 4 : branch === 'status' && levels.length === 3
  const known = reserved !== undefined || (root === 'devices' && isOfDevice)
  if (!known || device === undefined) {
    return refuse(
      'unknown_topic',
      'Telemetry goes to devices/{device}/telemetry or devices/{device}/telemetry/{metric}.',
    )
  }
  if (!DEVICE_ID.test(device)) {
    return refuse('invalid_device', 'A device id takes up to 128 letters, digits and . _ : -')
  }
  if (reserved !== undefined) return { kind: 'reserved', reason: reserved }
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
 * True when a client may subscribe to this filter: one below its own `devices/{id}/cmd/`, with `+` for any level and `#` as the
 * last [MQTT-4.7.1-2, -3]. A client id that is no device id, such as `+`, has none.
 */
export function isOwnCommandFilter(clientId: string, filter: string): boolean {
  if (!DEVICE_ID.test(clientId)) return false
  const own = `devices/${clientId}/cmd/`
  if (!filter.startsWith(own) || ODD_CHARACTER.test(filter)) return false
  if (Buffer.byteLength(filter) > LIMITS.topicBytesMax || filter.split('/').length > LIMITS.topicLevelsMax) return false
  const below = filter.slice(own.length).split('/')
  return below.every((level, at) => level === '+' || (level === '#' && at === below.length - 1) || !/[+#]/.test(level))
}
