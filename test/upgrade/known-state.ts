/** What became of known readings: in ClickHouse, and in the state that the API serves. Both as sorted lines, to be compared as a whole. */
import type { SystemPorts } from '../crash/system.ts'
import type { KnownDirectory, KnownReading } from './packed.ts'

/** From here on a number is a time in µs, below it in ms. */
const MICROSECONDS_MIN = 1e14

/** device, metric, time of the reading, time that the device gave, value. */
export function acknowledgedLines({ acknowledged }: Pick<KnownDirectory, 'acknowledged'>): string[] {
  return acknowledged.map(lineOf).sort()
}

function lineOf({ device, metric, ts, sentTs, value }: KnownReading): string {
  return [device, metric, ts ?? 'received', sentTs ?? 'none', canonical(value)].join(' ')
}

type Row = [device: string, metric: string, ts: string, receivedAt: string, sent: string | null, value: string]

/** Every row of the table, in the same form. */
export async function storedLines(ports: SystemPorts): Promise<string[]> {
  const value = `multiIf(kind = 'integer', value_str, kind = 'bool', if(value = 1, 'true', 'false'), kind = 'null', 'null',
    kind = 'string', toJSONString(value_str), toString(value))`
  const micros = (column: string) => `toString(toUnixTimestamp64Micro(toDateTime64(${column}, 6)))`
  const columns = ['device', 'metric', micros('ts'), micros('received_at'), 'toString(sent_ts)', value]
  const rows = await query<Row>(ports, `SELECT ${columns.join()} FROM telemetry.readings FORMAT JSONCompactEachRow`)
  return rows
    .map(([device, metric, ts, receivedAt, sent, value]) => {
      const time = ts === receivedAt ? 'received' : Number(ts) / 1_000
      return [device, metric, time, sentMs(sent) ?? 'none', canonical(value)].join(' ')
    })
    .sort()
}

/** Older layouts have ms, and 0 for none. */
function sentMs(sent: string | null): number | null {
  const time = Number(sent ?? 0)
  if (time === 0) return null
  return time >= MICROSECONDS_MIN ? time / 1_000 : time
}

export async function query<T>({ sql }: SystemPorts, body: string): Promise<T[]> {
  const answer = await fetch(`http://127.0.0.1:${sql}/`, { method: 'POST', body })
  const text = await answer.text()
  if (!answer.ok) throw new Error(text)
  return text.split('\n').flatMap(line => (line === '' ? [] : [JSON.parse(line) as T]))
}

/** device, metric, newest value: as it must be. */
export function newestLines({ newest }: Pick<KnownDirectory, 'newest'>): string[] {
  return Object.entries(newest)
    .flatMap(([device, metrics]) =>
      Object.entries(metrics).map(([metric, value]) => [device, metric, canonical(value)].join(' ')),
    )
    .sort()
}

/** The same, as the API says it. An integer beyond 2^53 is a text of its digits there. */
export async function stateLines(http: number, known: Pick<KnownDirectory, 'newest'>): Promise<string[]> {
  const lines: string[] = []
  for (const device of Object.keys(known.newest)) {
    const answer = await fetch(`http://127.0.0.1:${http}/v1/devices/${device}`)
    const { metrics = {} } = (await answer.json()) as { metrics?: Record<string, { value: unknown }> }
    for (const [metric, { value }] of Object.entries(metrics)) {
      const isDigits = typeof value === 'string' && /^-?\d{16,}$/.test(value)
      lines.push([device, metric, isDigits ? value : canonical(JSON.stringify(value))].join(' '))
    }
  }
  return lines.sort()
}

/** One text for each value: `1e-1` and `0.1` are the same number, and an integer beyond 2^53 keeps its digits. */
function canonical(json: string): string {
  if (/^-?\d{16,}$/.test(json)) return json
  return JSON.stringify(JSON.parse(json))
}
