/** Our own encoding of a Produce request, against that of kafkajs and against published checksums. */
import { createRequire } from 'node:module'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { crc32c } from '../../pump/crc32c.ts'
import type { KafkaRecord } from '../../pump/kafka-client.ts'
import { encodeProduce } from '../../pump/kafka-produce.ts'

const require = createRequire(import.meta.url)
const { protocol } = require('kafkajs/src/protocol/requests/produce') as {
  protocol(of: { version: number }): (request: object) => { request: { encode(): Promise<{ buffer: Buffer }> } }
}
const Long = require('kafkajs/src/utils/long') as { fromValue(value: string): object }

describe('CRC-32C', () => {
  it('is that of RFC 3720, appendix B.4, and of the usual check', () => {
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa)
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43)
    expect(crc32c(Buffer.from(Array.from({ length: 32 }, (_, at) => at)))).toBe(0x46dd794e)
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
    expect(crc32c(Buffer.alloc(0))).toBe(0)
  })

  it('leaves out what stands before the place where it begins', () => {
    expect(crc32c(Buffer.from('before123456789'), 6)).toBe(0xe3069283)
  })
})

describe('a Produce request', () => {
  const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 40 }), fc.constant('x'.repeat(70)))
  const bytes = fc.uint8Array({ maxLength: 300 }).map(value => Buffer.from(value))
  const record: fc.Arbitrary<KafkaRecord> = fc.record({
    value: fc.oneof(bytes, fc.constant(Buffer.alloc(70_000, 'lines'))),
    headers: fc.dictionary(text, fc.oneof(text, bytes), { maxKeys: 3, noNullPrototype: true }),
  })
  const options = fc.record({
    topic: fc.stringMatching(/^[a-z.]{1,60}$/),
    partition: fc.nat(),
    producerId: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }).map(id => Long.fromValue(String(id))),
    producerEpoch: fc.nat({ max: 32_767 }),
    firstSequence: fc.nat({ max: 2 ** 31 - 1 }),
    records: fc.array(record, { minLength: 1, maxLength: 130 }),
    timeoutMs: fc.nat({ max: 2 ** 31 - 1 }),
  })

  it('is byte for byte what kafkajs makes of the same records [G1]', async () => {
    // kafkajs takes 0 for no time at all.
    const times = fc.integer({ min: 1, max: 4e12 })
    const property = fc.asyncProperty(options, times, async (one, timestamp) => {
      const { topic, partition, producerId, producerEpoch, firstSequence, records, timeoutMs: timeout } = one
      const messages = records.map(own => ({ ...own, timestamp }))
      const topicData = [{ topic, partitions: [{ partition, firstSequence, messages }] }]
      const { request } = protocol({ version: 7 })({ acks: -1, timeout, producerId, producerEpoch, topicData })
      expect(encodeProduce(one, timestamp).equals((await request.encode()).buffer)).toBe(true)
    })
    await fc.assert(property, { numRuns: 200 })
  })
})
