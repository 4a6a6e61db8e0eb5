/** What an operator has set in Kafka, or has not granted, with a real broker: said in a sentence, by whoever starts or reads. */
import kafkajs from 'kafkajs'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { SurgetankError } from '../../errors.ts'
import { examineKafkaLog, openKafkaInlet } from '../../pump/kafka-pump.ts'
import type { PumpView } from '../../pump/pump.ts'
import { batchOf, rejection } from '../contracts/pump-samples.ts'
import { type KafkaServer, kafkaHere, startKafka } from '../servers/kafka-server.ts'
import { given } from '../waits.ts'
import { type KafkaHarness, kafkaOptions, openKafkaHarness } from './kafka-harness.ts'

const { AclOperationTypes, AclPermissionTypes, AclResourceTypes, ConfigResourceTypes, ResourcePatternTypes } = kafkajs

describe.skipIf(!kafkaHere)('a Kafka that somebody has set up', () => {
  let kafka: KafkaServer
  let admin: kafkajs.Admin
  let harness: KafkaHarness | undefined
  beforeAll(async () => {
    const authorizer = 'org.apache.kafka.metadata.authorizer.StandardAuthorizer'
    const properties = { 'authorizer.class.name': authorizer, 'allow.everyone.if.no.acl.found': 'true' }
    kafka = await startKafka({ properties })
    admin = new kafkajs.Kafka({ brokers: [kafka.brokers], logLevel: 0 }).admin()
    await admin.connect()
  })
  afterAll(async () => {
    await admin.disconnect()
    await kafka.stop()
  })
  afterEach(() => harness?.destroy())

  it('and lets this user not use the group of the writers, is told of at the start of a broker', async () => {
    const options = kafkaOptions({ brokers: kafka.brokers })
    const acl = {
      ...{ resourceType: AclResourceTypes.GROUP, resourceName: `${options.topic}.writers` },
      ...{ resourcePatternType: ResourcePatternTypes.LITERAL, principal: 'User:ANONYMOUS', host: '*' },
      ...{ operation: AclOperationTypes.DESCRIBE, permissionType: AclPermissionTypes.DENY },
    }
    await admin.createAcls({ acl: [acl] })
    // The broker learns of it a little later than the controller.
    const error = await given(() => openKafkaInlet(options).then(inlet => inlet.close().then(() => null), asIs))
    expect(error).toMatchObject({ code: 'log_misconfigured', fate: 'stop' })
    expect(error.message).toContain('consumer group; grant it READ')
  })

  it('and lets this user have no list of repetitions, works without, and counts them all the same', async () => {
    harness = await openKafkaHarness({ brokers: kafka.brokers })
    const acl = {
      ...{ resourceType: AclResourceTypes.TOPIC, resourceName: `${harness.options.topic}.repeated` },
      ...{ resourcePatternType: ResourcePatternTypes.LITERAL, principal: 'User:ANONYMOUS', host: '*' },
      ...{ operation: AclOperationTypes.ALL, permissionType: AclPermissionTypes.DENY },
    }
    await admin.createAcls({ acl: [acl] })
    await given(() => admin.fetchTopicMetadata({ topics: [acl.resourceName] }).then(() => null, asIs))
    const inlet = await harness.openInlet()
    const repeated = [{ receivedAt: 1, device: 'd', topic: 't', why: 'dup' as const, payload: Buffer.from('{}') }]
    const counts = { received: 2, repeated: 1, quarantined: 0, letGo: {} }
    for (let i = 0; i < 3; i++) await inlet.append(batchOf(i, 1, { counts, repeated }))
    const view = await harness.openView()
    expect(await view.repeated(10, null)).toEqual([])
    expect((await view.books()).messages).toMatchObject({ received: 6, repeated: 3 })
    expect((await examineKafkaLog(harness.options)).filter(advice => advice.includes('repeated'))).toEqual([])
  })

  it('and shows this user not how the list of repetitions is set up, starts, and says so as an advice', async () => {
    harness = await openKafkaHarness({ brokers: kafka.brokers })
    await (await harness.openInlet()).close()
    const on = {
      ...{ resourceType: AclResourceTypes.TOPIC, resourceName: `${harness.options.topic}.repeated` },
      ...{ resourcePatternType: ResourcePatternTypes.LITERAL, principal: 'User:ANONYMOUS', host: '*' },
    }
    const everything = { operation: AclOperationTypes.ALL, permissionType: AclPermissionTypes.ALLOW }
    const settings = { operation: AclOperationTypes.DESCRIBE_CONFIGS, permissionType: AclPermissionTypes.DENY }
    await admin.createAcls({ acl: [everything, settings].map(right => ({ ...on, ...right })) })
    const resource = { type: ConfigResourceTypes.TOPIC, name: on.resourceName }
    await given(() => admin.describeConfigs({ resources: [resource], includeSynonyms: false }).then(() => null, asIs))
    await (await harness.openInlet()).append(batchOf(0, 1))
    const advice = (await examineKafkaLog(harness.options)).filter(sentence => sentence.includes('repeated'))
    expect(advice).toEqual([expect.stringMatching(/the list of repetitions: .*grant it .*DESCRIBE_CONFIGS/)])
  })

  it('and has too few brokers now for the list of repetitions, starts without, and makes it at a later start', async () => {
    harness = await openKafkaHarness({ brokers: kafka.brokers })
    await (await harness.openInlet()).close()
    const name = `${harness.options.topic}.repeated`
    await admin.deleteTopics({ topics: [name] })
    await expect.poll(async () => (await admin.listTopics()).includes(name)).toBe(false)
    const inlet = await openKafkaInlet({ ...harness.options, replication: 3 })
    await inlet.append(batchOf(0, 1))
    await inlet.close()
    expect(await admin.listTopics()).not.toContain(name)
    await harness.openInlet()
    expect(await admin.listTopics()).toContain(name)
  })

  it('and asks nobody who comes, is told of to whoever would say it, who tries again', async () => {
    const sasl = { mechanism: 'plain', user: 'surge', password: 'secret' } as const
    const error = await rejection(openKafkaInlet({ ...kafkaOptions({ brokers: kafka.brokers }), sasl }))
    expect(error).toMatchObject({ code: 'log_unavailable', fate: 'retry' })
    expect(error.message).toContain('set SURGETANK_KAFKA_SASL to none')
  })

  it('to compress by gzip, hands out what was appended', async () => {
    harness = await openKafkaHarness({ brokers: kafka.brokers })
    await makeTopic(harness.options.topic, { 'compression.type': 'gzip' })
    const inlet = await harness.openInlet()
    const batches = [batchOf(0, 3), batchOf(3, 2)]
    for (const batch of batches) await inlet.append(batch)
    const chunks = await (await harness.openView()).read(0, 0, { chunksMax: 10, bytesMax: 1 << 20 })
    expect(chunks.map(({ lines }) => lines)).toEqual(batches.map(({ lines }) => lines))
  })

  it('to compress by zstd, is refused', async () => {
    const options = kafkaOptions({ brokers: kafka.brokers })
    await makeTopic(options.topic, { 'compression.type': 'zstd' })
    const error = await rejection(openKafkaInlet(options))
    expect(error).toMatchObject({ code: 'log_misconfigured', fate: 'stop' })
    expect(error.message).toContain('compression.type is zstd; set it to producer')
  })

  it('to compress by LZ4 later on, stops whoever reads, at the first batch that cannot be read', async () => {
    harness = await openKafkaHarness({ brokers: kafka.brokers })
    const inlet = await harness.openInlet()
    const view = await harness.openView()
    const { topic } = harness.options
    const configEntries = entriesOf({ 'flush.messages': '1', 'compression.type': 'lz4' })
    const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }]
    for (let number = 0; number < 3; number++) await inlet.append(batchOf(number, 1))
    await admin.alterConfigs({ validateOnly: false, resources })
    // The log is set so a little later.
    const stopped = await given(async () => {
      for (let number = 0; number < 3; number++) await inlet.append(batchOf(number, 1))
      return readToStop(view)
    })
    expect(stopped.error).toMatchObject({ code: 'log_misconfigured', fate: 'stop' })
    expect(stopped.error.message).toContain(`reading ${topic}/0 from ${stopped.at}:`)
    expect(stopped.at).toBeGreaterThanOrEqual(3)
  })

  async function makeTopic(topic: string, config: Record<string, string>): Promise<void> {
    const configEntries = entriesOf({ 'flush.messages': '1', 'max.message.bytes': '8388608', ...config })
    const settings = { 'retention.ms': '-1', 'message.timestamp.type': 'LogAppendTime' }
    const all = [...configEntries, ...entriesOf(settings)]
    await admin.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor: 1, configEntries: all }] })
  }
})

/** Reads all that there is, one chunk after the other: null at the end, or the error and where it came. */
async function readToStop(view: PumpView): Promise<{ error: SurgetankError; at: number } | null> {
  for (let at = 0; ; ) {
    const read = view.read(0, at, { chunksMax: 100, bytesMax: 1 << 20 })
    const chunks = await read.catch(() => null)
    if (chunks === null) return { error: await rejection(read), at }
    const last = chunks.at(-1)
    if (last === undefined) return null
    expect(chunks.map(({ position }) => position)).toEqual(chunks.map((_, index) => at + index))
    at = last.position + 1
  }
}

function entriesOf(config: Record<string, string>): { name: string; value: string }[] {
  return Object.entries(config).map(([name, value]) => ({ name, value }))
}

function asIs(error: SurgetankError): SurgetankError {
  return error
}
