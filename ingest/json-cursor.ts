/**
 * A cursor over the JSON text of a device: tokens and scalars of RFC 8259, each kept exactly or refused ([G3]).
 *
 * JSON.parse rounds whole numbers beyond 2^53 and turns 1e999 into Infinity and 1e-999 into 0 without a word. Here digits
 * alone are a whole number, exact to 64 digits; with a fraction or an exponent a number is the nearest IEEE 754 double.
 * Invariant: `at` only grows, except by who owns the cursor, so reading is linear in the text.
 */
import { LIMITS } from '../model/limits.ts'
import { ownText } from '../model/own-text.ts'
import type { Value } from '../model/reading.ts'
import { quote, Refusal } from './refusal.ts'

const QUOTE = 0x22
const PLUS = 0x2b
const MINUS = 0x2d
const DOT = 0x2e
const ZERO = 0x30
const NINE = 0x39
const UPPER_E = 0x45
const BACKSLASH = 0x5c
const LOWER_E = 0x65

/** Digits that a double always holds exactly. */
const EXACT_DIGITS = 15

/** 10^0 … 10^15. The quotient of two whole numbers that are exact doubles is the nearest double of the decimal. */
const POWERS = Array.from({ length: EXACT_DIGITS + 1 }, (_, exponent) => 10 ** exponent)

export class JsonCursor {
  at = 0
  /** The number scanned last, as it is written; null when the last scalar was something else. */
  written: string | null = null
  private text = ''
  private end = 0
  private isAscii = true

  /** `isAscii`: every character of `text` is. */
  open(text: string, isAscii: boolean): void {
    this.text = text
    this.end = text.length
    this.at = 0
    this.isAscii = isAscii
  }

  /** Lets go of the text. */
  close(): void {
    this.text = ''
    this.end = 0
  }

  get atEnd(): boolean {
    return this.at >= this.end
  }

  /** Skips white space; the character there, 0 at the end. */
  next(): number {
    let index = this.at
    let code = this.codeAt(index)
    while (code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09) code = this.codeAt(++index)
    this.at = index
    return code
  }

  /** NUL, which no place of JSON allows, stands for the end too: that spares each caller a question. */
  codeAt(index: number): number {
    return index < this.end ? this.text.charCodeAt(index) : 0
  }

  /** The scalar that begins with the character `first`. */
  scanScalar(first: number): Value {
    this.written = null
    if (first === QUOTE) return this.scanTextValue()
    if (first === MINUS || (first >= ZERO && first <= NINE)) {
      const start = this.at
      const value = this.scanNumber(first)
      this.written = this.text.slice(start, this.at)
      return value
    }
    if (this.text.startsWith('true', this.at)) return this.literal(4, true)
    if (this.text.startsWith('false', this.at)) return this.literal(5, false)
    if (this.text.startsWith('null', this.at)) return this.literal(4, null)
    return this.refuse()
  }

  /** A text at its opening quote: a key, or a value of any length. */
  scanText(): string {
    const { text, end } = this
    const start = this.at + 1
    for (let index = start; index < end; index++) {
      const code = text.charCodeAt(index)
      if (code === QUOTE) {
        this.at = index + 1
        return text.slice(start, index)
      }
      if (code === BACKSLASH) return this.scanEscapedText(start, index)
      if (code < 0x20) return this.refuse(index)
    }
    return this.refuse(end)
  }

  /** Throws Refusal for what stands at `at`. */
  refuse(at = this.at): never {
    const rest = this.text.slice(at, at + 10)
    if (/^-?(?:nan|inf)/i.test(rest)) throw new Refusal('not_a_number')
    throw new Refusal('invalid_json', at >= this.end ? 'It ends too early.' : `At character ${at}: ${quote(rest)}.`)
  }

  private literal<Literal extends Value>(chars: number, value: Literal): Literal {
    this.at += chars
    return value
  }

