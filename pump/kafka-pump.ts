/** Placeholder. */
import type { Logger } from 'pino'
import { SurgetankError } from '../errors.ts'
import type { PumpInlet, PumpOutlet, PumpView } from './pump.ts'

export interface KafkaOptions {
  readonly brokers: readonly string[]
  readonly topic: string
  readonly partitions: number
  /** 0: 3, or as many as there are brokers. */
  readonly replication: number
  /** `ca`: the text of a PEM file; null for Node's own authorities. */
  readonly tls: { readonly ca: string | null } | null
  readonly sasl: {
    readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
    readonly user: string
    readonly password: string
  } | null
  readonly keepHours: number
  readonly bytesMax: number
  readonly quarantineBytesMax: number
  readonly log: Logger
}

export async function openKafkaInlet(options: KafkaOptions): Promise<PumpInlet> {
  throw away(options)
}

export async function openKafkaOutlet(
  options: KafkaOptions & { readonly failed?: (error: unknown) => void },
): Promise<PumpOutlet> {
  throw away(options)
}

export async function openKafkaView(options: KafkaOptions): Promise<PumpView> {
  throw away(options)
}

function away({ brokers }: KafkaOptions): SurgetankError {
  return new SurgetankError('log_unavailable', `Kafka at ${brokers.join(', ')} does not answer.`)
}
