/** Kafka's retention, or an operator, removes what a writer has planned and not inserted: alarm, and on with the rest. */
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { metrics } from '../../metrics.ts'
import { batchOf, holdClaim } from '../contracts/pump-samples.ts'
import { type Fixture, openFixture, rows } from '../database/database-fixture.ts'
import { type KafkaHarness, openKafkaHarness } from '../pump/kafka-harness.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'
import { openAlarmedWriter } from './alarmed-writer.ts'

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('a planned range that Kafka no longer holds whole', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let engine: Fixture
  let harness: KafkaHarness
  beforeAll(async () => {
    ;[kafka, engine] = await Promise.all([useKafka(), openFixture()])
    await engine.database.migrate()
    harness = await openKafkaHarness({ brokers: kafka.brokers })
  })
  afterAll(async () => {
    await harness.destroy()
    await engine.close()
    await kafka.stop()
  })

  it('is told of by an error and a metric; what is left of it is stored once [G2] [G5]', async () => {
    const inlet = await harness.openInlet()
    for (let number = 0; number < 6; number++) await inlet.append(batchOf(number, 1))
    const earlier = await holdClaim(await harness.openOutlet())
    await earlier.claim.commit(0, { to: 4, mode: 'whole' })
    await earlier.end()
    const { brokers, topic } = harness.options
    const admin = new kafkajs.Kafka({ brokers: [...brokers], logLevel: 0 }).admin()
    await admin.connect()
    await admin.fetchTopicMetadata({ topics: [topic] })
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] })
    await admin.disconnect()
    const before = await cut()
    const { writer, alarms } = await openAlarmedWriter(harness, engine)
    const view = await harness.openView()
    await until(async () => (await view.places())[0]?.committed === 6, 'all is written')
    await writer.stop()
    const sql = 'SELECT source_position, count() FROM telemetry.readings GROUP BY 1 ORDER BY 1'
    expect(await rows(engine.writer, sql)).toEqual([2, 3, 4, 5].map(position => [position, 1]))
    expect((await cut()) - before).toBe(2)
    expect(alarms.join()).toContain('positions 0 to 1 are gone')
  })
})

async function cut(): Promise<number> {
  const { values } = await metrics.logCut.get()
  return values.reduce((sum, { value }) => sum + value, 0)
}
