/**
 * Compares what was sent with what is stored, reading by reading: the history check. Pure.
 *
 * Readings are told apart by device, metric and time, and several messages may share these; then the values are compared
 * as a multiset, and the receipts of the rows must have the order of sending. A message that was sent but never
 * acknowledged may be stored or not, and so may one that the system may take for a repetition: the caller marks both.
 */
import { KIND } from '../model/reading.ts'

/** Sent readings of one device. */
export interface SentReading {
  readonly metric: string
  /** µs since 1970 UTC. */
  readonly time: number
  /** JSON text of the value. */
  readonly value: string
  /** It must be stored; else it may be. */
  readonly acked: boolean
}

/** A stored row of one device. */
export interface StoredReading {
  readonly metric: string
  /** µs since 1970 UTC. */
  readonly time: number
  /** `canonicalStored` of the row. */
  readonly value: string
  /** µs since 1970 UTC. */
  readonly receivedAt: number
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
  /** Places where all is stored, but the receipts do not have the order of sending: the state would come out wrong [G4]. */
  misordered: number
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
  const faults = { lost: 0, duplicated: 0, phantom: 0, changed: 0, misordered: 0 }
  return { ...faults, acked: 0, unackedStored: 0, stored: 0, examples: [] }
}

/** What shares device, metric and time. */
interface Place {
  /** How often each value was sent, acknowledged and stored. */
  readonly tallies: Map<string, { sent: number; acked: number; stored: number }>
  /** The values in the order of sending. */
  readonly sent: string[]
  readonly stored: StoredReading[]
}

/** Adds to `findings` what the readings of one device show; `sent` comes in the order of sending. */
export function compareDevice(
  findings: Findings,
  device: string,
  sent: Iterable<SentReading>,
  stored: Iterable<StoredReading>,
): void {
  const places = new Map<string, Place>()
  for (const reading of sent) {
    const place = placeOf(places, reading)
    const value = canonicalSent(reading.value)
    const tally = tallyOf(place, value)
    tally.sent++
    if (reading.acked) tally.acked++
    place.sent.push(value)
  }
  for (const row of stored) {
    const place = placeOf(places, row)
    tallyOf(place, row.value).stored++
    place.stored.push(row)
    findings.stored++
  }
  for (const [key, place] of places) comparePlace(findings, `${device} ${key}`, place)
}

function placeOf(places: Map<string, Place>, at: { metric: string; time: number }): Place {
  const key = `${at.metric} at ${at.time}`
  const known = places.get(key)
  if (known !== undefined) return known
  const place: Place = { tallies: new Map(), sent: [], stored: [] }
  places.set(key, place)
  return place
}

function tallyOf({ tallies }: Place, value: string) {
  const tally = tallies.get(value) ?? { sent: 0, acked: 0, stored: 0 }
  tallies.set(value, tally)
  return tally
}

function comparePlace(findings: Findings, where: string, place: Place): void {
  const missing: string[] = []
  const unknown: string[] = []
  for (const [value, { sent, acked, stored }] of place.tallies) {
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
  compareOrder(findings, where, place)
}

/** Only where each that was sent is stored once: a place that lacks one has told so already. */
function compareOrder(findings: Findings, where: string, { tallies, sent, stored }: Place): void {
  if (tallies.size < 2 || [...tallies.values()].some(tally => tally.stored !== tally.sent)) return
  const rows = [...stored].sort((a, b) => a.receivedAt - b.receivedAt)
  const wrong = rows.findIndex(({ value, receivedAt }, at) => {
    const before = rows[at - 1]
    const isTie = before?.receivedAt === receivedAt && before.value !== value
    return isTie || value !== sent[at]
  })
  if (wrong === -1) return
  findings.misordered++
  const from = Math.max(0, wrong - 1)
  const received = rows.slice(from, wrong + 2).map(({ value, receivedAt }) => `${value} at ${receivedAt}`)
  note(findings, `${where}: sent ${sent.slice(from, wrong + 2).join(', ')}, received ${received.join(', ')}`)
}

function note(findings: Findings, sentence: string): void {
  if (findings.examples.length < EXAMPLES_MAX) findings.examples.push(sentence)
}

/** A sent JSON number or boolean in the form in which values are compared: exact digits beyond 2^53, else the nearest double. */
export function canonicalSent(text: string): string {
  if (text === 'true' || text === 'false') return `bool ${Number(text === 'true')}`
  const isExact = /^-?\d+$/.test(text) && !Number.isSafeInteger(Number(text))
  return isExact ? `integer ${BigInt(text)}` : numberText(Number(text))
}

/** A row's `kind` (its name or its number), `value` and `value_str` in the same form. */
export function canonicalStored(kind: string, value: number | null, text: string): string {
  const name = Object.entries(KIND).find(([, number]) => String(number) === kind)?.[0] ?? kind
  if (name === 'number') return numberText(value)
  return name === 'bool' ? `bool ${value}` : `${name} ${text}`
}

/** -0 is told from 0. */
export function numberText(value: number | null): string {
  return Object.is(value, -0) ? '-0' : String(value)
}

/** True when what was acknowledged is stored once, unchanged and in its order, and nothing else is. */
export function isClean({ lost, duplicated, phantom, changed, misordered }: Findings): boolean {
  return lost + duplicated + phantom + changed + misordered === 0
}
