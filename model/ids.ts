/**
 * Ids: which names a device and an MQTT client may have. Nothing is normalized or folded: two ids are the same when their
 * bytes are, and every order of ids is that of their UTF-8 bytes.
 */
import { LIMITS } from './limits.ts'

/** Nearly every device id passes by this at a fraction of the cost. */
const PLAIN_DEVICE_ID = /^[A-Za-z0-9._:-]{1,128}$/

/**
 * What a device id must not hold. `/`, `+` and `#` mean something in a topic; the rest is not printable: control and format
 * characters (zero-width ones, those that turn text around, tags), separators of lines and paragraphs, halves of surrogate
 * pairs, what is for private use, noncharacters, and U+FFFD, which decoding leaves for ill-formed UTF-8.
 *
 * Written out instead of as Unicode properties, so that no id is taken by one version of Node and refused by another: these
 * are the properties of Unicode 17, and the places where later versions put more of the same (U+2065, U+FFF0 to U+FFF8, U+E0000
 * to U+E0FFF).
 */
const NOT_IN_DEVICE_ID = new RegExp(
  [
    '[/+#',
    '\\u{0}-\\u{1f}\\u{7f}-\\u{9f}\\u{ad}\\u{600}-\\u{605}\\u{61c}\\u{6dd}\\u{70f}\\u{890}\\u{891}\\u{8e2}\\u{180e}',
    '\\u{200b}-\\u{200f}\\u{2028}-\\u{202e}\\u{2060}-\\u{206f}\\u{d800}-\\u{f8ff}\\u{fdd0}-\\u{fdef}\\u{feff}',
    '\\u{fff0}-\\u{fffb}\\u{fffd}-\\u{ffff}\\u{110bd}\\u{110cd}\\u{13430}-\\u{1343f}\\u{1bca0}-\\u{1bca3}',
    '\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e00ff}\\u{e01f0}-\\u{e0fff}\\u{f0000}-\\u{10ffff}',
    ...Array.from(
      { length: 14 },
      (_, plane) => `\\u{${(plane + 1).toString(16)}fffe}\\u{${(plane + 1).toString(16)}ffff}`,
    ),
    ']',
  ].join(''),
  'u',
)

/** A device id takes 1 to 128 characters (code points: 512 bytes at most), printable and none of `/`, `+`, `#`. */
export function isDeviceId(text: string): boolean {
  return PLAIN_DEVICE_ID.test(text) || deviceIdFault(text) === null
}

/** Why the text is no device id, as a sentence without the text itself; null when it is one. */
export function deviceIdFault(text: string): string | null {
  const { deviceIdCharsMax } = LIMITS
  if (text === '') return `A device id takes 1 to ${deviceIdCharsMax} characters; this one is empty.`
  if (isLonger(text, deviceIdCharsMax)) return `A device id takes up to ${deviceIdCharsMax} characters.`
  const odd = NOT_IN_DEVICE_ID.exec(text)?.[0].codePointAt(0)
  if (odd === undefined) return null
  const name =
    odd > 0x20 && odd < 0x7f ? String.fromCharCode(odd) : `U+${odd.toString(16).toUpperCase().padStart(4, '0')}`
  return `A device id takes printable characters but / + #; this one holds ${name}.`
}

/** A text has at most as many characters as UTF-16 units, and at least half as many. */
function isLonger(text: string, charsMax: number): boolean {
  if (text.length <= charsMax) return false
  return text.length > 2 * charsMax || Array.from(text).length > charsMax
}

const CONTROL = /[\u0000-\u001f\u007f-\u009f]/

/**
 * A client id that is not empty: any UTF-8 up to 256 bytes without control characters [MQTT-3.1.3-4, -5]. Ill-formed UTF-8 is not
 * told from U+FFFD here [MQTT-1.5.3-1]: whoever has the bytes looks for it.
 */
export function isClientId(text: string): boolean {
  return text !== '' && Buffer.byteLength(text) <= LIMITS.clientIdBytesMax && !CONTROL.test(text)
}
