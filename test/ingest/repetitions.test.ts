import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openFingerprinter } from '../../ingest/fingerprint.ts'
import { type Origin, openRepetitions, type Repetition, type Repetitions } from '../../ingest/repetitions.ts'
import { encodeLine, encodeReadings, encodeSent, LINE_FORMAT, type Message } from '../../model/message.ts'

import { ODD_DEVICE_IDS } from '../model/odd-ids.ts'

const NOW = Date.UTC(2026, 10, 20, 12)
const random = () => randomInt(2 ** 32)

describe('a message on the connection that brought its equal', () => {
  it('is new with DUP=0, however often it comes [MQTT-4.4.0-1, MQTT-3.3.1-1]', () => {
    const repetitions = openRepetitions(random, 64)
    for (const [at, door] of ['true', 'false', 'true', 'false', 'true', 'true'].entries()) {
      expect(remember(repetitions, 'a', door, from(1, { packet: at + 1 }))).toBe(null)
    }
  })

  it('is a repetition with DUP=1 and the same packet identifier, and new with another', () => {
    const repetitions = openRepetitions(random, 64)
    expect(remember(repetitions, 'a', readings(1), from(1, { packet: 7 }))).toBe(null)
    expect(remember(repetitions, 'a', readings(1), from(1, { packet: 8, dup: true }))).toBe(null)
    expect(remember(repetitions, 'a', readings(1), from(1, { packet: 7, dup: true }))).toBe('dup')
    expect(remember(repetitions, 'a', readings(1), from(1, { packet: 8, dup: true }))).toBe('dup')
    expect(remember(repetitions, 'a', readings(2), from(1, { packet: 7, dup: true }))).toBe(null)
    expect(remember(repetitions, 'b', readings(1), from(1, { packet: 7, dup: true }))).toBe(null)
  })

  it('is a repetition with DUP=1 as often as it comes: its acknowledgement may be lost again', () => {
    const repetitions = openRepetitions(random, 64)
    remember(repetitions, 'a', readings(1), from(1, { packet: 7 }))
    for (const connection of [1, 2, 2, 3, 1]) {
      expect(remember(repetitions, 'a', readings(1), from(connection, { packet: 7, dup: true }))).toBe('dup')
    }
  })
})

