/**
 * Strings that are kept. A string cut out of a topic or payload is, in V8, a view that keeps the whole of it alive:
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
