/** `surgetank quarantine ls|show`: what was refused, with its reason and its bytes as they came. */
import type { QuarantineEntry } from '../pump/pump.ts'
import { shownText } from '../shown-text.ts'

const COLUMNS = { id: 9, at: 24, device: 24, reason: 24 }

/** One line each, newest first, for a person. */
export function describeEntries(entries: readonly QuarantineEntry[]): string {
  if (entries.length === 0) return 'Nothing is quarantined.'
  const head = row('ID', 'RECEIVED', 'DEVICE', 'REASON', 'WHERE')
  const rows = entries.map(({ id, receivedAt, device, reason, where }) =>
    row(id, new Date(receivedAt).toISOString(), shownText(device), reason, shownText(where)),
  )
  return [head, ...rows].join('\n')
}

function row(id: string, at: string, device: string, reason: string, where: string): string {
  const { id: i, at: a, device: d, reason: r } = COLUMNS
  return `${id.padEnd(i)} ${at.padEnd(a)} ${device.padEnd(d)} ${reason.padEnd(r)} ${where}`
}

/** One entry whole: the payload as text where it is text, and always as base64. */
export function describeEntry(entry: QuarantineEntry): string {
  const bytes = Buffer.from(entry.bytes)
  return [
    `id        ${entry.id}`,
    `received  ${new Date(entry.receivedAt).toISOString()}`,
    `device    ${shownText(entry.device)}`,
    `where     ${shownText(entry.where)}`,
    `reason    ${entry.reason}`,
    `detail    ${shownText(entry.detail)}`,
    `bytes     ${bytes.length}`,
    `text      ${shownText(bytes.toString('utf8'))}`,
    `base64    ${bytes.toString('base64')}`,
  ].join('\n')
}

/** The entry as JSON, for a script. */
export function entryToJson(entry: QuarantineEntry): Record<string, unknown> {
  const { bytes, receivedAt, ...rest } = entry
  return {
    ...rest,
    received_at: new Date(receivedAt).toISOString(),
    payload_base64: Buffer.from(bytes).toString('base64'),
  }
}