describe('a message on another connection than its equal', () => {
  it('is a repetition of each original once: true, false, true sent again are three, and a fourth is new', () => {
    const repetitions = openRepetitions(random, 64)
    for (const door of ['true', 'false', 'true']) expect(remember(repetitions, 'a', door, from(1))).toBe(null)
    for (const connection of [2, 3]) {
      for (const door of ['true', 'false', 'true']) {
        expect(remember(repetitions, 'a', door, from(connection))).toBe('other_connection')
      }
      expect(remember(repetitions, 'a', 'true', from(connection))).toBe(connection === 2 ? null : 'other_connection')
    }
    expect(remember(repetitions, 'a', 'true', from(3))).toBe(null)
  })

  it('is a repetition with DUP=1 only of the original with its packet identifier', () => {
    const repetitions = openRepetitions(random, 64)
    remember(repetitions, 'a', readings(1), from(1, { packet: 7 }))
    expect(remember(repetitions, 'a', readings(1), from(2, { packet: 8, dup: true }))).toBe(null)
    expect(remember(repetitions, 'a', readings(1), from(2, { packet: 7, dup: true }))).toBe('dup')
  })

  it('is new with DUP=0 once its connection has sent one with DUP=1 [MQTT-3.3.1-1]', () => {
    const repetitions = openRepetitions(random, 64)
    remember(repetitions, 'a', readings(1), from(1, { packet: 7 }))
    remember(repetitions, 'a', readings(2), from(1, { packet: 8 }))
    const marks = { marksDup: true }
    expect(remember(repetitions, 'a', readings(1), from(2, { packet: 7, dup: true, ...marks }))).toBe('dup')
    expect(remember(repetitions, 'a', readings(2), from(2, { packet: 9, ...marks }))).toBe(null)
    expect(remember(repetitions, 'a', readings(2), from(3, { packet: 1 }))).toBe('other_connection')
  })

  it('is none of another device', () => {
    const repetitions = openRepetitions(random, 64)
    remember(repetitions, 'a', readings(1), from(1))
    expect(remember(repetitions, 'b', readings(1), from(2))).toBe(null)
  })

  it.each([
    ['seq', encodeSent('1763640000', 1, undefined), encodeSent('1763640000', 2, undefined)],
    ['a seq beside none', encodeSent('1763640000', 1, undefined), encodeSent('1763640000', undefined, undefined)],
    ['a seq that is a text', encodeSent('1763640000', 1, undefined), encodeSent('1763640000', '1', undefined)],
    ['id', encodeSent('1763640000', undefined, 'a'), encodeSent('1763640000', undefined, 'b')],
    ['a seq and an id', encodeSent('1763640000', 1, undefined), encodeSent('1763640000', undefined, 1)],
    [
      'a time in s and in ms',
      encodeSent('1763640000', undefined, undefined),
      encodeSent('1763640000000', undefined, undefined),
    ],
    [
      'a time in s and in ISO 8601',
      encodeSent('1763640000', undefined, undefined),
      encodeSent('2025-11-20T12:00:00Z', undefined, undefined),
    ],
    [
      'digits of ns',
      encodeSent('1763640000000000001', undefined, undefined),
      encodeSent('1763640000000000002', undefined, undefined),
    ],
    [
      'zeros of a fraction',
      encodeSent('1763640000.0', undefined, undefined),
      encodeSent('1763640000.00', undefined, undefined),
    ],
  ])('is none of one that differs by %s', (_, one, other) => {
    const repetitions = openRepetitions(random, 64)
    const at = NOW * 1000
    const reading = { metric: 'door', ts: at, receivedAt: at, value: true, sentTs: at }
    const text = (sent: string) => encodeReadings([reading], [], [sent])
    expect(remember(repetitions, 'a', text(one), from(1))).toBe(null)
    expect(remember(repetitions, 'a', text(other), from(2))).toBe(null)
    expect(remember(repetitions, 'a', text(one), from(3))).toBe('other_connection')
    expect(remember(repetitions, 'a', text(other), from(3))).toBe('other_connection')
  })

  it('is recognised whoever sent what before, as long as each connection sends what it sends again first', () => {
    const doors = fc.array(fc.boolean(), { maxLength: 20 })
    fc.assert(
      fc.property(doors, fc.nat(20), doors, (sent, from0, more) => {
        const repetitions = openRepetitions(random, 256)
        const all = sent.map((door, at) => remember(repetitions, 'a', String(door), from(1, { packet: at + 1 })))
        expect(all).toEqual(sent.map(() => null))
        // The window of a device that did not see its last acknowledgements: again on a new connection, then what is new.
        const again = sent.slice(Math.min(from0, sent.length))
        const repeated = again.map(door => remember(repetitions, 'a', String(door), from(2)))
        expect(repeated).toEqual(again.map(() => 'other_connection'))
        const marked = more.map((door, at) => {
          const origin = from(3, { packet: 1000 + at, marksDup: true })
          return remember(repetitions, 'a', String(door), origin)
        })
        expect(marked).toEqual(more.map(() => null))
      }),
      { numRuns: 300 },
    )
  })
})

