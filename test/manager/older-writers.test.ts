/** The whole in one process on a shared log: a writer of an older version is in its group, and the tables are older, too. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { SCHEMA_VERSION } from '../../manager/build-info.ts'
import { fetchWriters } from '../../pump/kafka-pump.ts'
import { freePorts, startSystem } from '../crash/system.ts'
import { type Fixture, openFixture, scalar } from '../database/database-fixture.ts'
import { insertOld, makeOld } from '../database/old-database.ts'
import { openKafkaHarness } from '../pump/kafka-harness.ts'
import { kafkaGiven, kafkaHere, useKafka } from '../servers/kafka-server.ts'
import { until } from '../waits.ts'

const OLD_SCHEMA = 3

describe.skipIf(!kafkaHere && kafkaGiven === undefined)('one surgetank on a shared log', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'surgetank-older-writers-'))
  let kafka: Awaited<ReturnType<typeof useKafka>>
  let on: Fixture
  beforeAll(async () => {
    ;[kafka, on] = await Promise.all([useKafka(), openFixture()])
  })
  afterAll(async () => {
    await Promise.all([kafka.stop(), on.close()])
    rmSync(dataDir, { recursive: true, force: true })
  })

  it('leaves the tables as they are while an older writer inserts into them, and serves meanwhile', async () => {
    await makeOld(on, 'telemetry', OLD_SCHEMA)
    await insertOld(on, 'telemetry', [{ value: 1 }])
    const harness = await openKafkaHarness({ brokers: kafka.brokers })
    const older = await harness.openOutlet({ schema: OLD_SCHEMA })
    older.consume(async () => {})
    await until(async () => (await fetchWriters(harness.options)).length === 1, 'it is a member')
    const env = {
      KAFKA_BROKERS: kafka.brokers,
      SURGETANK_KAFKA_TOPIC: harness.options.topic,
      CLICKHOUSE_URL: `http://surgetank:${on.server.password}@${new URL(on.server.url).host}`,
    }
    const running = await startSystem({ dataDir, ports: await freePorts(), env })
    await until(() => running.output().includes('end the older writers'), 'it says for whom it waits')
    expect(await scalar(on.writer, 'SELECT max(version) FROM telemetry.migrations')).toBe(OLD_SCHEMA)
    await older.close()
    const newest = "SELECT count() FROM system.tables WHERE database = 'telemetry_internal' AND name = 'migrations'"
    await until(async () => Number(await scalar(on.writer, newest)) > 0, 'the tables have their place')
    const version = 'SELECT max(version) FROM telemetry_internal.migrations'
    await until(async () => (await scalar(on.writer, version)) === SCHEMA_VERSION, 'the tables are changed')
    expect(await running.stop()).toBe(0)
    await harness.destroy()
  })
})
