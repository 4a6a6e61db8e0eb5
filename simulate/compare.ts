/**
 * Compares what was sent with what is stored, reading by reading: the history check. Pure.
 *
 * Readings are told apart by device, metric and time, and several messages may share these; then the values are compared
 * as a multiset. A message that was sent but never acknowledged may be stored or not. A repetition of a message (same
 * device, time and content) is stored once: the caller leaves it out.
 */
import { KIND } from '../model/reading.ts'

/** Sent readings of one device. */
export interface SentReading {
  readonly metric: string
  readonly time: number
  /** JSON text of the value. */
  readonly value: string
  readonly acked: boolean
}

/** A stored row of one device. */
export interface StoredReading {
  readonly metric: string
  readonly time: number
  /** `canonicalStored` of the row. */
  readonly value: string
}

export interface Findings {
  /** Acknowledged and not stored. */
  lost: number
  /** Stored more often than it was sent. */
  duplicated: number
  /** Stored and never sent. */
  phantom: number
  /** Stored at the place of an acknowledged reading with a value that was never sent there. */
  changed: number
  /** Acknowledged readings. */
  acked: number
  /** Not acknowledged, and stored nevertheless: allowed. */
  unackedStored: number
  stored: number
  /** The first few, in words. */
  examples: string[]
}

const EXAMPLES_MAX = 10

export function noFindings(): Findings {
  return { lost: 0, duplicated: 0, phantom: 0, changed: 0, acked: 0, unackedStored: 0, stored: 0, examples: [] }
}

/** What shares device, metric and time: how often each value was sent, acknowledged and stored. */
type Place = Map<string, { sent: number; acked: number; stored: number }>

/** Adds to `findings` what the readings of one device show. */
export function compareDevice(
  findings: Findings,
  device: string,
  sent: Iterable<SentReading>,
  stored: Iterable<StoredReading>,
): void {
  const places = new Map<string, Place>()
  for (const reading of sent) {
    const tally = tallyOf(places, reading, canonicalSent(reading.value))
    tally.sent++
    if (reading.acked) tally.acked++
  }
  for (const row of stored) {
    tallyOf(places, row, row.value).stored++
    findings.stored++
  }
  for (const [key, place] of places) comparePlace(findings, `${device} ${key}`, place)
}

function tallyOf(places: Map<string, Place>, at: { metric: string; time: number }, value: string) {
  const key = `${at.metric} at ${at.time}`
  const place: Place = places.get(key) ?? new Map()
  if (place.size === 0) places.set(key, place)
  const tally = place.get(value) ?? { sent: 0, acked: 0, stored: 0 }
  place.set(value, tally)
  return tally
}

function comparePlace(findings: Findings, where: string, place: Place): void {
  const missing: string[] = []
  const unknown: string[] = []
  for (const [value, { sent, acked, stored }] of place) {
    findings.acked += acked
    findings.unackedStored += Math.max(0, Math.min(stored, sent) - acked)
    for (let n = stored; n < acked; n++) missing.push(value)
    if (sent === 0) for (let n = 0; n < stored; n++) unknown.push(value)
    else if (stored > sent) {
      findings.duplicated += stored - sent
      note(findings, `${where}: ${value} was sent ${sent} times and is stored ${stored} times`)
    }
  }
  const changed = Math.min(missing.length, unknown.length)
  missing.forEach((value, n) => {
    note(findings, n < changed ? `${where}: ${value} is stored as ${unknown[n]}` : `${where}: ${value} is not stored`)
  })
  for (const value of unknown.slice(changed)) note(findings, `${where}: ${value} is stored and was never sent`)
  findings.changed += changed
  findings.lost += missing.length - changed
  findings.phantom += unknown.length - changed
}

function note(findings: Findings, sentence: string): void {
  if (findings.examples.length < EXAMPLES_MAX) findings.examples.push(sentence)
}

/** A sent JSON number in the form in which values are compared: exact digits beyond 2^53, else the nearest double. */
export function canonicalSent(text: string): string {
  const isExact = /^-?\d+$/.test(text) && !Number.isSafeInteger(Number(text))
  return isExact ? `integer ${BigInt(text)}` : numberText(Number(text))
}

/** A row's `kind` (its name or its number), `value` and `value_str` in the same form. */
export function canonicalStored(kind: string, value: number | null, text: string): string {
  const name = Object.entries(KIND).find(([, number]) => String(number) === kind)?.[0] ?? kind
  if (name === 'number') return numberText(value)
  return name === 'bool' ? `bool ${value}` : `${name} ${text}`
}

function numberText(value: number | null): string {
  return Object.is(value, -0) ? '-0' : String(value)
}

/** True when what was acknowledged is stored once and unchanged, and nothing else is. */
export function isClean(findings: Findings): boolean {
  return findings.lost + findings.duplicated + findings.phantom + findings.changed === 0
}
