/**
 * Measures what the space takes, in a process of its own where the collector can be called (`node --expose-gc`). Sends
 * `{bytesPerDevice, bytesPerCutText}` to its parent, or prints it.
 */
import type { Message } from '../../model/message.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import type { Space } from '../../space/space.ts'

const METRICS = ['temperature', 'pressure', 'vibration.x', 'vibration.y', 'rpm']
const DEVICES = Number(process.argv[2] ?? 200_000)
const CUT_TEXTS = 20_000

/** Kept to the end: a space that goes while the other is measured would be counted as less than nothing. */
const kept: Space[] = []

const measured = { bytesPerDevice: await measureDevices(), bytesPerCutText: await measureCutTexts() }
if (process.send === undefined) process.stdout.write(`${JSON.stringify(measured)}\n`)
else process.send(measured)
for (const space of kept) await space.close()

async function measureDevices(): Promise<number> {
  const before = bytesUsed()
  const space = openMemorySpace({ devicesMax: DEVICES })
  for (let at = 0; at < DEVICES; at += 1000) {
    await space.merge(Array.from({ length: 1000 }, (_, more) => fiveMetrics(at + more)))
  }
  kept.push(space)
  const used = bytesUsed() - before
  return used / DEVICES
}

function fiveMetrics(at: number): Message {
  const readings = METRICS.map(metric => ({ metric, ts: 1000, receivedAt: 1000, value: at * 0.1, sentTs: 1000 }))
  return { device: `press-${String(at).padStart(7, '0')}`, receivedAt: 1000, readings }
}

/** Ids, names and values as cuts of a text of 4 kB each, as a broker cuts them from topics and payloads. */
async function measureCutTexts(): Promise<number> {
  const before = bytesUsed()
  const space = openMemorySpace({ devicesMax: CUT_TEXTS })
  for (let at = 0; at < CUT_TEXTS; at++) {
    const number = String(at).padStart(8, '0')
    const whole = Buffer.from(
      `device-${number}/metric-${number}/a longer value ${number}${' '.repeat(4096)}`,
    ).toString()
    const [device, metric, value] = [whole.slice(0, 15), whole.slice(16, 31), whole.slice(32, 55)]
    const reading = { metric, ts: 1000, receivedAt: 1000, value, sentTs: 1000 }
    await space.merge([{ device, receivedAt: 1000, readings: [reading] }])
  }
  kept.push(space)
  const used = bytesUsed() - before
  return used / CUT_TEXTS
}

function bytesUsed(): number {
  globalThis.gc?.()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
