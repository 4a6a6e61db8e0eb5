/** A writer of a log in Kafka, and what it is alarmed by. */
import { pino } from 'pino'
import type { Consumption } from '../../pump/pump.ts'
import { openWriter } from '../../writers/writer.ts'
import type { Fixture } from '../database/database-fixture.ts'
import type { KafkaHarness } from '../pump/kafka-harness.ts'

export async function openAlarmedWriter(
  harness: KafkaHarness,
  { database }: Fixture,
): Promise<{ writer: Consumption; alarms: readonly string[] }> {
  const alarms: string[] = []
  const writer = openWriter({
    outlet: await harness.openOutlet(),
    database,
    limits: { rowsMax: 1_000, bytesMax: 1 << 20 },
    batchAgeMsMax: 50,
    retryMsMin: 50,
    log: pino({ level: 'error' }, { write: line => void alarms.push(line) }),
  })
  return { writer, alarms }
}
