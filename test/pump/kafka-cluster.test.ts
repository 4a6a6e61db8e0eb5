/** Three brokers, each partition on all of them: leaders that go, in order or by SIGKILL, under load. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type KafkaServer, kafkaHere, startKafkaCluster } from '../servers/kafka-server.ts'
import { type KafkaHarness, openKafkaHarness } from './kafka-harness.ts'
import { countLines, onceEach, startLoad } from './kafka-load.ts'
import { miniWriter, openSink } from './kafka-sink.ts'

describe.skipIf(!kafkaHere)('the log on three brokers', () => {
  let brokers: KafkaServer[]
  let harness: KafkaHarness
  beforeAll(async () => {
    brokers = await startKafkaCluster()
  })
  afterAll(async () => {
    for (const broker of brokers) await broker.stop()
  })
  afterEach(() => harness.destroy())

  // The first one is the controller, without which nobody elects a leader.
  it.each([
    ['is restarted in order', (broker: KafkaServer) => broker.shutDown()],
    ['is killed', (broker: KafkaServer) => broker.kill()],
  ])('holds each acknowledged batch once, and the table each line, while each leader %s [G1] [G2]', async (_, end) => {
    harness = await openKafkaHarness({ brokers: brokers.map(broker => broker.brokers).join(), partitions: 3 })
    const load = startLoad(await harness.openInlet())
    const sink = openSink(() => 5)
    const outlet = await harness.openOutlet()
    const writer = outlet.consume(miniWriter({ insert: sink.insert, chunksMax: () => 5 }))
    await load.acked(20)
    for (const broker of brokers.slice(1)) {
      await end(broker)
      await load.acked(load.count + 60)
      await broker.restart()
      await load.acked(load.count + 60)
    }
    const acked = await load.stop()
    const view = await harness.openView()
    expect(await countLines(view)).toEqual(onceEach(acked))
    await expect.poll(() => sink.rows.size).toBe(acked.length)
    await writer.stop()
    expect(sink.rows).toEqual(onceEach(acked))
    expect(sink.overlaps).toBe(0)
  })
})
