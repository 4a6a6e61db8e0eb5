/** The marks of QoS 2 messages in lines of the log, and ingest that finds them [MQTT-4.3.3-2]. */
import { describe, expect, it } from 'vitest'
import { openMarks } from '../../ingest/marks.ts'
import { encodeLine, encodeMark, findMarks, LINE_FORMAT, parseLines } from '../../model/message.ts'
import type { Reading } from '../../model/reading.ts'
import { OPEN_MESSAGES_MAX } from '../../sessions/sessions.ts'
import { NOW, open, publish, values } from './open-ingest.ts'

const READINGS: readonly Reading[] = [{ metric: 'v', ts: NOW * 1_000, receivedAt: NOW * 1_000, value: 1, sentTs: null }]

function mark(number: number, life = 'own', before = 'found') {
  return { before, life, number, print: 'AbC-_0123456789z' }
}

function line(number: number, life = 'own', value = '1'): string {
  const readings = READINGS.map(reading => ({ ...reading, value }))
  const message = { device: 'd', receivedAt: NOW * 1_000, readings }
  return encodeLine(message, { packet: number, mark: encodeMark(mark(number, life)) })
}

describe('marks in lines', () => {
  it('are found with their packet identifiers, and a line with one reads as one without', () => {
    const lines = `${line(1)}\n${encodeLine({ device: 'd', receivedAt: NOW * 1_000, readings: READINGS }, { packet: 3 })}\n${line(2)}`
    expect(findMarks(Buffer.from(lines))).toEqual([
      { ...mark(1), packet: 1 },
      { ...mark(2), packet: 2 },
    ])
    expect(parseLines(lines, LINE_FORMAT).map(({ device }) => device)).toEqual(['d', 'd', 'd'])
  })

  it('cannot be forged by a text or the name of a metric', () => {
    const forged = ',"qos2":"found own 9 AbC","packet":9,'
    const readings = READINGS.map(reading => ({ ...reading, metric: forged, value: forged }))
    const lines = encodeLine({ device: 'd', receivedAt: NOW * 1_000, readings }, { packet: 1, sent: [forged] })
    expect(findMarks(Buffer.from(lines))).toEqual([])
  })
})

describe('what is remembered of marks', () => {
  it('is found by either life, oldest first', () => {
    const marks = openMarks()
    marks.rememberLines(Buffer.from(`${line(1)}\n${line(2, 'other')}`))
    expect(marks.of('found').map(({ number }) => number)).toEqual([1, 2])
    expect(marks.of('other').map(({ number }) => number)).toEqual([2])
    expect(marks.of('nobody')).toEqual([])
  })

  it('is bounded in all and for one connection, and the newest stay', () => {
    const marks = openMarks(2_000)
    for (let number = 1; number <= OPEN_MESSAGES_MAX + 5; number++) marks.rememberLines(Buffer.from(line(number)))
    expect(marks.of('own')).toHaveLength(OPEN_MESSAGES_MAX)
    expect(marks.of('own')[0]?.number).toBe(6)
    for (let number = 1; number <= 1_000; number++) marks.rememberLines(Buffer.from(line(number, `life-${number}`)))
    expect(marks.of('own')).toHaveLength(1_000)
    expect(marks.of('found')).toHaveLength(2_000)
  })
})

describe('ingest', () => {
  it('writes the mark of a message into its line, finds it at its next start, and in what others append', async () => {
    const { ingest, pump } = await open()
    ingest.offer(publish('a', { packet: 7, mark: encodeMark(mark(1)) }))
    const append = await pump.next()
    const [written = ''] = append.batch.lines.toString().split('\n')
    expect(written).toContain('"qos2":"found own 1 AbC-_0123456789z","packet":7,"readings":')
    expect(values(append.batch)).toEqual(['a'])
    expect(ingest.marksOf('own')).toEqual([])
    const { ingest: next, pump: others } = await open({ tail: [written] })
    expect(next.marksOf('own')).toEqual([{ ...mark(1), packet: 7 }])
    others.byOthers.push(line(2))
    await next.catchUp()
    expect(next.marksOf('found').map(({ number }) => number)).toEqual([1, 2])
  })

  it('settles a repetition behind its original, counts it and lists it [G1] [G7]', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(publish('a', { packet: 7 }))
    ingest.offerRepeated(publish('a again', { packet: 7, dup: true }))
    const append = await pump.next()
    expect(append.batch.messages).toBe(1)
    expect(append.batch.counts).toMatchObject({ received: 2, repeated: 1, quarantined: 0, letGo: {} })
    expect(append.batch.repeated).toMatchObject([{ why: 'qos2', device: 'd' }])
    expect(settled).toEqual([])
    await append.succeed()
    expect(settled).toEqual(['a', 'a again'])
  })
})
