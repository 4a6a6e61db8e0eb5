/**
 * JSON of a device → readings, in one pass: the payload is checked and flattened while it is read ([G3]).
 *
 * JSON.parse keeps the last of two equal keys and takes any depth; here both are refused. Invariants: a character is read
 * at most twice, nothing grows beyond the limits, and nesting never passes `payloadDepthMax`.
 *
 * Shapes: an object; `{ts, values}`, where `seq` and `id` may stand beside: they are no readings but tell messages apart; a
 * list of those. `ts` and `values` make an object timestamped only together; either of them alone is a metric like any other. Nested names are joined with `.`,
 * places in a list count from 0. An empty object or list inside holds no reading. A path may stand once in an object, as a
 * value or as a branch, however it is spelled: {"a.b":1,"a":{"b":2}} is refused.
 */
import { LIMITS } from '../model/limits.ts'
import { encodeSent } from '../model/message.ts'
import { effectiveTs, type Reading, type Value } from '../model/reading.ts'
import { JsonCursor } from './json-cursor.ts'
import { openNameTable } from './names.ts'
import { Refusal } from './refusal.ts'
import { parseTime } from './timestamp.ts'

type Draft = { -readonly [Key in keyof Reading]: Reading[Key] }

/** What a payload says besides its readings: filled anew for each one. */
export interface Written {
  /** For each reading its value as the device wrote it when that is a JSON number, else null. */
  readonly values: (string | null)[]
  /** For each element what `encodeSent` makes of its time, `seq` and `id`; '' for one without. */
  readonly sent: string[]
}

export interface JsonReader {
  /**
   * The readings of a payload, at least one. Element k of a list is received at `receivedAt` + k, in µs. `isAscii`: every
   * character is. Throws Refusal.
   */
  read(payload: string, isAscii: boolean, receivedAt: number, written: Written): Reading[]
}

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_LIST = 0x5b
const BACKSLASH = 0x5c
const CLOSE_LIST = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

/** Objects and lists inside one payload: as many as its readings can need, so that empty ones have a bound too. */
const BRANCHES_MAX = LIMITS.readingsPerMessageMax * LIMITS.payloadDepthMax

/** For the few entries of a message far cheaper than to set the length. */
export function empty(list: unknown[]): void {
  while (list.length > 0) list.pop()
}

