/** What the writers tell each other of their versions, in the number by which every version sorts them. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LINE_FORMAT } from '../../model/message.ts'
import { decodeStart, encodeStart } from '../../pump/kafka-members.ts'
import { fetchWriters } from '../../pump/kafka-pump.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'
import { openKafkaHarness } from './kafka-harness.ts'

const starts = fc.record({
  startedAt: fc.integer({ min: 0, max: 4_102_444_800_000 }),
  knows: fc.record({ lines: fc.integer({ min: 1, max: 999 }), schema: fc.integer({ min: 0, max: 999 }) }),
})

describe('the start of a member', () => {
  it('is read as it was written', () => {
    fc.assert(fc.property(starts, start => void expect(decodeStart(encodeStart(start))).toEqual(start)))
  })

  it('is a number for a leader of an older version, which sorts the members as a newer one does', () => {
    fc.assert(
      fc.property(starts, starts, (a, b) => {
        fc.pre(a.startedAt !== b.startedAt)
        const [first, second] = [a, b].map(start => Number(encodeStart(start).toString()))
        expect(Math.sign((first ?? 0) - (second ?? 0))).toBe(Math.sign(a.startedAt - b.startedAt))
      }),
    )
  })

  it.each(['1763640000000', '', 'nonsense', '1763640000000.5'])('%j knows what was known before the marks', text => {
    expect(decodeStart(Buffer.from(text)).knows).toEqual({ lines: 1, schema: 3 })
  })
})

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('the writers of a log', () => {
  let kafka: Awaited<ReturnType<typeof useKafka>>
  beforeAll(async () => {
    kafka = await useKafka()
  })
  afterAll(() => kafka.stop())

  it('are nobody before the first and after the last, and each says what it knows meanwhile', async () => {
    const harness = await openKafkaHarness({ brokers: kafka.brokers })
    await harness.openInlet()
    expect(await fetchWriters(harness.options)).toEqual([])
    const outlets = [await harness.openOutlet({ schema: 4 }), await harness.openOutlet({ schema: 5 })]
    for (const outlet of outlets) outlet.consume(async () => {})
    await until(async () => (await fetchWriters(harness.options)).length === 2, 'both are members')
    const knows = (await fetchWriters(harness.options)).map(member => member.knows)
    expect(knows.sort((a, b) => a.schema - b.schema)).toEqual([
      { lines: LINE_FORMAT, schema: 4 },
      { lines: LINE_FORMAT, schema: 5 },
    ])
    expect((await fetchWriters(harness.options))[0]?.host).toMatch(/^[\d.:a-f]+$/)
    await Promise.all(outlets.map(outlet => outlet.close()))
    expect(await fetchWriters(harness.options)).toEqual([])
    await harness.destroy()
  })
})