describe('the window of repetitions', () => {
  it('knows at least as many of the last messages as one generation holds, and forgets the oldest', () => {
    const entriesMax = 1024
    const repetitions = openRepetitions(random, entriesMax)
    let connection = 1
    for (let index = 0; index < entriesMax * 5; index++) {
      expect(remember(repetitions, 'a', readings(index), from(1))).toBe(null)
      connection = (connection % 0xfffe) + 2
      const old = readings(Math.max(0, index - entriesMax + 1))
      expect(remember(repetitions, 'a', old, from(connection))).toBe('other_connection')
    }
    expect(remember(repetitions, 'a', readings(0), from(2))).toBe(null)
  })

  it('finds no repetition among 200,000 messages that differ in one digit', () => {
    const repetitions = openRepetitions(random)
    let wrong = 0
    for (let index = 0; index < 200_000; index++) {
      if (remember(repetitions, 'press-17', readings(index), from(index % 2 === 0 ? 1 : 2)) !== null) wrong++
    }
    expect(wrong).toBe(0)
  })

  it('tells connections apart up to the last number', () => {
    const repetitions = openRepetitions(random, 64)
    remember(repetitions, 'a', readings(1), from(0xffff, { packet: 0xffff }))
    expect(remember(repetitions, 'a', readings(1), from(0xffff, { packet: 1 }))).toBe(null)
    expect(remember(repetitions, 'a', readings(1), from(0x7fff))).toBe('other_connection')
    expect(remember(repetitions, 'a', readings(1), from(0xfffe))).toBe('other_connection')
    expect(remember(repetitions, 'a', readings(1), from(0xfffe, { packet: 0xffff, dup: true }))).toBe('dup')
  })

  it('knows of one identity the last 128, and all of what other devices send beside it', () => {
    const repetitions = openRepetitions(random, 4096)
    for (let index = 0; index < 1_000; index++) {
      expect(remember(repetitions, 'same', readings(0), from(1, { packet: index + 1 }))).toBe(null)
      expect(remember(repetitions, 'other', readings(index), from(1))).toBe(null)
    }
    const dup = (packet: number) => remember(repetitions, 'same', readings(0), from(1, { packet, dup: true }))
    for (let packet = 1_000; packet > 1_000 - 128; packet--) expect(dup(packet)).toBe('dup')
    expect(dup(1_000 - 128)).toBe(null)
    for (let index = 0; index < 1_000; index++) {
      expect(remember(repetitions, 'other', readings(index), from(2))).toBe('other_connection')
    }
  })

  it('knows of each of several identities the last 128, however their messages alternate', () => {
    const repetitions = openRepetitions(random, 2 ** 16)
    const devices = Array.from({ length: 32 }, (_, number) => `stuck-${number}`)
    for (let packet = 1; packet <= 300; packet++) {
      for (const device of devices) expect(remember(repetitions, device, readings(0), from(1, { packet }))).toBe(null)
    }
    for (const device of devices) {
      for (let packet = 300; packet > 300 - 128; packet--) {
        expect(remember(repetitions, device, readings(0), from(2, { packet, dup: true }))).toBe('dup')
      }
    }
  })

  it('never gives an original to a connection that had used it up, also when a newer one has since', () => {
    const repetitions = openRepetitions(random, 64)
    const [first, second] = [from(8), from(9)]
    const line = encodeLine(message('a', 1, 'open'), { packet: 1 })
    repetitions.rememberLines(Buffer.from(line), LINE_FORMAT)
    const text = encodeReadings(message('a', 1, 'open').readings)
    expect(remember(repetitions, 'a', text, first)).toBe('other_connection')
    expect(remember(repetitions, 'a', text, second)).toBe('other_connection')
    expect(remember(repetitions, 'a', text, first)).toBe(null)
  })

  it('costs no more for each of 20,000 equal messages than for each of 1,000', () => {
    const perMessage = (count: number) => {
      const repetitions = openRepetitions(random)
      const bytes = Buffer.from(readings(0))
      const line = { lines: bytes, readingsAt: 0, readingsEnd: bytes.length }
      const origin = from(1)
      const start = process.cpuUsage()
      for (let index = 0; index < count; index++) repetitions.remember('same', line, origin)
      const { user, system } = process.cpuUsage(start)
      return (user + system) / count
    }
    const least = (count: number) => Math.min(...Array.from({ length: 3 }, () => perMessage(count)))
    least(1_000)
    // Without the bound each would be compared with all before it: 10,000 instead of 500, in the middle.
    expect(least(20_000) / least(1_000)).toBeLessThan(5)
  })
})

