/**
 * A session's record as text: JSON with a version. A version that only adds fields keeps the number, and older ones carry
 * such fields along when they write the record again; one that changes what a field means counts it up.
 *
 *   {"v":1,"life":"…","filters":[{"filter":"devices/a/cmd","qos":1}],"opened":3,"open":[[7,"print"]]}
 */
import { randomBytes } from 'node:crypto'
import { SurgetankError } from '../errors.ts'
import type { SessionFilter, SessionKey, SessionRecord } from './sessions.ts'

const VERSION = 1

/** The most QoS 2 messages that a record keeps; the oldest are forgotten, and one that is sent again is stored again. */
export const OPEN_MESSAGES_MAX = 1_024

/** UTF-8 bytes of a record. Far more than any client needs, and what one may take of a store that many share. */
export const RECORD_BYTES_MAX = 64 * 1024

const NAME_PART_BYTES_MAX = 256

type Fields = Readonly<Record<string, unknown>>

export interface ParsedRecord {
  readonly record: SessionRecord
  /** As it was read, with what this version does not know; null for a record that was never read. */
  readonly fields: Fields | null
}

/**
 * One text for a key, the same in every store; two keys never have the same. Null when it is none that a client may have:
 * each part is up to 256 bytes of UTF-8 without control characters.
 */
export function nameOf({ principal, client }: SessionKey): string | null {
  return isNamePart(principal) && isNamePart(client) && client !== '' ? `${principal}\0${client}` : null
}

function isNamePart(text: string): boolean {
  return !/[\x00-\x1f\x7f-\x9f]/.test(text) && Buffer.byteLength(text) <= NAME_PART_BYTES_MAX
}

export function newRecord(): ParsedRecord {
  return { record: { life: randomBytes(9).toString('base64url'), filters: [], opened: 0, open: [] }, fields: null }
}

/** The text of `record`, with what `before` holds that this version does not know. */
export function encodeRecord({ life, filters, opened, open }: SessionRecord, before: Fields | null): string {
  const known = {
    v: VERSION,
    life,
    filters: filters.map(filter => ({ ...fieldsOf(filter, before), filter: filter.filter, qos: filter.qos })),
    opened,
    open: open.slice(-OPEN_MESSAGES_MAX).map(({ packet, print }) => [packet, print]),
  }
  return JSON.stringify({ ...before, ...known })
}

/** Throws `session_too_large`. */
export function checkSize(text: string): void {
  if (text.length * 3 <= RECORD_BYTES_MAX || Buffer.byteLength(text) <= RECORD_BYTES_MAX) return
  throw new SurgetankError('session_too_large', `It would take more than ${RECORD_BYTES_MAX} bytes.`)
}

/** What a newer version knows of a filter, as long as it is granted in the same way. */
function fieldsOf({ filter, qos }: SessionFilter, before: Fields | null): Fields {
  const filters = Array.isArray(before?.filters) ? (before.filters as unknown[]) : []
  return filters.filter(isFields).find(known => known.filter === filter && known.qos === qos) ?? {}
}

/**
 * Null when it cannot be read: no surgetank wrote it, or one of a version that this one does not know. Its client hears of no
 * session then, and forgets what it sent; so the record must not be found later, but is written anew.
 */
export function parseRecord(text: string): ParsedRecord | null {
  const fields = parseJson(text)
  if (!isFields(fields) || !isCount(fields.v) || fields.v > VERSION) return null
  const { life, filters, opened, open } = fields
  if (!isLife(life) || !isCount(opened) || !Array.isArray(filters) || !Array.isArray(open)) return null
  const known = filters.filter(isFilter)
  const messages = open.filter(isOpen).map(([packet, print]) => ({ packet, print }))
  if (known.length < filters.length || messages.length < open.length) return null
  const record = { life, filters: known.map(({ filter, qos }) => ({ filter, qos })), opened, open: messages }
  return { record, fields }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** It goes into lines of the log as it is, so it must hold nothing that ends a text of JSON. */
function isLife(value: unknown): value is string {
  return typeof value === 'string' && /^[!#-[\]-~]{1,32}$/.test(value)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isFilter(value: unknown): value is SessionFilter {
  return isFields(value) && typeof value.filter === 'string' && [0, 1, 2].includes(value.qos as number)
}

function isOpen(value: unknown): value is [number, string] {
  return Array.isArray(value) && isCount(value[0]) && value[0] <= 0xffff && typeof value[1] === 'string'
}
