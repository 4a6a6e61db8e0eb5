/**
 * A small fleet whose every reading is known: what was acknowledged, with its time and value, and what is newest. It uses each way
 * in which a device can write a time or a value. Values of a metric differ, so a reading is found by its value.
 */
import { setTimeout as pause } from 'node:timers/promises'
import mqtt from 'mqtt'
import type { KnownReading } from '../../upgrade/packed.ts'

export interface KnownFleet {
  readonly acknowledged: readonly KnownReading[]
  readonly quarantined: number
  /** Publishes the next messages of every device, and resolves when each is acknowledged. */
  publish(): Promise<void>
  /** By device and metric, as JSON text. */
  newest(): Record<string, Record<string, string>>
  close(): Promise<void>
}

const DEVICES = Array.from({ length: 8 }, (_, at) => `press-${at}`)
const MINUTE_MS = 60_000
const [YEAR_MS, HOUR_MS] = [365 * 24 * 60 * MINUTE_MS, 60 * MINUTE_MS]
/** Two messages without a time are this far apart: the order of their receipts decides which one is newest. */
const APART_MS = 3

/** A message, and what is known of its readings. */
interface Known {
  readonly payload: string
  readonly readings: readonly Omit<KnownReading, 'device'>[]
}

export async function openKnownFleet(port: number): Promise<KnownFleet> {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: 'known-fleet', protocolVersion: 4 })
  const acknowledged: KnownReading[] = []
  const start = Date.now()
  let round = 0
  let quarantined = 0
  return {
    acknowledged,
    get quarantined() {
      return quarantined
    },
    publish,
    newest: () => newestOf(acknowledged),
    close: () => client.endAsync(),
  }

  async function publish(): Promise<void> {
    const at = round++
    for (const [number, device] of DEVICES.entries()) {
      for (const { payload, readings } of messages(start, at * DEVICES.length + number)) {
        await client.publishAsync(`devices/${device}/telemetry`, payload, { qos: 1 })
        acknowledged.push(...readings.map(reading => ({ device, ...reading })))
        await pause(APART_MS)
      }
    }
    await client.publishAsync(`devices/${DEVICES[0]}/telemetry`, `no JSON ${at}`, { qos: 1 })
    quarantined++
  }
}

/** `n` makes the values of a message its own. The newest of a metric is never in doubt: it is received last, or its time is. */
function messages(start: number, n: number): Known[] {
  const ms = start - 2 * HOUR_MS + n * 1_000 + 123
  const seconds = Math.floor(start / 1_000) - 3_600 + n
  const old = start - YEAR_MS - n * MINUTE_MS
  const ahead = start + HOUR_MS + n * 1_000
  return [
    timed(String(ms), ms, { temperature: String(n + 0.25), count: String(n), ratio: String((n + 1) / 7) }),
    timed(String(seconds), seconds * 1_000, { open: n % 2 === 0 ? 'true' : 'false', [`flag.${n}`]: 'false' }),
    timed(String(old), old, { pressure: `1e-${n + 1}`, note: JSON.stringify(`état ${n} "ok" 温度`), nothing: 'null' }),
    timed(`"${new Date(ms).toISOString()}"`, ms, { serial: String(9_007_199_254_740_993n + BigInt(n)) }),
    untimed({ level: String(n - 40), mode: JSON.stringify(`mode-${n}`) }),
    { payload: payloadOf(String(ahead), { drift: String(n) }), readings: [known('drift', null, ahead, String(n))] },
    list(ms, n),
  ]
}

function timed(written: string, ts: number, values: Readonly<Record<string, string>>): Known {
  const readings = Object.entries(values).map(([metric, value]) => known(metric, ts, ts, value))
  return { payload: payloadOf(written, values), readings }
}

function untimed(values: Readonly<Record<string, string>>): Known {
  const readings = Object.entries(values).map(([metric, value]) => known(metric, null, null, value))
  return { payload: objectOf(values), readings }
}

function list(ms: number, n: number): Known {
  const elements = [0, 1, 2].map(at => ({ ts: ms + at, values: { speed: String(3 * n + at) } }))
  return {
    payload: `[${elements.map(({ ts, values }) => payloadOf(String(ts), values)).join()}]`,
    readings: elements.map(({ ts, values }) => known('speed', ts, ts, values.speed)),
  }
}

function known(metric: string, ts: number | null, sentTs: number | null, value: string): Omit<KnownReading, 'device'> {
  return { metric, ts, sentTs, value }
}

function payloadOf(ts: string, values: Readonly<Record<string, string>>): string {
  return `{"ts":${ts},"values":${objectOf(values)}}`
}

function objectOf(values: Readonly<Record<string, string>>): string {
  const members = Object.entries(values).map(([name, value]) => `${JSON.stringify(name)}:${value}`)
  return `{${members.join()}}`
}

/** The greatest time; of those that have that of their receipt, the last. */
function newestOf(readings: readonly KnownReading[]): Record<string, Record<string, string>> {
  const newest = new Map<string, KnownReading>()
  for (const reading of readings) {
    const key = `${reading.device}/${reading.metric}`
    const before = newest.get(key)
    const isNewer = before === undefined || reading.ts === null || (before.ts !== null && reading.ts >= before.ts)
    if (isNewer) newest.set(key, reading)
  }
  const found: Record<string, Record<string, string>> = {}
  for (const { device, metric, value } of newest.values()) {
    const metrics = found[device] ?? {}
    metrics[metric] = value
    found[device] = metrics
  }
  return found
}
