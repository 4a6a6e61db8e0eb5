/** `surgetank doctor` where the log is in Kafka: tells what works and should be mended, and what to set. */
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { examine, type Finding } from '../../manager/doctor.ts'
import { openKafkaInlet } from '../../pump/kafka-pump.ts'
import { readSettings } from '../../settings.ts'
import { kafkaOptions } from '../pump/kafka-harness.ts'
import { type KafkaServer, kafkaHere, startKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'

describe.skipIf(!kafkaHere)('a Kafka whose only broker does not flush what the writers commit', () => {
  let kafka: KafkaServer
  beforeAll(async () => {
    kafka = await startKafka()
  })
  afterAll(() => kafka.stop())

  it('is warned of until it does', async () => {
    const options = kafkaOptions({ brokers: kafka.brokers })
    const inlet = await openKafkaInlet(options)
    await inlet.close()
    const before = await findingOf(options.topic)
    expect(before).toMatchObject({ verdict: 'warn', found: expect.stringContaining(`topic ${options.topic}`) })
    expect(before?.advice).toMatch(/__consumer_offsets.*flush\.messages is not 1; set it to 1/)
    await flushPositions(kafka.brokers)
    await until(async () => (await findingOf(options.topic))?.verdict === 'ok')
  })

  async function findingOf(topic: string): Promise<Finding | undefined> {
    const ports = { SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
    const settings = readSettings({ KAFKA_BROKERS: kafka.brokers, SURGETANK_KAFKA_TOPIC: topic, ...ports })
    return (await examine(settings)).find(({ what }) => what === 'kafka')
  }
})

async function flushPositions(brokers: string): Promise<void> {
  const admin = new kafkajs.Kafka({ brokers: [brokers], logLevel: 0 }).admin()
  const config = { 'cleanup.policy': 'compact', 'flush.messages': '1' }
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
  const resources = [{ type: kafkajs.ConfigResourceTypes.TOPIC, name: '__consumer_offsets', configEntries }]
  await admin.connect()
  await admin.alterConfigs({ validateOnly: false, resources }).finally(() => admin.disconnect())
}
