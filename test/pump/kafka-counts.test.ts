/** Messages that a log in Kafka counts, while the units that append them are killed, and writers come and go. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { judgeMessages } from '../../manager/verify-messages.ts'
import { holdClaim } from '../contracts/pump-samples.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'
import { killed } from './children.ts'
import type { Acknowledged } from './kafka-append-child.ts'
import { type KafkaHarness, openKafkaHarness } from './kafka-harness.ts'

const CHILD = fileURLToPath(new URL('../../dist/test/pump/kafka-append-child.js', import.meta.url))

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('with a real broker', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let harness: KafkaHarness
  beforeAll(async () => {
    kafka = await useKafka()
    harness = await openKafkaHarness({ ...kafka, partitions: 2 })
  })
  afterAll(async () => {
    await harness.destroy()
    await kafka.stop()
  })

  it('the books of messages balance through SIGKILL of two units at a time, and lack nothing that was acknowledged [G7]', async () => {
    const view = await harness.openView()
    const sums = { received: 0, stored: 0, refused: 0 }
    for (let round = 0; round < 4; round++) {
      const units = [startUnit(), startUnit()]
      await until(() => units.every(({ told }) => told().received > 60 + round * 25))
      const during = await view.books()
      expect(judgeMessages(during)).toMatchObject({ difference: 0, quarantinedMissing: 0 })
      for (const { child, told } of units) {
        await killed(child)
        sums.received += told().received
        sums.stored += told().stored
        sums.refused += told().refused
      }
      await commitAll()
    }
    for (const seen of [view, await harness.openView()]) {
      const books = await seen.books()
      const verdict = judgeMessages(books)
      expect(verdict).toMatchObject({ since: null, difference: 0, quarantinedMissing: 0 })
      expect(verdict.received).toBeGreaterThanOrEqual(sums.received)
      expect(verdict.accepted).toBeGreaterThanOrEqual(sums.stored)
      expect(verdict.quarantined.waiting).toBeGreaterThanOrEqual(sums.refused)
      expect(verdict.repeated).toBe(2 * (verdict.letGo.presence ?? 0))
      const readings = books.partitions.reduce((sum, { readingsAppended }) => sum + readingsAppended, 0)
      expect(verdict.accepted).toBe(readings)
    }
  })

  function startUnit(): { readonly child: ChildProcess; told(): Acknowledged } {
    const child = fork(CHILD)
    let last: Acknowledged = { received: 0, stored: 0, refused: 0 }
    child.on('message', (acknowledged: Acknowledged) => {
      last = acknowledged
    })
    const { log: _, ...order } = harness.options
    child.send(order)
    return { child, told: () => last }
  }

  /** By a writer of its own, which takes one of the partitions first: what it commits it has read only in part. */
  async function commitAll(): Promise<void> {
    const outlet = await harness.openOutlet()
    const held = await holdClaim(outlet)
    const end = await held.claim.ends()
    await held.claim.read(Math.floor(end / 2), { chunksMax: 10, bytesMax: 1 << 20 })
    await held.claim.commit(end, null)
    await held.end()
    await outlet.close()
  }
})
