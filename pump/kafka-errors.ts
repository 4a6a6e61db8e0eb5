/**
 * What Kafka and kafkajs answer when something is wrong, as errors of ours: the fate decides what the caller does, and what an
 * operator must mend is a sentence that names the setting.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { SurgetankError } from '../errors.ts'

const LOADING = new Set(['GROUP_LOAD_IN_PROGRESS', 'GROUP_COORDINATOR_NOT_AVAILABLE', 'NOT_COORDINATOR_FOR_GROUP'])
const LOADING_MS_MAX = 5_000
const LOADING_PAUSE_MS = 100

/** Asks again for a while whom a broker that was just started has not made its coordinator yet. */
export async function onceLoaded<Result>(ask: () => Promise<Result>): Promise<Result> {
  const until = performance.now() + LOADING_MS_MAX
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!LOADING.has(kafkaErrorType(error) ?? '') || performance.now() > until) throw error
      await pause(LOADING_PAUSE_MS)
    }
  }
}

/**
 * Kafka's own name of an error, such as NOT_LEADER_FOR_PARTITION; null when it is not Kafka that answered. Of an answer about
 * several topics, that of the first.
 */
export function kafkaErrorType(error: unknown): string | null {
  for (let at = error; at instanceof Error; at = innerOf(at)) {
    if ('type' in at && typeof at.type === 'string') return at.type
  }
  return null
}

function innerOf(error: Error): unknown {
  return 'errors' in error && Array.isArray(error.errors) ? error.errors[0] : error.cause
}

/** What no retry mends: an operator must act. */
const OPERATOR_MUST_ACT: Readonly<Record<string, string>> = {
  TOPIC_AUTHORIZATION_FAILED:
    'Kafka does not let this user use the topic; grant it READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS and DELETE.',
  GROUP_AUTHORIZATION_FAILED: 'Kafka does not let this user use the consumer group; grant it READ.',
  CLUSTER_AUTHORIZATION_FAILED: 'Kafka does not let this user write idempotently or create topics; grant it.',
  SASL_AUTHENTICATION_FAILED: 'Kafka refuses SURGETANK_KAFKA_USER or its password.',
  UNSUPPORTED_SASL_MECHANISM: 'Kafka does not offer the mechanism of SURGETANK_KAFKA_SASL.',
  MESSAGE_TOO_LARGE: "A batch is larger than the topic's max.message.bytes; raise it to 8388608.",
  RECORD_LIST_TOO_LARGE: "A batch is larger than the topic's segment.bytes; raise it.",
  INVALID_TOPIC_EXCEPTION: 'SURGETANK_KAFKA_TOPIC is no name of a topic.',
  POLICY_VIOLATION: 'A policy of the Kafka cluster forbids it.',
  UNSUPPORTED_VERSION: 'This Kafka is too old; run 3.0 or newer.',
}

/** What may pass by itself, and may need an operator: said while it is tried again. */
const HINTS: Readonly<Record<string, string>> = {
  ILLEGAL_SASL_STATE: 'If it stays so, this port of Kafka asks nobody who they are: set SURGETANK_KAFKA_SASL to none.',
}

/** A batch whose compression kafkajs does not know: LZ4, Snappy and zstd. It may be ours, so it is not passed over. */
export const UNREADABLE = 'KafkaJSNotImplemented'

export function translateKafkaError(error: unknown, doing: string): SurgetankError {
  if (error instanceof SurgetankError) return error
  const type = kafkaErrorType(error)
  const message = error instanceof Error ? error.message : String(error)
  const act = type === null ? undefined : OPERATOR_MUST_ACT[type]
  if (act !== undefined) return new SurgetankError('log_misconfigured', `${act} (${doing}: ${type})`, error)
  if (isNamed(error, 'KafkaJSSASLAuthenticationError')) {
    const advice = 'Kafka refuses SURGETANK_KAFKA_SASL, SURGETANK_KAFKA_USER or its password.'
    return new SurgetankError('log_misconfigured', `${advice} (${message})`, error)
  }
  if (isNamed(error, UNREADABLE)) {
    const advice =
      'Somebody else writes into the topic, or its compression.type is not producer: end that. To go on, remove the records up to this one, or name another SURGETANK_KAFKA_TOPIC.'
    return new SurgetankError('log_misconfigured', `Kafka, ${doing}: ${message}. ${advice}`, error)
  }
  const code = systemCodeOf(error)
  if (UNTRUSTED.has(code ?? '')) {
    const advice = "Kafka's certificate is not trusted; set SURGETANK_KAFKA_CA to the one that vouches for it."
    return new SurgetankError('log_misconfigured', `${advice} (${code})`, error)
  }
  const hint = type === null ? undefined : HINTS[type]
  return unavailable(`Kafka, ${doing}: ${type ?? message}.${hint === undefined ? '' : ` ${hint}`}`, error)
}

const UNTRUSTED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'CERT_HAS_EXPIRED',
])

function systemCodeOf(error: unknown): string | null {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string') return at.code
  }
  return null
}

/** Whether kafkajs calls it so, or what it was caused by. */
export function isNamed(error: unknown, name: string): boolean {
  for (let at = error; at instanceof Error; at = at.cause) if (at.name === name) return true
  return false
}

export function unavailable(detail: string, cause?: unknown): SurgetankError {
  return new SurgetankError('log_unavailable', detail, cause)
}
