/**
 * Strings that the space keeps. A string cut out of a topic or payload is, in V8, a view that keeps the whole of it alive:
 * what stays for as long as the device must be a copy of its own.
 */

/** Shorter cuts are copied by V8 itself. */
const CUT_CHARS_MIN = 13

/** Half of a surrogate pair: no UTF-8 can hold it. */
const LONE_SURROGATE = /\p{Surrogate}/u

/** The same text, in memory of its own. */
export function ownText(text: string): string {
  if (text.length < CUT_CHARS_MIN) return text
  const encoding = LONE_SURROGATE.test(text) ? 'utf16le' : 'utf8'
  return Buffer.from(text, encoding).toString(encoding)
}

/** Order of the UTF-8 bytes of two texts, without making them: negative, zero or positive. */
export function compareBytewise(a: string, b: string): number {
  const chars = Math.min(a.length, b.length)
  for (let at = 0; at < chars; at++) {
    const unitA = a.charCodeAt(at)
    const unitB = b.charCodeAt(at)
    if (unitA !== unitB) return inByteOrder(unitA) - inByteOrder(unitB)
  }
  return a.length - b.length
}

/** UTF-16 puts surrogates, halves of what is above U+FFFF, before U+E000; their bytes come after U+FFFF. */
function inByteOrder(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
}
