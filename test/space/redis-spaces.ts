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

export function reading(
  device: string,
  ts: number,
  value: Value,
  more: { metric?: string; receivedAt?: number } = {},
): Message {
  const { metric = 'm', receivedAt = ts + 10 } = more
  return { device, receivedAt, readings: [{ metric, ts, value, sentTs: ts }] }
}

/** Resolves once `holds`; asked often, because there is no event for it. Rejects after `msMax`. */
export async function until(holds: () => boolean | Promise<boolean>, msMax = 30_000): Promise<number> {
  const since = performance.now()
  while (!(await holds())) {
    if (performance.now() - since > msMax) throw new Error(`It did not come to hold within ${msMax} ms: ${holds}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  return performance.now() - since
}

/** What is given first, asked often. */
export async function given<T>(ask: () => Promise<T | null>): Promise<T> {
  let answer: T | null = null
  await until(async () => {
    answer = await ask()
    return answer !== null
  })
  return answer as T
}
