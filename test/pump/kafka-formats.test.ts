/** The log in Kafka with records of other versions and of other units, and with what a unit left that was killed half-way. */
import { crc32 } from 'node:zlib'
import kafkajs from 'kafkajs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { judgeMessages } from '../../manager/verify-messages.ts'
import { type KafkaRecord, openKafkaClient } from '../../pump/kafka-client.ts'
import { openLane, toSideTopic } from '../../pump/kafka-lane.ts'
import { examineKafkaLog, openKafkaView } from '../../pump/kafka-pump.ts'
import { refusedRecord } from '../../pump/kafka-record.ts'
import { othersOf } from '../contracts/pump-books.ts'
import { batchOf, holdClaim, lineOf, RECEIVED_AT, refusedOf } from '../contracts/pump-samples.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { type KafkaHarness, openKafkaHarness } from './kafka-harness.ts'
import { lineOfFormat1 } from './lmdb-format-1.ts'

const ALL = { chunksMax: 1_000, bytesMax: 64 << 20 }
const NEWER = { code: 'log_newer', fate: 'stop', message: expect.stringContaining('Start the newer surgetank.') }

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('with a real broker', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let admin: kafkajs.Admin
  let harness: KafkaHarness
  beforeAll(async () => {
    kafka = await useKafka()
    admin = new kafkajs.Kafka({ brokers: kafka.brokers.split(','), logLevel: 0 }).admin()
    await admin.connect()
  })
  afterAll(async () => {
    await admin.disconnect()
    await kafka.stop()
  })
  beforeEach(async () => {
    harness = await openKafkaHarness(kafka)
  })
  afterEach(() => harness.destroy())

  it('chunks of format 1 are read as before, count what they hold, and are written out with those of format 2', async () => {
    const inlet = await harness.openInlet()
    await putRecords([0, 1, 2].map(recordOfFormat1))
    expect((await inlet.tail(100)).map(({ format }) => format)).toEqual([1, 1, 1])
    const counts = { received: 5, repeated: 3, quarantined: 0, letGo: {} }
    await inlet.append(batchOf(5, 2, { counts }))
    const view = await harness.openView()
    const sums = { since: null, received: 8, accepted: 5, repeated: 3 }
    expect((await view.books()).messages).toMatchObject(sums)
    const held = await holdClaim(await harness.openOutlet())
    const chunks = await held.claim.read(0, ALL)
    expect(chunks.map(({ format, lines }) => [format, lines.toString()])).toEqual([
      ...[0, 1, 2].map(number => [1, lineOfFormat1(number)]),
      [2, [5, 6].map(lineOf).join('\n')],
    ])
    await held.claim.commit(4, null)
    await held.end()
    const books = await (await harness.openView()).books()
    expect(books.messages).toMatchObject(sums)
    expect(books.partitions[0]).toMatchObject({ readingsAppended: 5, readingsCommitted: 5 })
    expect((await harness.openInlet()).newestReceivedAt).toBe(RECEIVED_AT + 7)
  })

  it('a record of a newer version is named as newer, by readers, claims and inlets', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1))
    await putRecords([{ value: Buffer.from('{}'), headers: { surgetank: '3 what nobody knows yet' } }])
    const view = await harness.openView()
    await expect(view.read(0, 1, ALL)).rejects.toMatchObject(NEWER)
    await expect(view.books()).rejects.toMatchObject(NEWER)
    await expect(othersOf(inlet)).rejects.toMatchObject(NEWER)
    await expect(harness.openInlet()).rejects.toMatchObject(NEWER)
    const { ended } = (await harness.openOutlet()).consume(async claim => void (await claim.read(1, ALL)))
    await expect(ended).rejects.toMatchObject(NEWER)
  })

  it('a position that was committed by a version that did not count is gone on from, and messages count from then on', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 3))
    const before = Date.now()
    await commitAsBefore(1, 3)
    await inlet.append(batchOf(3, 2, { counts: { received: 4, repeated: 2, quarantined: 0, letGo: {} } }))
    const counted = { received: 4, accepted: 2, repeated: 2 }
    const { messages } = await (await harness.openView()).books()
    expect(messages).toMatchObject(counted)
    expect(messages.since).toBeGreaterThanOrEqual(before)
    const held = await holdClaim(await harness.openOutlet())
    await held.claim.commit(2, null)
    await held.end()
    const after = await (await harness.openView()).books()
    expect(after.messages).toMatchObject(counted)
    expect(after.messages.since).toBeGreaterThanOrEqual(before)
    expect(after.partitions[0]).toMatchObject({ readingsAppended: 5, readingsCommitted: 5 })
  })

  it('the books balance after a unit was killed between a refused message and what it counted [G7]', async () => {
    const inlet = await harness.openInlet()
    await inlet.append(batchOf(0, 1, { refused: [refusedOf(1)] }))
    await inlet.close()
    await putRecords([refusedRecord(refusedOf(2))], `${harness.options.topic}.quarantine`)
    const books = await (await harness.openView()).books()
    expect(books).toMatchObject({ quarantined: 2, messages: { received: 2, quarantined: { waiting: 1, evicted: 0 } } })
    expect(judgeMessages(books)).toMatchObject({ difference: 0, quarantinedMissing: 0 })
  })

  it('each of two units is given what the other one appended, and nothing of its own', async () => {
    const [a, b] = [await harness.openInlet(), await harness.openInlet()]
    for (let i = 0; i < 6; i += 2) {
      await a.append(batchOf(i, 1))
      await b.append(batchOf(i + 1, 1))
    }
    expect(await othersOf(a)).toEqual([1, 3, 5].map(lineOf))
    expect(await othersOf(b)).toEqual([0, 2, 4].map(lineOf))
    await b.append(batchOf(7, 1))
    expect([await othersOf(a), await othersOf(b)]).toEqual([[lineOf(7)], []])
  })

  it('the list of repetitions is a topic that Kafka keeps small, and `doctor` says what is wrong with it', async () => {
    await harness.openInlet()
    const name = `${harness.options.topic}.repeated`
    const resource = { type: kafkajs.ConfigResourceTypes.TOPIC, name }
    const { resources } = await admin.describeConfigs({ resources: [resource], includeSynonyms: false })
    const config = Object.fromEntries((resources[0]?.configEntries ?? []).map(of => [of.configName, of.configValue]))
    expect(Number(config['retention.bytes']) + Number(config['segment.bytes'])).toBeLessThanOrEqual(6 << 20)
    const advice = async () =>
      (await examineKafkaLog(harness.options)).filter(sentence => sentence.includes('repeated'))
    expect(await advice()).toEqual([])
    const configEntries = [{ name: 'cleanup.policy', value: 'compact' }]
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
    await expect
      .poll(advice)
      .toEqual([
        expect.stringMatching(/repeated, the list of repetitions: cleanup\.policy is compact; set it to delete/),
      ])
  })

  it('a log that was made without a list of repetitions can be looked at, and gets one by the next inlet', async () => {
    await (await harness.openInlet()).close()
    const name = `${harness.options.topic}.repeated`
    await admin.deleteTopics({ topics: [name] })
    await expect.poll(async () => (await admin.listTopics()).includes(name)).toBe(false)
    const view = await openKafkaView(harness.options)
    expect(await view.repeated(10, null)).toEqual([])
    await view.close()
    await harness.openInlet()
    expect(await admin.listTopics()).toContain(name)
  })

  async function putRecords(records: readonly KafkaRecord[], topic = harness.options.topic): Promise<void> {
    const client = openKafkaClient(harness.options)
    await client.knowTopic(topic)
    for (const record of records) await openLane(client).send([record], toSideTopic(topic))
    await client.close()
  }

  /** As a version before would: no words of messages in the metadata. */
  async function commitAsBefore(offset: number, readings: number): Promise<void> {
    const { topic } = harness.options
    const view = await harness.openView()
    const id = /:(.+)\/0$/.exec((await view.places())[0]?.source ?? '')?.[1]
    const metadata = JSON.stringify({ v: 1, id, n: readings, d: 0 })
    const topics = [{ topic, partitions: [{ partition: 0, offset: String(offset), metadata }] }]
    const group = `${topic}.writers`
    const client = openKafkaClient(harness.options)
    await client.knowTopic(topic)
    const ofNoMember = { groupGenerationId: -1, memberId: '', retentionTime: -1 }
    await (await client.coordinator(group)).offsetCommit({ groupId: group, ...ofNoMember, topics })
    await client.close()
  }
})

function recordOfFormat1(number: number): KafkaRecord {
  const value = Buffer.from(lineOfFormat1(number))
  const words = ['1', 'a-unit-of-before', number, 1, 1, RECEIVED_AT + number, RECEIVED_AT + number, crc32(value)]
  return { value, headers: { surgetank: words.join(' ') } }
}
