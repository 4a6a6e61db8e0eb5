/** [G2] Kafka loses the last commits of the writers while the log is whole: what is stored is not stored again. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeVerdict, verify } from '../../manager/verify.ts'
import { openKafkaClient } from '../../pump/kafka-client.ts'
import { encodePosition } from '../../pump/kafka-positions.ts'
import { findTopics } from '../../pump/kafka-topics.ts'
import { NO_MESSAGES } from '../../pump/message-counts.ts'
import type { PumpView } from '../../pump/pump.ts'
import { batchOf } from '../contracts/pump-samples.ts'
import { type Fixture, openFixture, rows } from '../database/database-fixture.ts'
import { type KafkaHarness, openKafkaHarness } from '../pump/kafka-harness.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'
import { openAlarmedWriter } from './alarmed-writer.ts'

const READINGS = 4

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('positions in Kafka that went back', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let engine: Fixture
  let harness: KafkaHarness
  let view: PumpView
  let appended = 0
  beforeAll(async () => {
    ;[kafka, engine] = await Promise.all([useKafka(), openFixture()])
    await engine.database.migrate()
    harness = await openKafkaHarness({ brokers: kafka.brokers })
    view = await harness.openView()
  })
  afterAll(async () => {
    await harness.destroy()
    await engine.close()
    await kafka.stop()
  })

  it('are behind what ClickHouse holds: that is told, and passed over; each reading is stored once', async () => {
    await write(5)
    await write(3)
    await setBack(2, 5)
    const alarms = await write(4)
    expect(alarms.join()).toContain('behind what ClickHouse holds')
    const sql = 'SELECT source_position, count() FROM telemetry.readings GROUP BY 1 ORDER BY 1'
    expect(await rows(engine.writer, sql)).toEqual(Array.from({ length: 12 }, (_, position) => [position, READINGS]))
    const verdict = await verify(view, engine.database)
    expect(verdict, describeVerdict(verdict)).toMatchObject({ balanced: true })
  })

  /** So many chunks more, by a writer of its own; returns what it was alarmed by. */
  async function write(chunks: number): Promise<readonly string[]> {
    const inlet = await harness.openInlet()
    for (let more = 0; more < chunks; more++) await inlet.append(batchOf(READINGS * appended++, READINGS))
    const { writer, alarms } = await openAlarmedWriter(harness, engine)
    const place = async () => (await view.places())[0]
    await until(async () => (await place())?.committed === appended && (await place())?.plan === null, 'all is written')
    await writer.stop()
    return alarms
  }

  /** The group is empty: a commit without a member is taken then. */
  async function setBack(position: number, to: number): Promise<void> {
    const client = openKafkaClient(harness.options)
    const { log: topic, group, id } = await findTopics(client, harness.options)
    const readings = READINGS * position
    const messages = { since: null, sums: { ...NO_MESSAGES, received: readings, accepted: readings } }
    const place = { position, plan: { to, mode: 'whole' as const }, readings, deadLetters: 0, messages }
    const metadata = encodePosition(id, place)
    const partitions = [{ partition: 0, offset: String(position), metadata }]
    const nobody = { groupId: group, groupGenerationId: -1, memberId: '', retentionTime: -1 }
    await (await client.coordinator(group)).offsetCommit({ ...nobody, topics: [{ topic, partitions }] })
    await client.close()
    expect(await view.places()).toMatchObject([{ committed: position, plan: { to } }])
  }
})