describe('lines of the log', () => {
  const messages = [message('a', 1, 'x'), message('b:c.d', 2, 'Tür "offen"\n'), message('a', 3, 'x'.repeat(200))]

  it('are known by the text alone, each once for each connection, and with DUP=1 by the packet identifier', () => {
    const repetitions = openRepetitions(random, 64)
    const lines = messages.map((one, at) => encodeLine(one, { packet: at + 1 }))
    repetitions.rememberLines(Buffer.from(lines.join('\n')), LINE_FORMAT)
    for (const [at, { device, readings }] of messages.entries()) {
      const text = encodeReadings(readings)
      expect(remember(repetitions, device, text, from(1, { packet: at + 1, dup: true }))).toBe('dup')
      expect(remember(repetitions, device, text, from(1, { packet: at + 2, dup: true }))).toBe(null)
      expect(remember(repetitions, device, text, from(2))).toBe('other_connection')
    }
    expect(remember(repetitions, 'a', encodeReadings(message('a', 2, 'x').readings), from(1))).toBe(null)
  })

  it('of devices with odd ids are those of their device, and of no other', () => {
    const repetitions = openRepetitions(random)
    const lines = ODD_DEVICE_IDS.map((device, at) => encodeLine(message(device, 0, 'open'), { packet: at + 1 }))
    repetitions.rememberLines(Buffer.from(`${lines.join('\n')}\n`), LINE_FORMAT)
    const text = encodeReadings(message('a', 0, 'open').readings)
    for (const [at, device] of ODD_DEVICE_IDS.entries()) {
      expect(remember(repetitions, device, text, from(1, { packet: at + 1, dup: true })), device).toBe('dup')
      expect(remember(repetitions, device, text, from(1, { packet: 9_999, dup: true })), device).toBe(null)
      expect(remember(repetitions, device, text, from(2)), device).toBe('other_connection')
    }
  })

  it('of a door that opens, closes and opens are three for who sends them again', () => {
    const repetitions = openRepetitions(random, 64)
    const doors = ['open', 'closed', 'open'].map(door => message('a', 0, door))
    const lines = doors.map((door, at) => `${encodeLine(door, { packet: at + 1 })}\n`)
    repetitions.rememberLines(Buffer.from(lines.join('')), LINE_FORMAT)
    for (const { readings } of doors) {
      expect(remember(repetitions, 'a', encodeReadings(readings), from(1))).toBe('other_connection')
    }
    expect(remember(repetitions, 'a', encodeReadings(doors[0]?.readings ?? []), from(1))).toBe(null)
  })

  it('that came at QoS 0 are not taken: nothing sends them again', () => {
    const repetitions = openRepetitions(random, 64)
    const door = message('a', 0, 'open')
    repetitions.rememberLines(Buffer.from(encodeLine(door)), LINE_FORMAT)
    expect(remember(repetitions, 'a', encodeReadings(door.readings), from(1))).toBe(null)
  })

  it('of lists, of what the device wrote and of any packet identifier have the identity that the message has', () => {
    const repetitions = openRepetitions(random, 64)
    const at = NOW * 1000
    const readings = [0, 1].map(element => {
      return { metric: 'm', ts: at, receivedAt: at + element, value: '","packet":5,"readings":[', sentTs: at }
    })
    const sent = ['1795176000 seq=1', '1795176000.0 id=",\\"readings\\":["']
    const line = encodeLine({ device: 'a', receivedAt: at, readings }, { packet: 65_535, sent })
    repetitions.rememberLines(Buffer.from(`${line}\n`), LINE_FORMAT)
    const text = encodeReadings(readings, [], sent)
    expect(remember(repetitions, 'a', text, from(1, { packet: 65_535, dup: true }))).toBe('dup')
    expect(remember(repetitions, 'a', text, from(2))).toBe('other_connection')
  })

  it('of which a reading has no time of its own are not taken', () => {
    const repetitions = openRepetitions(random, 64)
    const at = NOW * 1000
    const readings = [
      ...message('a', 1, 'x').readings,
      { metric: 'm', ts: at + 1, receivedAt: at + 1, value: 1, sentTs: null },
    ]
    repetitions.rememberLines(Buffer.from(`${encodeLine({ device: 'a', receivedAt: at, readings })}\n`), LINE_FORMAT)
    expect(remember(repetitions, 'a', encodeReadings(readings), from(1))).toBe(null)
  })

  it('of format 1 have the identity of the same message sent again now, if its time was in whole ms', () => {
    const repetitions = openRepetitions(random, 64)
    const lines = [
      `{"device":"a","receivedAt":${NOW},"readings":[["m",${NOW - 1},"x"],["n",${NOW - 1},21.5],["o",${NOW - 1},9007199254740993]]}`,
      `{"device":"a","receivedAt":${NOW},"readings":[["m",${NOW - 2},",123,"]]}`,
    ]
    repetitions.rememberLines(Buffer.from(lines.join('\n')), 1)
    const again = (values: readonly [string, string | number | bigint][], ms: number) => {
      const readings = values.map(([metric, value]) => {
        return { metric, ts: ms * 1000, receivedAt: NOW * 1000, value, sentTs: ms * 1000 }
      })
      return encodeReadings(readings)
    }
    const first = again(
      [
        ['m', 'x'],
        ['n', 21.5],
        ['o', 9007199254740993n],
      ],
      NOW - 1,
    )
    // A line of format 1 does not tell its packet identifier: any will do.
    expect(remember(repetitions, 'a', first, from(1, { packet: 9, dup: true }))).toBe('dup')
    expect(remember(repetitions, 'a', first, from(2))).toBe('other_connection')
    expect(remember(repetitions, 'a', first, from(2))).toBe(null)
    expect(remember(repetitions, 'a', again([['m', ',123,']], NOW - 2), from(1))).toBe('other_connection')
  })
})