export function openJsonReader(): JsonReader {
  const cursor = new JsonCursor()
  const names = openNameTable()
  let readings: Draft[] = []
  let written: Written = { values: [], sent: [] }
  /** Of the element at hand, µs. */
  let receivedAt = 0
  let branches = 0

  return { read }

  function read(payload: string, isAscii: boolean, at: number, into: Written): Reading[] {
    const found: Draft[] = []
    readings = found
    written = into
    empty(written.values)
    empty(written.sent)
    receivedAt = at
    branches = 0
    names.startMessage()
    cursor.open(payload, isAscii)
    try {
      readPayload()
    } finally {
      cursor.close()
      readings = []
    }
    return found
  }

  function readPayload(): void {
    const first = cursor.next()
    if (cursor.atEnd) throw new Refusal('empty')
    if (first === OPEN_OBJECT) readElement(1)
    else if (first === OPEN_LIST) readElements()
    else cursor.scanScalar(first)
    cursor.next()
    if (!cursor.atEnd) cursor.refuse()
    if (first !== OPEN_OBJECT && first !== OPEN_LIST) throw new Refusal('invalid_shape')
    if (readings.length === 0) throw new Refusal('empty')
  }

  function readElements(): void {
    if (opensEmpty(CLOSE_LIST)) return
    do {
      const first = cursor.next()
      if (first !== OPEN_OBJECT) {
        if (first !== OPEN_LIST) cursor.scanScalar(first)
        throw new Refusal('invalid_shape', 'In a list of readings something is not an object.')
      }
      readElement(2)
    } while (!endsAfter(CLOSE_LIST))
  }

  function readElement(depth: number): void {
    const before = readings.length
    const sent = readObjectOfReadings(depth)
    // One without readings is no element of what is stored.
    if (readings.length === before) return
    written.sent.push(sent)
    receivedAt++
  }

  /** Returns what it says of itself. One that starts like {ts, values} and turns out to be none is read a second time. */
  function readObjectOfReadings(depth: number): string {
    const start = cursor.at
    if (opensEmpty(CLOSE_OBJECT)) return ''
    const members = cursor.at
    const readingsBefore = readings.length
    const branchesBefore = branches
    names.startObject()
    const sent = mayBeTimed() ? readTimed(depth) : null
    if (sent !== null) return sent
    if (cursor.at !== members) {
      cursor.at = start + 1
      readings.length = readingsBefore
      written.values.length = readingsBefore
      branches = branchesBefore
      names.startObject()
    }
    readFlat(depth)
    return ''
  }

  /** A first key of t, v, s, i or an escape may be ts, values, seq or id; any other object is flat and need not be tried. */
  function mayBeTimed(): boolean {
    const letter = cursor.next() === QUOTE ? cursor.codeAt(cursor.at + 1) : 0
    return letter === 0x74 || letter === 0x76 || letter === 0x73 || letter === 0x69 || letter === BACKSLASH
  }

  /** {ts, values}: what it says of itself, when it is that and nothing else; its readings then have their time. Else null. */
  function readTimed(depth: number): string | null {
    const from = readings.length
    let ts: Value | undefined
    let tsWritten: string | null = null
    let seq: Value | undefined
    let id: Value | undefined
    let hasValues = false
    do {
      const key = readKey()
      const first = cursor.next()
      const isBranch = first === OPEN_OBJECT || first === OPEN_LIST
      if (key === 'values' && !hasValues && first === OPEN_OBJECT) {
        readObject('', depth + 1)
        hasValues = true
      } else if (key === 'ts' && ts === undefined && !isBranch) {
        ts = cursor.scanScalar(first)
        tsWritten = cursor.written
      } else if (key === 'seq' && seq === undefined && !isBranch) {
        seq = cursor.scanScalar(first)
      } else if (key === 'id' && id === undefined && !isBranch) {
        id = cursor.scanScalar(first)
      } else {
        return null
      }
    } while (!endsAfter(CLOSE_OBJECT))
    if (ts === undefined || !hasValues) return null
    stamp(from, parseTime(ts, tsWritten))
    return encodeSent(tsWritten ?? String(ts), seq, id)
  }

  function stamp(from: number, sentTs: number): void {
    const ts = effectiveTs(sentTs, receivedAt)
    for (let index = from; index < readings.length; index++) {
      const reading = readings[index] as Draft
      reading.ts = ts
      reading.sentTs = sentTs
    }
  }

  function readFlat(depth: number): void {
    let hasTs = false
    let hasValues = false
    do {
      const key = readKey()
      if (key === 'ts') hasTs = true
      else if (key === 'values') hasValues = true
      readMember(key, depth)
    } while (!endsAfter(CLOSE_OBJECT))
    if (!hasTs || !hasValues) return
    throw new Refusal(
      'invalid_shape',
      'ts and values need one time in ts, an object in values, and only seq and id beside them.',
    )
  }

  function readObject(prefix: string, depth: number): void {
    startBranch(depth)
    if (opensEmpty(CLOSE_OBJECT)) return
    do {
      const key = readKey()
      if (key === '') throw new Refusal('invalid_metric_name', 'A key is empty.')
      readMember(prefix === '' ? key : `${prefix}.${key}`, depth)
    } while (!endsAfter(CLOSE_OBJECT))
  }

  function readPlaces(prefix: string, depth: number): void {
    startBranch(depth)
    if (opensEmpty(CLOSE_LIST)) return
    let place = 0
    do readMember(`${prefix}.${place++}`, depth)
    while (!endsAfter(CLOSE_LIST))
  }

  function startBranch(depth: number): void {
    if (depth > LIMITS.payloadDepthMax)
      throw new Refusal('too_deep', `It is nested deeper than ${LIMITS.payloadDepthMax}.`)
    if (++branches <= BRANCHES_MAX) return
    throw new Refusal('too_many_readings', `It holds more than ${BRANCHES_MAX} objects and lists.`)
  }

  /** What stands under a path: one reading, or a branch. */
  function readMember(path: string, depth: number): void {
    const first = cursor.next()
    const metric = names.take(path)
    if (first === OPEN_OBJECT) readObject(metric, depth + 1)
    else if (first === OPEN_LIST) readPlaces(metric, depth + 1)
    else if (readings.length < LIMITS.readingsPerMessageMax) {
      readings.push({ metric, ts: receivedAt, receivedAt, value: cursor.scanScalar(first), sentTs: null })
      written.values.push(cursor.written)
    } else throw new Refusal('too_many_readings', `It holds more than ${LIMITS.readingsPerMessageMax} readings.`)
  }

  function readKey(): string {
    if (cursor.next() !== QUOTE) cursor.refuse()
    const key = cursor.scanText()
    if (cursor.next() !== COLON) cursor.refuse()
    cursor.at++
    return key
  }

  /** Steps into an object or list; true when it is closed at once. */
  function opensEmpty(close: number): boolean {
    cursor.at++
    if (cursor.next() !== close) return false
    cursor.at++
    return true
  }

  /** After a member: true at the end of its object or list, false when another follows. */
  function endsAfter(close: number): boolean {
    const code = cursor.next()
    if (code !== COMMA && code !== close) cursor.refuse()
    cursor.at++
    return code === close
  }
}