  private scanTextValue(): string {
    const value = this.scanText()
    const bytes = this.isAscii ? value.length : Buffer.byteLength(value)
    if (bytes <= LIMITS.textBytesMax) return ownText(value)
    throw new Refusal('text_too_long', `A text of ${bytes} bytes; ${LIMITS.textBytesMax} are kept.`)
  }

  private scanEscapedText(start: number, firstEscape: number): string {
    const { text, end } = this
    let index = firstEscape
    while (index < end) {
      const code = text.charCodeAt(index)
      if (code === QUOTE) break
      index += code === BACKSLASH ? 2 : 1
    }
    if (index >= end) this.refuse(end)
    this.at = index + 1
    this.isAscii = false
    return unescapeText(text.slice(start - 1, index + 1))
  }

  private scanNumber(first: number): number | bigint {
    const start = this.at
    const firstDigit = first === MINUS ? start + 1 : start
    let index = firstDigit
    let code = this.codeAt(index)
    let amount = 0
    for (; code >= ZERO && code <= NINE; code = this.codeAt(++index)) amount = amount * 10 + (code - ZERO)
    const digits = index - firstDigit
    if (digits === 0) this.refuse(index)
    if (digits > 1 && this.codeAt(firstDigit) === ZERO) this.refuse(firstDigit)
    if (code === DOT || code === LOWER_E || code === UPPER_E) return this.scanDecimal(start, index, amount)
    this.at = index
    if (digits > EXACT_DIGITS) return readInteger(this.text.slice(start, index))
    return first === MINUS ? -amount : amount
  }

  /** The rest of a number at its point or exponent. `whole` is the part before, right up to 15 digits. */
  private scanDecimal(start: number, point: number, whole: number): number {
    let index = point
    let amount = whole
    let code = this.codeAt(index)
    if (code === DOT) {
      code = this.codeAt(++index)
      for (; code >= ZERO && code <= NINE; code = this.codeAt(++index)) amount = amount * 10 + (code - ZERO)
      if (index === point + 1) this.refuse(index)
      const isShort = index - start <= EXACT_DIGITS + 1
      if (isShort && code !== LOWER_E && code !== UPPER_E) {
        this.at = index
        const value = amount / (POWERS[index - point - 1] as number)
        return this.codeAt(start) === MINUS ? -value : value
      }
    }
    if (code === LOWER_E || code === UPPER_E) {
      code = this.codeAt(++index)
      if (code === MINUS || code === PLUS) code = this.codeAt(++index)
      const exponent = index
      while (code >= ZERO && code <= NINE) code = this.codeAt(++index)
      if (index === exponent) this.refuse(index)
    }
    this.at = index
    return readDecimal(this.text.slice(start, index))
  }
}

function readInteger(literal: string): number | bigint {
  const value = Number(literal)
  if (Number.isSafeInteger(value)) return value
  const digits = literal.startsWith('-') ? literal.length - 1 : literal.length
  if (digits <= LIMITS.integerDigitsMax) return BigInt(literal)
  throw new Refusal('number_out_of_range', `A whole number of ${digits} digits; ${LIMITS.integerDigitsMax} are kept.`)
}

function readDecimal(literal: string): number {
  const value = Number(literal)
  if (!Number.isFinite(value)) throw new Refusal('number_out_of_range', `${quote(literal)} is beyond every double.`)
  if (value === 0 && /^[-0.]*[1-9]/.test(literal)) {
    throw new Refusal('number_out_of_range', `${quote(literal)} is not 0, but too small for a double.`)
  }
  return value
}

const LONE_SURROGATE = /\p{Surrogate}/u

/** The text of a JSON string with its quotes. The escapes are rare, and JSON.parse reads them well. */
function unescapeText(quoted: string): string {
  let value: string
  try {
    value = JSON.parse(quoted) as string
  } catch {
    throw new Refusal('invalid_json', `A text has an escape or a character that JSON does not know: ${quote(quoted)}.`)
  }
  if (LONE_SURROGATE.test(value)) throw new Refusal('invalid_text', `${quote(value)} has half a surrogate pair.`)
  return value
}
