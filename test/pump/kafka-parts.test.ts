/** The parts of the Kafka pump that decide and touch nothing. */
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import type { FetchedRecord, KafkaRecord } from '../../pump/kafka-client.ts'
import { assignPartitions } from '../../pump/kafka-group.ts'
import { decodePosition, encodePosition } from '../../pump/kafka-positions.ts'
import { chunkRecord, isOf, toChunk, toLetterEntry, toRefusedEntry } from '../../pump/kafka-record.ts'
import { judgeTopic } from '../../pump/kafka-topics.ts'
import { batchOf, lineOf, RECEIVED_AT } from '../contracts/pump-samples.ts'

describe('a chunk as a record', () => {
  const name = { unit: 'unit-a', number: 7 }

  it('comes back as it was, and tells whose it is [G3]', () => {
    const counts = { received: 12, repeated: 3, quarantined: 1, letGo: { qos0_overload: 3, presence: 1 } }
    const batch = batchOf(3, 4, { readings: 9, counts })
    const record = fetched(chunkRecord(batch, name))
    expect(toChunk(2, record)).toEqual({
      partition: 2,
      position: 41,
      format: 2,
      messages: 4,
      readings: 9,
      firstReceivedAt: RECEIVED_AT + 3,
      lastReceivedAt: RECEIVED_AT + 7,
      lines: batch.lines,
      counts,
      unit: 'unit-a',
    })
    expect(isOf(record, name)).toBe(true)
    expect(isOf(record, { ...name, number: 8 })).toBe(false)
    expect(isOf(record, { ...name, unit: 'unit-b' })).toBe(false)
  })

  it('is refused when one byte of it has changed', () => {
    const record = fetched(chunkRecord(batchOf(0, 2), name))
    const value = Buffer.from(record.value ?? '')
    value[5] = (value[5] ?? 0) ^ 1
    expect(() => toChunk(0, { ...record, value })).toThrowError(/does not match its checksum/)
  })

  it('of version 1 is read as before, and counts what it holds', () => {
    const lines = Buffer.from(lineOf(0))
    const words = ['1', 'unit-a', 7, 1, 1, RECEIVED_AT, RECEIVED_AT, crc32(lines)]
    const record = fetched({ value: lines, headers: { surgetank: words.join(' ') } })
    const counts = { received: 1, repeated: 0, quarantined: 0, letGo: {} }
    expect(toChunk(0, record)).toMatchObject({ format: 1, messages: 1, lines, counts, unit: 'unit-a' })
    expect(isOf(record, name)).toBe(true)
  })

  it('without lines holds what was counted, as of when Kafka took it', () => {
    const counts = { received: 2, repeated: 2, quarantined: 0, letGo: {} }
    const batch = batchOf(0, 0, { counts, firstReceivedAt: 0, lastReceivedAt: 0 })
    const chunk = toChunk(0, fetched(chunkRecord(batch, name)))
    const times = { firstReceivedAt: RECEIVED_AT, lastReceivedAt: RECEIVED_AT }
    expect(chunk).toMatchObject({ messages: 0, readings: 0, lines: Buffer.alloc(0), counts, ...times })
  })

  it.each(['3 what ever', '2 too few words'])(
    'of a newer version (%s) stops whoever reads it, named as newer',
    words => {
      const record = fetched({ value: Buffer.alloc(0), headers: { surgetank: words } })
      expect(() => toChunk(0, record)).toThrowError(/written by a newer surgetank.*Start the newer surgetank/)
    },
  )

  it('that somebody else wrote is a chunk of nothing', () => {
    const chunk = toChunk(0, fetched({ value: Buffer.from('hello'), headers: {} }))
    expect(chunk).toMatchObject({ position: 41, messages: 0, readings: 0, lines: Buffer.alloc(0), unit: null })
    expect(toRefusedEntry(fetched({ value: Buffer.from('x'), headers: {} }))).toBeNull()
    expect(toLetterEntry(fetched({ value: Buffer.from('x'), headers: {} }))).toBeNull()
  })
})

describe('a position as metadata', () => {
  const sums = { received: 2 ** 50, accepted: 2 ** 49, repeated: 7, quarantined: 2, letGo: { qos0_overload: 5 } }
  const messages = { since: RECEIVED_AT, sums }
  const plan = { to: 20, mode: 'bisected' as const }
  const position = { position: 12, plan, readings: 2 ** 40, deadLetters: 3, messages }

  it('comes back as it was, and fits into what Kafka allows [G2]', () => {
    for (const one of [
      position,
      { ...position, plan: null },
      { ...position, plan: { to: 13, mode: 'whole' as const } },
      { ...position, messages: { since: null, sums } },
      { ...position, messages: null },
    ]) {
      const text = encodePosition('topic-id', one)
      expect(text.length).toBeLessThan(4_096)
      expect(decodePosition('topic-id', 12, text)).toEqual(one)
    }
  })

  it('fits also when messages were let go for as many reasons as there may be', () => {
    const letGo = Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`reason_${n}`.padEnd(32, 'x'), 2 ** 40]))
    expect(
      encodePosition('topic-id', { ...position, messages: { since: null, sums: { ...sums, letGo } } }).length,
    ).toBeLessThan(4_096)
  })

  it('of a version that did not count messages is taken, without them', () => {
    const text = '{"v":1,"id":"topic-id","n":5,"d":1}'
    expect(decodePosition('topic-id', 12, text)).toEqual({
      position: 12,
      plan: null,
      readings: 5,
      deadLetters: 1,
      messages: null,
    })
  })

  it('of a topic that was made anew is none', () => {
    expect(decodePosition('another', 12, encodePosition('topic-id', position))).toBeNull()
  })

  it.each(['', 'committed by hand', '{"v":2}', '[]'])('of somebody else (%j) stops the writer', metadata => {
    expect(() => decodePosition('topic-id', 12, metadata)).toThrowError(/no surgetank of this version writes/)
  })
})

