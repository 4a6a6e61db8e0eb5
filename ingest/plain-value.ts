/**
 * A payload that is one plain value, as `devices/{device}/telemetry/{metric}` takes it: what Tasmota, Homie and a shell
 * script send. Not JSON, but numbers follow its grammar, so that `1,5`, `007` and `0x1f` stay the texts that they are.
 *
 * true, false, on and off, in any case, are booleans; a number is a number; NaN and Infinity in any spelling are refused;
 * all else is a text as it was sent, quotes and all. White space around a number or boolean is no part of it.
 */
import { LIMITS } from '../model/limits.ts'
import { ownText } from '../model/own-text.ts'
import type { Value } from '../model/reading.ts'
import { JsonCursor } from './json-cursor.ts'
import { quote, Refusal } from './refusal.ts'

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/
const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ['true', true],
  ['on', true],
  ['false', false],
  ['off', false],
])
const NO_NUMBER = /^[+-]?(?:nan|inf|infinity)$/i
const CONTROL = /[\u0000-\u001f\u007f-\u009f\ufeff]/

const cursor = new JsonCursor()

/** The value of a payload that is UTF-8. Throws Refusal. */
export function parsePlainValue(payload: string): Value {
  const trimmed = trim(payload)
  if (trimmed === '') throw new Refusal('empty')
  if (NUMBER.test(trimmed)) return readNumber(trimmed)
  if (trimmed.length <= 5) {
    const boolean = BOOLEANS.get(trimmed.toLowerCase())
    if (boolean !== undefined) return boolean
  }
  if (NO_NUMBER.test(trimmed)) throw new Refusal('not_a_number')
  const bytes = Buffer.byteLength(payload)
  if (bytes > LIMITS.textBytesMax) {
    throw new Refusal('text_too_long', `A text of ${bytes} bytes; ${LIMITS.textBytesMax} are kept.`)
  }
  if (CONTROL.test(payload)) throw new Refusal('invalid_text', `${quote(payload)} has control characters.`)
  return ownText(payload)
}

function readNumber(text: string): Value {
  cursor.open(text, true)
  try {
    return cursor.scanScalar(cursor.next())
  } finally {
    cursor.close()
  }
}

/** Only the white space that JSON knows: String.trim would take away a byte order mark too. */
function trim(text: string): string {
  let from = 0
  let to = text.length
  while (from < to && isSpace(text.charCodeAt(from))) from++
  while (to > from && isSpace(text.charCodeAt(to - 1))) to--
  return text.slice(from, to)
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09
}
