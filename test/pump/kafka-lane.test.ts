/**
 * The lane against a broker that keeps Kafka's rules of producer ids and sequence numbers, and that may fail at any step: the
 * answer is lost, a leader goes after it has appended, what it knew of producers is forgotten. Every batch that was acknowledged is in
 * the log once, and no batch is there twice.
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hasFate } from '../../errors.ts'
import type { KafkaClient, KafkaNode, KafkaRecord } from '../../pump/kafka-client.ts'
import { unavailable } from '../../pump/kafka-errors.ts'
import { openLane, type SendTo } from '../../pump/kafka-lane.ts'

/** What becomes of one write. Those that say `appended` were stored before the answer that tells of a failure. */
const FATES = [
  'stored',
  'no leader',
  'answer lost, not appended',
  'answer lost, appended',
  'NOT_LEADER_FOR_PARTITION, not appended',
  'NOT_LEADER_FOR_PARTITION, appended',
  'KAFKA_STORAGE_ERROR, appended',
  'REQUEST_TIMED_OUT, appended',
  'NOT_ENOUGH_REPLICAS, not appended',
  'OUT_OF_ORDER_SEQUENCE_NUMBER, not appended',
  'a day passes, producers are forgotten',
] as const
type Fate = (typeof FATES)[number]

const PARTITIONS = 2
const DAY_MS = 86_400_000

describe('a lane', () => {
  it('writes each batch once, whatever becomes of its writes and of what Kafka knows [G1]', async () => {
    const fates = fc.array(fc.constantFrom(...FATES), { maxLength: 40 })
    const looksFail = fc.array(fc.boolean(), { maxLength: 10 })
    await fc.assert(
      fc.asyncProperty(fates, looksFail, async (given, failing) => {
        const broker = openModelBroker(given, failing)
        const lane = openLane(broker.client, broker.now)
        for (let number = 0; number < 8; number++) await sent(lane, broker, number)
        const stored = broker.logs.flat().sort()
        expect(stored).toEqual(Array.from({ length: 8 }, (_, number) => `batch ${number}`))
      }),
      { numRuns: 2_000 },
    )
  })

  it('stays on its partition when a leader that goes has appended the batch [G1]', async () => {
    const broker = openModelBroker(['stored', 'NOT_LEADER_FOR_PARTITION, appended', 'no leader'], [])
    const lane = openLane(broker.client, broker.now)
    for (let number = 0; number < 3; number++) await sent(lane, broker, number)
    expect(broker.logs.flat().sort()).toEqual(['batch 0', 'batch 1', 'batch 2'])
  })

  it('takes another partition when nothing can have been stored', async () => {
    const broker = openModelBroker(['no leader'], [])
    await sent(openLane(broker.client, broker.now), broker, 0)
    expect(broker.logs).toEqual([[], ['batch 0']])
  })

  it('lets no other batch in before the one that failed', async () => {
    const broker = openModelBroker(['answer lost, appended'], [])
    const lane = openLane(broker.client, broker.now)
    await expect(lane.send(batch(0), broker.to('batch 0'))).rejects.toMatchObject({ code: 'log_unavailable' })
    await expect(lane.send(batch(1), broker.to('batch 1'))).rejects.toThrow('must be repeated first')
  })
})

function batch(number: number): KafkaRecord[] {
  return [{ value: Buffer.from(`batch ${number}`), headers: {} }]
}

/** Until the lane says that it is stored, as ingest does. */
async function sent(lane: ReturnType<typeof openLane>, broker: ModelBroker, number: number): Promise<void> {
  const records = batch(number)
  for (;;) {
    try {
      return await lane.send(records, broker.to(`batch ${number}`))
    } catch (error) {
      if (!hasFate(error, 'retry')) throw error
    }
  }
}

interface ModelBroker {
  readonly client: KafkaClient
  /** The values of each partition. */
  readonly logs: readonly string[][]
  readonly now: () => number
  to(value: string): SendTo
}

function openModelBroker(given: readonly Fate[], looksFail: readonly boolean[]): ModelBroker {
  const fates = [...given]
  const failing = [...looksFail]
  const logs: string[][] = Array.from({ length: PARTITIONS }, () => [])
  /** The last sequence number by partition and producer. */
  const known = new Map<string, number>()
  let producers = 0
  let time = 0
  const node = { initProducerId, disconnect: async () => {}, connectionPool: { send } } as unknown as KafkaNode
  const client = { leader, refresh: async () => {} } as unknown as KafkaClient
  return { client, logs, now: () => time, to }

  async function initProducerId() {
    const id = String(++producers)
    return { producerId: { toString: () => id }, producerEpoch: 0 }
  }

  async function leader(): Promise<KafkaNode> {
    if (fates[0] === 'a day passes, producers are forgotten') {
      fates.shift()
      known.clear()
      time += DAY_MS
    }
    if (fates[0] !== 'no leader') return node
    fates.shift()
    throw unavailable('Nobody leads it.')
  }

  function to(value: string): SendTo {
    return {
      topic: 'log',
      partitions: [0, 1],
      find: async (partition, from) => {
        if (failing.shift() === true) throw unavailable('It cannot be read.')
        return logs[partition]?.slice(from).includes(value) === true
      },
      endOf: async partition => logs[partition]?.length ?? 0,
    }
  }

  /** Answers as Kafka does to Produce, with the codec of the caller. */
  async function send({ request, response }: SendRequest): Promise<unknown> {
    const { partition, producer, sequence, value } = readProduce((await request.encode()).buffer)
    const fate = fates.shift() ?? 'stored'
    if (fate.endsWith('not appended')) throw failureOf(fate)
    const baseOffset = append(partition, { producer, sequence, value })
    if (fate.endsWith(', appended')) throw failureOf(fate)
    const partitions = [{ partition, errorCode: 0, baseOffset: String(baseOffset), logAppendTime: '-1' }]
    return response.parse({ topics: [{ topicName: 'log', partitions }], throttleTime: 0 })
  }

  /** KIP-98, and KIP-360: of a producer that it does not know, a broker takes any number. */
  function append(partition: number, { producer, sequence, value }: Write): number {
    const log = logs[partition] as string[]
    const place = `${partition}/${producer}`
    const last = known.get(place)
    if (last !== undefined && sequence === last) return log.length - 1
    if (last !== undefined && sequence !== last + 1) throw failure('OUT_OF_ORDER_SEQUENCE_NUMBER')
    known.set(place, sequence)
    return log.push(value) - 1
  }
}

interface SendRequest {
  readonly request: { encode(): Promise<{ buffer: Buffer }> }
  readonly response: { parse(decoded: object): Promise<unknown> }
}

interface Write {
  readonly producer: string
  readonly sequence: number
  readonly value: string
}

/** Of Produce version 7 with one batch of one record for the topic `log`. */
function readProduce(bytes: Buffer): Write & { readonly partition: number } {
  const partitionAt = 2 + 2 + 4 + 4 + 2 + 'log'.length + 4
  const batchAt = partitionAt + 8
  const value = /batch \d+/.exec(bytes.toString('latin1', batchAt + 61))?.[0] ?? ''
  return {
    partition: bytes.readInt32BE(partitionAt),
    producer: String(bytes.readBigInt64BE(batchAt + 43)),
    sequence: bytes.readInt32BE(batchAt + 53),
    value,
  }
}

function failureOf(fate: string): Error {
  const type = fate.split(',')[0] ?? ''
  return type === 'answer lost' ? new Error('Request timed out') : failure(type)
}

function failure(type: string): Error {
  return Object.assign(new Error(type), { type })
}