test('each partition goes to one writer, evenly, the rest to the newest [G2]', () => {
  const members = fc.uniqueArray(
    fc.record({ memberId: fc.string({ minLength: 1 }), startedAt: fc.integer({ min: 1, max: 5 }) }),
    { minLength: 1, maxLength: 9, selector: ({ memberId }) => memberId },
  )
  fc.assert(
    fc.property(members, fc.integer({ min: 0, max: 20 }), (taking, count) => {
      const partitions = Array.from({ length: count }, (_, at) => at)
      const assigned = assignPartitions(taking, partitions)
      expect(assigned.flatMap(([, own]) => own).sort((a, b) => a - b)).toEqual(partitions)
      const counts = assigned.map(([, own]) => own.length)
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
      const startOf = new Map(taking.map(({ memberId, startedAt }) => [memberId, startedAt]))
      const starts = assigned
        .filter(([, own]) => own.length === Math.max(...counts))
        .map(([id]) => startOf.get(id) ?? 0)
      const others = assigned.filter(([, own]) => own.length < Math.max(...counts)).map(([id]) => startOf.get(id) ?? 0)
      expect(Math.min(...starts)).toBeGreaterThanOrEqual(Math.max(0, ...others))
      expect(assignPartitions([...taking].reverse(), partitions)).toEqual(assigned)
    }),
  )
})

describe('a topic', () => {
  const good = {
    'cleanup.policy': 'delete',
    'unclean.leader.election.enable': 'false',
    'flush.messages': '1',
    'min.insync.replicas': '1',
    'max.message.bytes': '8388608',
    'retention.ms': '-1',
    'retention.bytes': '-1',
    'compression.type': 'producer',
    'message.timestamp.type': 'LogAppendTime',
  }
  const LONE = { replicas: 1, isLog: true }
  const replicated = { ...good, 'flush.messages': '9223372036854775807', 'min.insync.replicas': '2' }

  it('that keeps what is acknowledged is taken [G1]', () => {
    expect(judgeTopic(good, LONE)).toEqual({ refusal: null, warnings: [] })
    expect(judgeTopic(replicated, { replicas: 3, isLog: true })).toEqual({ refusal: null, warnings: [] })
  })

  it.each([
    ['acknowledges from the memory of one broker', replicated, 1, /flush\.messages is not 1; set it to 1/],
    [
      'may shrink to one replica',
      { ...replicated, 'min.insync.replicas': '1' },
      3,
      /min\.insync\.replicas is 1; set it to 2/,
    ],
    ['elects leaders that lack readings', { ...good, 'unclean.leader.election.enable': 'true' }, 1, /set it to false/],
    ['is compacted', { ...good, 'cleanup.policy': 'compact' }, 1, /cleanup\.policy is compact; set it to delete/],
    ['is compacted as well', { ...good, 'cleanup.policy': 'compact,delete' }, 1, /set it to delete/],
    ['takes no large batch', { ...good, 'max.message.bytes': '1048588' }, 1, /set it to 8388608/],
    [
      'forgets what is too much',
      { ...good, 'retention.bytes': '1073741824' },
      1,
      /retention\.bytes is 1073741824; set it to -1/,
    ],
    [
      'compresses what cannot be read then',
      { ...good, 'compression.type': 'zstd' },
      1,
      /compression\.type is zstd; set it to producer/,
    ],
    ['forgets within the hour', { ...good, 'retention.ms': '3600000' }, 1, /retention\.ms is 3600000; set it to -1/],
  ])('that %s is refused, and told what to set [G1]', (_what, config, replicas, sentence) => {
    expect(judgeTopic(config, { replicas, isLog: true }).refusal).toMatch(sentence)
  })

  it('of quarantined messages may be kept small by Kafka', () => {
    expect(judgeTopic({ ...good, 'retention.bytes': '1048576' }, { replicas: 1, isLog: false }).refusal).toBeNull()
  })

  it.each(['uncompressed', 'gzip'])('whose compression.type is %s is taken', compression => {
    expect(judgeTopic({ ...good, 'compression.type': compression }, LONE)).toEqual({ refusal: null, warnings: [] })
  })

  it.each([
    ['Kafka empties by age', { 'retention.ms': '604800000' }, /retention\.ms is not -1; set it to -1/],
    ['tells times by the clocks of brokers', { 'message.timestamp.type': 'CreateTime' }, /set it to LogAppendTime/],
  ])('that %s is warned of', (_what, config, sentence) => {
    const { refusal, warnings } = judgeTopic({ ...good, ...config }, LONE)
    expect(refusal).toBeNull()
    expect(warnings).toEqual([expect.stringMatching(sentence)])
  })
})

function fetched({ value, headers }: KafkaRecord): FetchedRecord {
  const bytes = Object.fromEntries(Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]))
  return { value, headers: bytes, offset: '41', timestamp: String(RECEIVED_AT) }
}
