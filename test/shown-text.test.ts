/** What a person is shown of a stranger's text. */
import { describe, expect, it } from 'vitest'
import { shownJson, shownLines, shownName, shownText } from '../shown-text.ts'

/** Control and format characters, separators, halves of pairs, non-characters, and what is shown as nothing. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}]/u

describe('text that is shown', () => {
  it.each([
    ['\u202eevil', '\\u202eevil'],
    ['a\u2066b\u2069', 'a\\u2066b\\u2069'],
    ['\u200bzero\u200dwidth\ufeff', '\\u200bzero\\u200dwidth\\ufeff'],
    ['line\u2028paragraph\u2029', 'line\\u2028paragraph\\u2029'],
    ['\x1b[2J\x00\x9b\r\n', '\\x1b[2J\\x00\\x9b\\x0d\\x0a'],
    ['half \ud83d of a pair', 'half \\ud83d of a pair'],
    ['tag \u{e0041}', 'tag \\u{e0041}'],
    ['heart \u2764\ufe0f', 'heart \u2764\\ufe0f'],
    ['\ufffe\u{1ffff}', '\\ufffe\\u{1ffff}'],
    ['filler \u3164', 'filler \\u3164'],
    ['soft\u00adhyphen', 'soft\\xadhyphen'],
  ])('stands with escapes: %#', (text, shown) => {
    expect(shownText(text)).toBe(shown)
    expect(JSON.parse(shownJson(JSON.stringify(text)))).toBe(text)
    expect(shownJson(JSON.stringify(text))).not.toMatch(UNSEEN)
  })

  it.each(['Temperatur °C', '温度', 'حرارة', 'טמפרטורה', 'e\u0301', '🌡', '−40 µS/cm', '\ufffd', 'C:\\x1b', ''])(
    'stays as it is: %s',
    text => {
      expect(shownText(text)).toBe(text)
      expect(shownJson(JSON.stringify(text))).toBe(JSON.stringify(text))
    },
  )

  it('holds none of the characters that are not seen, of all that there are, and JSON means the same', () => {
    for (let from = 0; from <= 0x10_ffff; from += 0x1000) {
      const text = String.fromCodePoint(...Array.from({ length: 0x1000 }, (_, at) => from + at))
      expect(shownText(text), from.toString(16)).not.toMatch(UNSEEN)
      const json = shownJson(JSON.stringify({ [text]: text }))
      expect(json, from.toString(16)).not.toMatch(UNSEEN)
      expect(JSON.parse(json)).toEqual({ [text]: text })
    }
  })

  it('is cut to 64 characters where it is a name, and never through one', () => {
    expect(shownName('🌡'.repeat(64))).toBe('🌡'.repeat(64))
    expect(shownName(`${'x'.repeat(63)}🌡🌡`)).toBe(`${'x'.repeat(63)}🌡…`)
    expect(shownName(`\u202e${'x'.repeat(64)}`)).toBe(`\\u202e${'x'.repeat(63)}…`)
  })

  it('keeps the lines that are ours', () => {
    expect(shownLines('one\ntwo\u202e\r\n')).toBe('one\ntwo\\u202e\\x0d\n')
    expect(shownJson(JSON.stringify({ a: ['\u202e'] }, null, 2))).toBe('{\n  "a": [\n    "\\u202e"\n  ]\n}')
  })
})
