/** The pump in Kafka: the contract of every pump, against a real broker. What only Kafka must show is in the files beside this one. */
import { afterAll, beforeAll, describe } from 'vitest'
import { pumpContract } from '../contracts/pump-contract.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { openKafkaHarness } from './kafka-harness.ts'

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('with a real broker', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  beforeAll(async () => {
    kafka = await useKafka()
  })
  afterAll(() => kafka.stop())

  pumpContract('The log in Kafka', () => openKafkaHarness(kafka), { exact: false })
})
