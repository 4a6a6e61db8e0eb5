/** Spaces in a Redis of the test's own: each with a prefix of its own, or several that share one. Closed when the test ends. */
import { pino } from 'pino'
import { onTestFinished } from 'vitest'
import type { Message } from '../../model/message.ts'
import type { Value } from '../../model/reading.ts'
import { openRedisSpace, type RedisSpace, type RedisSpaceOptions } from '../../space/redis-space.ts'

let prefixes = 0

export function freshPrefix(): string {
  return `test-${process.pid}-${++prefixes}:`
}

export const SILENT = pino({ level: 'silent' })

export function spaceOptions(url: string, more: Partial<RedisSpaceOptions> = {}): RedisSpaceOptions {
  return { url, prefix: freshPrefix(), ca: null, devicesMax: 1_000_000, unit: true, log: SILENT, ...more }
}

/** A space that is closed when the test ends. */
export async function openSpace(url: string, more: Partial<RedisSpaceOptions> = {}): Promise<RedisSpace> {
  const space = await openRedisSpace(spaceOptions(url, more))
  onTestFinished(() => space.close())
  return space
}

/** Times in ms, as a clock gives them. */
export function reading(
  device: string,
  ms: number,
  value: Value,
  more: { metric?: string; receivedAt?: number } = {},
): Message {
  const { metric = 'm' } = more
  const [ts, receivedAt] = [ms * 1000, (more.receivedAt ?? ms + 10) * 1000]
  return { device, receivedAt, readings: [{ metric, ts, receivedAt, value, sentTs: ts }] }
}
