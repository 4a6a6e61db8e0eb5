import { randomInt } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { openFingerprinter } from '../../ingest/fingerprint.ts'
import { openRepetitions, type Repetitions } from '../../ingest/repetitions.ts'
import { encodeLine, encodeReadings, type Message } from '../../model/message.ts'

const NOW = Date.UTC(2026, 10, 20, 12)
const random = () => randomInt(2 ** 32)

describe('the window of repetitions', () => {
  it('knows a message of the same device with the same readings, and no other', () => {
    const repetitions = openRepetitions(random, 64)
    expect(remember(repetitions, 'a', readings(1))).toBe(false)
    expect(remember(repetitions, 'a', readings(1))).toBe(true)
    expect(remember(repetitions, 'b', readings(1))).toBe(false)
    expect(remember(repetitions, 'a', readings(2))).toBe(false)
    expect(remember(repetitions, 'a', readings(1))).toBe(true)
  })

  it('knows at least as many of the last messages as one generation holds, and forgets the oldest', () => {
    const entriesMax = 1024
    const repetitions = openRepetitions(random, entriesMax)
    for (let index = 0; index < entriesMax * 5; index++) {
      expect(remember(repetitions, 'a', readings(index))).toBe(false)
      expect(remember(repetitions, 'a', readings(Math.max(0, index - entriesMax + 1)))).toBe(true)
    }
    expect(remember(repetitions, 'a', readings(0))).toBe(false)
  })

  it('finds no repetition among 200,000 messages that differ in one digit', () => {
    const repetitions = openRepetitions(random)
    let wrong = 0
    for (let index = 0; index < 200_000; index++) if (remember(repetitions, 'press-17', readings(index))) wrong++
    expect(wrong).toBe(0)
  })

  it('knows the messages of lines of the log by the text alone', () => {
    const repetitions = openRepetitions(random, 64)
    const messages = [message('a', 1, 'x'), message('b:c.d', 2, 'Tür "offen"\n'), message('a', 3, 'x'.repeat(200))]
    repetitions.rememberLines(Buffer.from(messages.map(encodeLine).join('\n')))
    for (const { device, readings } of messages) {
      expect(remember(repetitions, device, encodeReadings(readings))).toBe(true)
    }
    expect(remember(repetitions, 'a', encodeReadings(message('a', 2, 'x').readings))).toBe(false)
  })

  it('takes no line of which a reading has no time of its own', () => {
    const repetitions = openRepetitions(random, 64)
    const readings = [...message('a', 1, 'x').readings, { metric: 'm', ts: NOW, value: 1, sentTs: null }]
    repetitions.rememberLines(Buffer.from(`${encodeLine({ device: 'a', receivedAt: NOW, readings })}\n`))
    expect(remember(repetitions, 'a', encodeReadings(readings))).toBe(false)
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

/** Never at the start of the buffer: in a line something always stands before. */
function remember(repetitions: Repetitions, device: string, text: string): boolean {
  const bytes = Buffer.from(`---${text}---`)
  return repetitions.remember(device, bytes, 3, bytes.length - 3)
}

function message(device: string, index: number, value: string): Message {
  return { device, receivedAt: NOW, readings: [{ metric: 'm', ts: NOW - index, value, sentTs: NOW - index }] }
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