describe('a fingerprint', () => {
  it('is the same for the same message, and of another process different', () => {
    const [one, two] = [openFingerprinter(random), openFingerprinter(random)]
    expect(print(one, 'a', readings(1))).toEqual(print(one, 'a', readings(1)))
    expect(print(one, 'a', readings(1))).not.toEqual(print(two, 'a', readings(1)))
  })

  it('tells device and readings apart where one ends and the other begins, and long messages from each other', () => {
    const fingerprint = openFingerprinter(random)
    expect(print(fingerprint, 'ab', 'c')).not.toEqual(print(fingerprint, 'b', 'ca'))
    const long = 'x'.repeat(100_000)
    expect(print(fingerprint, 'a', `${long}1`)).not.toEqual(print(fingerprint, 'a', `${long}2`))
    expect(print(fingerprint, 'a', 'x')).not.toEqual(print(fingerprint, 'a', 'x\u0001'))
  })

  it('tells devices apart whose characters have the same low bytes', () => {
    const fingerprint = openFingerprinter(random)
    const ids = [
      '\u00fc',
      '\u01fc',
      '\u02fc',
      '\u00fc\u0101',
      '\u00fc\u0001',
      '\u{1f321}',
      '\u{1f3fd}',
      'ü'.repeat(128),
    ]
    ids.push(`${'ü'.repeat(127)}\u01fc`, '\u{1f321}'.repeat(128), `${'\u{1f321}'.repeat(127)}\u{1f721}`)
    const prints = ids.map(id => print(fingerprint, id, readings(1)).join())
    expect(new Set(prints).size).toBe(ids.length)
  })

  it('changes in half of its bits, in each of its words, when one character changes', () => {
    const fingerprint = openFingerprinter(random)
    const changed = [0, 0, 0, 0]
    const rounds = 2_000
    for (let index = 0; index < rounds; index++) {
      const a = print(fingerprint, 'press-17', readings(index))
      const b = print(fingerprint, 'press-17', readings(index + 1))
      a.forEach((word, at) => {
        changed[at] = (changed[at] ?? 0) + ones(word ^ (b[at] ?? 0))
      })
    }
    for (const bits of changed) expect(Math.abs(bits / rounds - 16)).toBeLessThan(0.5)
  })
})

function readings(index: number): string {
  return `[["temperature",${NOW + index},21.5]]`
}

function from(connection: number, more: Partial<Origin> = {}): Origin {
  return { connection, packet: 1, dup: false, marksDup: false, ...more }
}

/** Never at the start of the buffer: in a line something always stands before. */
function remember(repetitions: Repetitions, device: string, text: string, origin: Origin): Repetition | null {
  const lines = Buffer.from(`---${text}---`)
  return repetitions.remember(device, { lines, readingsAt: 3, readingsEnd: lines.length - 3 }, origin)
}

function message(device: string, ago: number, value: string): Message {
  const ts = (NOW - ago) * 1000
  return { device, receivedAt: NOW * 1000, readings: [{ metric: 'm', ts, receivedAt: NOW * 1000, value, sentTs: ts }] }
}

function print(fingerprint: ReturnType<typeof openFingerprinter>, device: string, text: string): number[] {
  const words = new Int32Array(4)
  const bytes = Buffer.from(text)
  fingerprint(device, bytes, 0, bytes.length, words)
  return [...words]
}

function ones(word: number): number {
  let count = 0
  for (let rest = word >>> 0; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2
  return count
}
