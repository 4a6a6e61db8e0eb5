/** What goes to Kafka's side topics is as large as a device makes it, and must not stop whoever sends it. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LIMITS } from '../../model/limits.ts'
import { encodeLine } from '../../model/message.ts'
import { groupRecords, letterRecord, refusedRecord } from '../../pump/kafka-record.ts'
import { judgeTopic } from '../../pump/kafka-topics.ts'
import { batchOf, holdClaim, letterOf, RECEIVED_AT, refusedOf } from '../contracts/pump-samples.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { type KafkaHarness, openKafkaHarness } from './kafka-harness.ts'

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('with a real broker', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let harness: KafkaHarness
  beforeAll(async () => {
    kafka = await useKafka()
  })
  afterAll(() => kafka.stop())
  beforeEach(async () => {
    harness = await openKafkaHarness(kafka)
  })
  afterEach(() => harness.destroy())

  it('keeps refused messages of one batch whose topics alone are larger than what Kafka takes at once', async () => {
    const inlet = await harness.openInlet()
    const topicOf = (number: number) => `${number}/`.padEnd(65_000, 'x')
    const refused = Array.from({ length: 129 }, (_, n) => ({ ...refusedOf(n), topic: topicOf(n) }))
    await inlet.append(batchOf(0, 1, { refused }))
    const view = await harness.openView()
    expect(await view.books()).toMatchObject({ quarantined: 129 })
    expect((await view.quarantineEntry('m1'))?.where).toBe(topicOf(0))
    expect((await view.quarantineEntry('m129'))?.where).toBe(topicOf(128))
  })

  it('keeps the dead letters of one line that together are larger than what Kafka takes at once', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1))
    const held = await holdClaim(await harness.openOutlet())
    const line = 'x'.repeat(200_000)
    const letters = Array.from({ length: 60 }, (_, index) => ({ ...letterOf(held.claim.source, 0, index), line }))
    await held.claim.commit(1, null, letters)
    const view = await harness.openView()
    expect((await view.books()).partitions[0]).toMatchObject({ committed: 1, deadLetters: 60 })
    expect((await view.quarantineEntry('r60'))?.bytes).toEqual(Buffer.from(line))
    expect(await view.quarantineEntry('r61')).toBeNull()
    await held.end()
  })
})

describe('records for a side topic', () => {
  it('come in groups of a megabyte, headers included, in order, made when they are asked for', () => {
    const made: number[] = []
    const groups = groupRecords([...Array(40).keys()], number => {
      made.push(number)
      return refusedRecord({ ...refusedOf(number, 10_000), topic: 't'.repeat(60_000) })
    })
    const first = groups.next().value
    expect(made.length).toBeLessThan(20)
    const all = [first ?? [], ...groups]
    expect(made).toEqual([...Array(40).keys()])
    expect(all.flat()).toHaveLength(40)
    for (const group of all) expect(bytesOf(group)).toBeLessThanOrEqual(1 << 20)
    expect(bytesOf(first ?? [])).toBeGreaterThan(900_000)
  })

  it('are never an empty group, and one that is larger is alone', () => {
    expect([...groupRecords([], refusedRecord)]).toEqual([])
    const sizes = [10, 3 << 20, 10].map(bytes => refusedOf(0, bytes))
    expect([...groupRecords(sizes, refusedRecord)].map(group => group.length)).toEqual([1, 1, 1])
  })

  it('fit one by one into every topic that is taken: the dead letter of the longest line does', () => {
    const worst = '\u0001'
    const receivedAt = RECEIVED_AT * 1_000
    const readings = Array.from({ length: LIMITS.readingsPerMessageMax }, (_, index) => ({
      metric: worst.repeat(LIMITS.metricNameCharsMax),
      ts: receivedAt,
      receivedAt: receivedAt + index,
      value: worst.repeat(LIMITS.textBytesMax),
      sentTs: receivedAt,
    }))
    const line = encodeLine({ device: 'd'.repeat(LIMITS.deviceIdCharsMax), receivedAt, readings })
    const bytes = bytesOf([letterRecord({ ...letterOf('log', 0, 0), line })])
    expect(bytes).toBeGreaterThan(LIMITS.packetBytesMax)
    const topic = { 'cleanup.policy': 'delete', 'flush.messages': '1', 'max.message.bytes': String(bytes) }
    expect(judgeTopic(topic, { replicas: 1, isLog: false }).refusal).toMatch(/max\.message\.bytes/)
  })
})

function bytesOf(records: readonly { value: Buffer; headers: Readonly<Record<string, Buffer | string>> }[]): number {
  const texts = records.flatMap(({ value, headers }) => [value, ...Object.values(headers)])
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
}
