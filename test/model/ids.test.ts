import { describe, expect, it } from 'vitest'
import { deviceIdFault, isClientId, isDeviceId } from '../../model/ids.ts'

/** What a Unicode property of this Node calls not printable. A later Unicode may add to these: then decide, and write it down. */
const NOT_PRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}\p{Noncharacter_Code_Point}\ufffd]/u
/** Taken already by what is left for more of the same in Unicode. */
const LEFT_FREE = /[\u2065\ufff0-\ufff8\u{e0000}-\u{e00ff}\u{e01f0}-\u{e0fff}]/u

describe('a device id', () => {
  it('may hold every character that is printable, but / + #', () => {
    const wrong: string[] = []
    for (let code = 0; code <= 0x10ffff; code++) {
      const character = String.fromCodePoint(code)
      const isFit = !/[/+#]/.test(character) && !NOT_PRINTABLE.test(character) && !LEFT_FREE.test(character)
      if (isDeviceId(`a${character}`) !== isFit) wrong.push(code.toString(16))
    }
    expect(wrong).toEqual([])
  })

  it.each([
    ['', 'A device id takes 1 to 128 characters; this one is empty.'],
    ['x'.repeat(129), 'A device id takes up to 128 characters.'],
    ['\u{1f321}'.repeat(129), 'A device id takes up to 128 characters.'],
    ['x'.repeat(100_000), 'A device id takes up to 128 characters.'],
    ['a+b', 'A device id takes printable characters but / + #; this one holds +.'],
    ['a\u202eb', 'A device id takes printable characters but / + #; this one holds U+202E.'],
    ['a\u{e0041}b', 'A device id takes printable characters but / + #; this one holds U+E0041.'],
    ['a\u0000', 'A device id takes printable characters but / + #; this one holds U+0000.'],
    ['a\ud83d', 'A device id takes printable characters but / + #; this one holds U+D83D.'],
    ['x'.repeat(128), null],
    ['\u{1f321}'.repeat(128), null],
  ])('%# is told why it is none', (text, fault) => {
    expect(deviceIdFault(text)).toBe(fault)
    expect(isDeviceId(text)).toBe(fault === null)
  })
})

it('a client id is any UTF-8 up to 256 bytes without control characters [MQTT-3.1.3-4]', () => {
  for (const id of ['ü'.repeat(128), '\u{1f321}'.repeat(64), 'a/b', '+', '\u202e', '\ue000'])
    expect(isClientId(id), id).toBe(true)
  for (const id of ['', `${'ü'.repeat(128)}x`, 'a\u0000', 'a\u007f', '\u009f']) expect(isClientId(id), id).toBe(false)
})
