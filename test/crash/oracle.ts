/**
 * The oracle of the fleet of habits: it holds what each device sent in the order of sending, and tells what ClickHouse and
 * the state must hold of it. It knows nothing of how the system tells a repetition.
 *
 * A reading with a time has its place: device, metric, time in µs. The rows of a place must be what was sent there, no more
 * and no less, received in the order of sending. A message without a time is stored again when it is sent again, and only then, and
 * not at QoS 2 in a persistent session; the number that it carries tells which one a row is of.
 */
import { canonicalSent, compareDevice, type Findings, type SentReading } from '../../simulate/compare.ts'
import { type Newest, newestByMetric, type Shown } from '../../simulate/states.ts'
import type { StoredRow } from '../../simulate/stored.ts'
import { type Element, NUMBER } from './habits.ts'

export interface SentMessage {
  readonly device: string
  readonly elements: readonly Element[]
  acked: boolean
  /** How often it was handed to a socket. */
  attempts: number
  /** QoS 2 in a persistent session: stored once however often it was sent, also without a time [MQTT-4.3.3-2]. */
  readonly isExact?: boolean
}

export interface Oracle {
  /** Before it is sent for the first time. */
  sent(message: SentMessage): void
  readonly devices: readonly string[]
  /** Adds what the rows of a device show; returns what its metrics may show. */
  compare(findings: Findings, device: string, rows: readonly StoredRow[]): Newest
}

const EXAMPLES_MAX = 10

export function openOracle(): Oracle {
  const byDevice = new Map<string, SentMessage[]>()
  return {
    get devices() {
      return [...byDevice.keys()]
    },
    sent(message) {
      const known = byDevice.get(message.device)
      if (known === undefined) byDevice.set(message.device, [message])
      else known.push(message)
    },
    compare(findings, device, rows) {
      const messages = byDevice.get(device) ?? []
      if (messages.some(isWithoutTime)) return compareWithoutTimes(findings, device, messages, rows)
      const sent = messages.flatMap(readingsOf)
      compareDevice(findings, device, sent, rows)
      return newestByMetric(sent, rows)
    },
  }
}

function isWithoutTime({ elements }: SentMessage): boolean {
  return elements.some(({ time }) => time === null)
}

function readingsOf({ elements, acked }: SentMessage): SentReading[] {
  return elements.flatMap(({ time, values }) =>
    values.map(([metric, value]) => ({ metric, time: time ?? 0, value, acked })),
  )
}

/** An element that has no time: how often it may be stored, and must be. */
interface Numbered {
  readonly values: Element['values']
  readonly least: number
  readonly most: number
  stored: number
}

function compareWithoutTimes(
  findings: Findings,
  device: string,
  messages: readonly SentMessage[],
  rows: readonly StoredRow[],
): Newest {
  const elements = numberedElements(messages)
  findings.stored += rows.length
  let newestNumber = -1
  for (const [receivedAt, values] of byReceipt(rows)) {
    const numbers = values.filter(([metric]) => metric === NUMBER).map(([, value]) => Number(value))
    if (numbers.length > 1) {
      findings.misordered++
      note(findings, `${device}: the elements ${numbers.join(' and ')} have one receipt, ${receivedAt}`)
    }
    for (const number of numbers) {
      const element = elements.get(number)
      if (element === undefined) {
        findings.phantom++
        note(findings, `${device}: element ${number} was never sent`)
        continue
      }
      if (element.stored++ === 0 && number < newestNumber) {
        findings.misordered++
        note(findings, `${device}: element ${number} was received after element ${newestNumber}`)
      }
      newestNumber = Math.max(newestNumber, number)
      if (numbers.length === 1) compareValues(findings, `${device} at ${receivedAt}`, element.values, values)
    }
  }
  for (const [number, element] of elements) compareCounts(findings, `${device}: element ${number}`, element)
  return newestWithoutTimes(elements, rows)
}

function numberedElements(messages: readonly SentMessage[]): Map<number, Numbered> {
  const elements = new Map<number, Numbered>()
  for (const { elements: sent, acked, attempts, isExact } of messages) {
    const most = isExact === true ? 1 : attempts
    for (const { values } of sent) {
      const [, number] = values.find(([metric]) => metric === NUMBER) ?? []
      elements.set(Number(number), { values, least: acked ? 1 : 0, most, stored: 0 })
    }
  }
  return elements
}

/** Rows by their time, which is that of receipt, oldest first. */
function byReceipt(rows: readonly StoredRow[]): [number, [metric: string, value: string][]][] {
  const groups = new Map<number, [string, string][]>()
  for (const { time, metric, value } of rows) {
    const group = groups.get(time)
    if (group === undefined) groups.set(time, [[metric, value]])
    else group.push([metric, value])
  }
  return [...groups].sort(([a], [b]) => a - b)
}

function compareValues(
  findings: Findings,
  where: string,
  sent: Element['values'],
  stored: readonly [string, string][],
): void {
  for (const [metric, value] of sent) {
    const found = stored.filter(row => row[0] === metric)
    if (found.length === 1 && found[0]?.[1] === canonicalSent(value)) continue
    findings.changed++
    note(findings, `${where} ${metric}: ${value} is stored as ${found.map(row => row[1]).join(' and ') || 'nothing'}`)
  }
}

function compareCounts(findings: Findings, where: string, { values, least, most, stored }: Numbered): void {
  findings.acked += least * values.length
  if (stored < least) {
    findings.lost += values.length
    note(findings, `${where} is not stored`)
  }
  if (stored > most) {
    findings.duplicated += (stored - most) * values.length
    note(findings, `${where} was sent ${most} times and is stored ${stored} times`)
  }
}

/** The element that was sent last, at the last receipt. */
function newestWithoutTimes(elements: ReadonlyMap<number, Numbered>, rows: readonly StoredRow[]): Newest {
  const last = [...elements.values()].filter(({ least }) => least === 1).at(-1)
  const time = rows.reduce((newest, row) => Math.max(newest, row.time), 0)
  const shown = (value: string): Shown[] => [{ time, value: canonicalSent(value) }]
  return new Map((last?.values ?? []).map(([metric, value]) => [metric, shown(value)]))
}

function note(findings: Findings, sentence: string): void {
  if (findings.examples.length < EXAMPLES_MAX) findings.examples.push(sentence)
}
