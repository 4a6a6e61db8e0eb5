/**
 * Why ingest refuses a message: the catalogue of reasons, and the refusal that carries one.
 *
 * A reason is a label of `telemetry_messages_quarantined_total` and a column of `surgetank quarantine ls`: a fixed word,
 * never text of a device. The detail is for a person; what it quotes from a device is short and escaped.
 */
import { shownJson } from '../shown-text.ts'

export const REASONS = {
  empty: 'The payload holds no reading.',
  invalid_utf8: 'The payload is not UTF-8.',
  invalid_json: 'The payload is not JSON.',
  invalid_shape: 'The JSON is not an object, {ts, values} or a list of those.',
  too_deep: 'The JSON is nested too deep.',
  too_many_readings: 'The payload holds too many readings.',
  invalid_metric_name: 'The name of a metric is empty, too long or has control characters.',
  duplicate_metric: 'A metric stands twice in one object.',
  not_a_number: 'A value is NaN or Infinity, which no JSON and no average can hold.',
  number_out_of_range: 'A number is too large or too small to be kept as it was sent.',
  invalid_text: 'A text has half a surrogate pair, a byte order mark or control characters.',
  text_too_long: 'A text value is too long.',
  invalid_timestamp: 'The time of the readings is not a time.',
  timestamp_out_of_range: 'The time of the readings is before 2000 or after 9999.',
  too_many_metrics: 'The device has sent too many different metrics.',
  too_many_devices: 'There are more devices than SURGETANK_DEVICES_MAX.',
} as const

export type Reason = keyof typeof REASONS

/** Longest piece of a payload that a detail quotes, in characters. */
const QUOTED_CHARS_MAX = 40

/**
 * Thrown inside the decoder and caught at its border; no Error, because it is an answer and a hostile device must not
 * make us collect a stack for each of its messages.
 */
export class Refusal {
  readonly reason: string
  readonly detail: string

  constructor(reason: Reason, detail: string = REASONS[reason]) {
    this.reason = reason
    this.detail = detail
  }
}

/** A piece of what a device sent, safe to print: short, in quotes, with escapes. */
export function quote(text: string): string {
  const short = text.length > QUOTED_CHARS_MAX ? `${text.slice(0, QUOTED_CHARS_MAX)}…` : text
  return shownJson(JSON.stringify(short))
}
