/** `surgetank quarantine ls|show`: what was refused, with its reason and its bytes as they came. */
import type { QuarantineEntry } from '../pump/pump.ts'
import { shownText } from '../shown-text.ts'

const COLUMNS = { id: 9, at: 24, device: 24, reason: 24, size: 9 }

/** One line each, newest first, for a person. */
export function describeEntries(entries: readonly QuarantineEntry[]): string {
  if (entries.length === 0) return 'Nothing is quarantined.'
  const head = row('ID', 'RECEIVED', 'DEVICE', 'REASON', 'BYTES', 'WHERE')
  const rows = entries.map(({ id, receivedAt, device, reason, bytesTotal, where }) =>
    row(id, new Date(receivedAt).toISOString(), shownText(device), reason, String(bytesTotal), shownText(where)),
  )
  return [head, ...rows].join('\n')
}

/** The values in the order of COLUMNS, and `where` last. */
function row(...values: readonly string[]): string {
  const widths = Object.values(COLUMNS)
  return values.map((value, at) => value.padEnd(widths[at] ?? 0)).join(' ')
}

/** One entry whole: the payload as text where it is text, and always as base64. */
export function describeEntry(entry: QuarantineEntry): string {
  const bytes = Buffer.from(entry.bytes)
  const { bytesTotal } = entry
  return [
    `id        ${entry.id}`,
    `received  ${new Date(entry.receivedAt).toISOString()}`,
    `device    ${shownText(entry.device)}`,
    `where     ${shownText(entry.where)}`,
    `reason    ${entry.reason}`,
    `detail    ${shownText(entry.detail)}`,
    `bytes     ${bytesTotal === bytes.length ? bytesTotal : `${bytesTotal}, of which the first ${bytes.length} are kept`}`,
    `text      ${shownText(bytes.toString('utf8'))}`,
    `base64    ${bytes.toString('base64')}`,
  ].join('\n')
}

/** The entry as JSON, for a script. */
export function entryToJson(entry: QuarantineEntry): Record<string, unknown> {
  const { bytes, bytesTotal, receivedAt, ...rest } = entry
  return {
    ...rest,
    received_at: new Date(receivedAt).toISOString(),
    /** Of the whole payload; `payload_base64` may be only its beginning. */
    payload_bytes: bytesTotal,
    payload_base64: Buffer.from(bytes).toString('base64'),
  }
}
