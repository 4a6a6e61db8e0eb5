/**
 * Text of strangers where a person reads it: on a terminal, in a log, in a browser. What is stored is never changed [G3];
 * where it is shown, characters that are not seen, or that change how others are seen, stand as escapes. One U+202E turns
 * the rest of a line around, a zero-width space makes two names look the same, and ESC speaks to the terminal.
 *
 * Which ones, by the Unicode properties: control characters, format characters (those of the direction of writing among
 * them), separators of lines and paragraphs, halves of surrogate pairs, non-characters, and whatever is shown as nothing
 * when it is not known (UTS #39 keeps all of these out of identifiers; so do RFC 8264 and UTR #36 for their reasons). Letters
 * of any script stay, and so do all marks that are seen.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]/gu

/** JSON has its own escapes for what is below a space; outside of texts it has line feeds. */
const UNSEEN_IN_JSON =
  /[\x7f-\x9f\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]/gu

const NAME_CHARS_MAX = 64

/** Nearly every text passes by this at a fraction of the cost. */
const PLAIN = /^[\x20-\x7e]*$/
const PLAIN_JSON = /^[\x00-\x7e]*$/

/** One line for a person: `\x1b`, `\u202e` or `\u{e0001}` for what must not be seen as it is. */
export function shownText(text: string): string {
  return PLAIN.test(text) ? text : text.replace(UNSEEN, escaped)
}

/** A name that a stranger chose, as a log line shows it: its first 64 characters, as `shownText`. */
export function shownName(name: string): string {
  if (name.length <= NAME_CHARS_MAX) return shownText(name)
  // A character takes two units at most.
  const characters = Array.from(name.slice(0, 2 * NAME_CHARS_MAX + 1))
  const isCut = characters.length > NAME_CHARS_MAX
  return shownText(characters.slice(0, NAME_CHARS_MAX).join('')) + (isCut ? '…' : '')
}

/** As `shownText`, of a text whose line feeds are ours. */
export function shownLines(text: string): string {
  return text.split('\n').map(shownText).join('\n')
}

/** JSON that says the same to whoever parses it, with the escapes of JSON. */
export function shownJson(json: string): string {
  return PLAIN_JSON.test(json) ? json : json.replace(UNSEEN_IN_JSON, escapedInJson)
}

function escaped(character: string): string {
  const code = character.codePointAt(0) ?? 0
  const digits = code.toString(16)
  if (code < 0x100) return `\\x${digits.padStart(2, '0')}`
  return code < 0x10000 ? `\\u${digits.padStart(4, '0')}` : `\\u{${digits}}`
}

function escapedInJson(character: string): string {
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at))
  return units.map(unit => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
}
