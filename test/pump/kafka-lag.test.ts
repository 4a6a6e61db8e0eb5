/** How much of a log in Kafka is not in ClickHouse: estimates, which records without lines must not lead astray. */
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openKafkaInlet } from '../../pump/kafka-pump.ts'
import type { PumpInlet } from '../../pump/pump.ts'
import { batchOf, holdClaim, RECEIVED_AT } from '../contracts/pump-samples.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { type KafkaHarness, openKafkaHarness } from './kafka-harness.ts'

const ONLY_COUNTS = { counts: { received: 2, repeated: 2, quarantined: 0, letGo: {} } }

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

  it('readings behind a long row of records without lines are seen, and the row is not taken for readings', async () => {
    const inlet = await harness.openInlet()
    const view = await harness.openView()
    await appendCounts(inlet, 20)
    expect(await view.lag()).toMatchObject({ readings: 0, bytesUnwritten: 0 })
    await appendCounts(inlet, 300)
    for (let i = 0; i < 5; i++) await inlet.append(batchOf(i * 10, 10))
    for (const seen of [view, await harness.openView()]) {
      const lag = await seen.lag()
      expect(lag).toMatchObject({ readings: 50, oldestUnwrittenAt: RECEIVED_AT })
      expect(lag.bytesUnwritten).toBeGreaterThan(0)
    }
  })

  it('a unit that had only counts for long refuses at its cap what others have filled the log with [G5]', async () => {
    const inlet = await harness.openInlet({ bytesMax: 20_000 })
    await appendCounts(inlet, 400)
    const held = await holdClaim(await harness.openOutlet())
    await held.claim.commit(400, null)
    await held.end()
    await inlet.append(batchOf(0, 10))
    const other = await openKafkaInlet({ ...harness.options, bytesMax: 256 << 20 })
    for (let i = 1; i < 40; i++) await other.append(batchOf(i * 10, 10))
    await other.close()
    // It looks once a second; all that it appends itself until the last of these tries is below the cap.
    let refused: unknown = null
    for (let tries = 0; tries < 15 && refused === null; tries++) {
      await pause(200)
      refused = await inlet.append(batchOf(tries * 10, 10)).then(
        () => null,
        (error: unknown) => error,
      )
    }
    expect(refused).toMatchObject({ code: 'log_unavailable' })
  })

  async function appendCounts(inlet: PumpInlet, batches: number): Promise<void> {
    const nothing = { firstReceivedAt: 0, lastReceivedAt: 0, ...ONLY_COUNTS }
    for (let i = 0; i < batches; i++) await inlet.append(batchOf(0, 0, nothing))
  }
})
