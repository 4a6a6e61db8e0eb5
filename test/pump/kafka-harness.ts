/** A log in topics of its own, on a real Kafka; everything that was opened on it is closed with it. */
import { randomBytes } from 'node:crypto'
import { pino } from 'pino'
import {
  type KafkaOptions,
  type KafkaOutletOptions,
  openKafkaInlet,
  openKafkaOutlet,
  openKafkaView,
} from '../../pump/kafka-pump.ts'
import type { PumpInlet, PumpOutlet, PumpView } from '../../pump/pump.ts'
import type { InletBounds, PumpHarness } from '../contracts/pump-contract.ts'
import { RECEIVED_AT } from '../contracts/pump-samples.ts'

export interface KafkaHarness extends PumpHarness {
  readonly options: KafkaOptions
  openInlet(bounds?: InletBounds): Promise<PumpInlet>
  openOutlet(more?: Partial<KafkaOutletOptions>): Promise<PumpOutlet>
  openView(): Promise<PumpView>
}

export interface KafkaHarnessOptions {
  readonly brokers: string
  readonly partitions?: number
  readonly metadataMs?: number
}

export function kafkaOptions({ brokers, partitions = 1, metadataMs = 60_000 }: KafkaHarnessOptions): KafkaOptions {
  return {
    brokers: brokers.split(','),
    topic: `test-${randomBytes(6).toString('hex')}`,
    partitions,
    metadataMs,
    replication: 0,
    tls: null,
    sasl: null,
    keepHours: 24,
    bytesMax: 256 << 20,
    quarantineBytesMax: 16 << 20,
    log: pino({ level: process.env.TEST_LOG ?? 'silent' }),
  }
}

export async function openKafkaHarness(given: KafkaHarnessOptions): Promise<KafkaHarness> {
  const opened: { close(): Promise<void> }[] = []
  let options = kafkaOptions(given)

  return {
    get options() {
      return options
    },
    openInlet,
    openOutlet: async more =>
      held(await openKafkaOutlet({ ...options, sessionMs: 6_000, revokeMsMax: 1_000, trimMs: 0, ...more })),
    openView: async () => {
      // A view makes no topics: it is a broker or a writer that does.
      if (opened.length === 0) await openInlet()
      return held(await openKafkaView(options))
    },
    destroy: async () => {
      await Promise.all(opened.map(part => part.close()))
    },
  }

  /** The bounds hold for what is opened later, too. Kafka goes by when a chunk was appended, which is now. */
  async function openInlet({ clock, ...bounds }: InletBounds = {}): Promise<PumpInlet> {
    options = { ...options, ...bounds }
    if (clock !== undefined) options = { ...options, clock: () => Date.now() + clock() - RECEIVED_AT }
    return held(await openKafkaInlet(options))
  }

  function held<T extends { close(): Promise<void> }>(part: T): T {
    opened.push(part)
    return part
  }
}
