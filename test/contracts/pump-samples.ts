/** What tests of the pump append, claim and expect. */
import { SurgetankError } from '../../errors.ts'
import { LINE_FORMAT } from '../../model/message.ts'
import { acceptedOnly } from '../../pump/message-counts.ts'
import type { Batch, Chunk, Claim, Consumption, DeadLetter, PumpOutlet, Refused } from '../../pump/pump.ts'

export const RECEIVED_AT = Date.UTC(2026, 10, 20, 12)

/** What a chunk of so many messages says of them, when nothing else was received. */
export function accepted(messages: number): Pick<Chunk, 'format' | 'messages' | 'counts'> {
  return { format: LINE_FORMAT, messages, counts: acceptedOnly(messages) }
}

/** What a batch has beside so many lines when nothing else was received. */
export function onlyLines(messages: number): Pick<Batch, 'messages' | 'refused' | 'counts' | 'repeated'> {
  return { messages, refused: [], counts: acceptedOnly(messages), repeated: [] }
}

/** A batch of `count` lines of one reading each, numbered from `from` on. */
export function batchOf(from: number, count: number, more: Partial<Batch> = {}): Batch {
  const lines = Buffer.from(Array.from({ length: count }, (_, i) => lineOf(from + i)).join('\n'))
  const times = { firstReceivedAt: RECEIVED_AT + from, lastReceivedAt: RECEIVED_AT + from + count }
  const { refused = [] } = more
  const counts = { received: count + refused.length, repeated: 0, quarantined: refused.length, letGo: {} }
  return { lines, messages: count, readings: count, ...times, refused, counts, repeated: [], ...more }
}

export function lineOf(number: number): string {
  return `{"device":"press-${number % 7}","receivedAt":${(RECEIVED_AT + number) * 1_000},"readings":[["temperature",${number}]]}`
}

export function refusedOf(number: number, bytes = 20): Refused {
  const payload = Buffer.alloc(bytes, number & 255)
  const topic = 'devices/press-1/telemetry'
  return {
    receivedAt: RECEIVED_AT + number,
    device: 'press-1',
    topic,
    reason: 'not_json',
    detail: `number ${number}`,
    payload,
  }
}

export function letterOf(source: string, position: number, index: number): DeadLetter {
  const about = { device: 'press-1', receivedAt: RECEIVED_AT, reason: 'refused', detail: 'no such type' }
  return { source, position, index, ...about, line: lineOf(index) }
}

export interface HeldClaim {
  readonly claim: Claim
  readonly consumption: Consumption
  /** Lets `work` return, and ends the consumption. */
  end(): Promise<void>
}

/** Takes a claim and keeps `work` from returning until it is ended. */
export async function holdClaim(outlet: PumpOutlet): Promise<HeldClaim> {
  const claimed = deferred<Claim>()
  const over = deferred<void>()
  const consumption = outlet.consume(async claim => {
    claimed.resolve(claim)
    claim.lost.addEventListener('abort', () => over.resolve())
    await over.promise
  })
  const claim = await claimed.promise
  return { claim, consumption, end }

  async function end(): Promise<void> {
    over.resolve()
    await consumption.stop()
  }
}

export function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {}
  const promise = new Promise<T>(done => {
    resolve = done
  })
  return { promise, resolve }
}

export async function rejection(promise: Promise<unknown>): Promise<SurgetankError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof SurgetankError) return error
    throw error
  }
  throw new Error('It did not reject.')
}
