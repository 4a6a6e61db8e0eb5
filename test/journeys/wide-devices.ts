/** Devices with many long text metrics: few messages fill a log. What they send can be computed again in SQL. */
import type { Packet } from 'mqtt-packet'
import { openPlainClient, type PlainClient } from './plain-client.ts'

export interface WideDevices {
  readonly metricsPerMessage: number
  start(): void
  /** Sends nothing new. */
  stop(): void
  counts(): { readonly sent: number; readonly acked: number; readonly inFlight: number; readonly closed: number }
  close(): void
}

const METRICS = 200
const PAD = 220
/** The time of the first message, ms. */
const EPOCH = Date.UTC(2026, 0, 1)
const WINDOW = 16
const TICK_MS = 20
/** About 50 kB each. */
const MESSAGES_PER_TICK = 5

/** The text that belongs to `metric` and `ts`, in ClickHouse's SQL. */
export const TEXT_SQL = `concat(toString(toUnixTimestamp64Milli(ts) - ${EPOCH}), '-', metric, '-', repeat('x', ${PAD}))`

/**
 * Each on a connection of its own with this keepalive, s. As plain clients do, a device sends no PINGREQ while it waits for an
 * acknowledgement, and one each half a keepalive while it has nothing to say.
 */
export async function openWideDevices(options: {
  port: number
  count: number
  keepalive: number
}): Promise<WideDevices> {
  const { port, count, keepalive } = options
  const clients: PlainClient[] = []
  const inFlight: number[] = []
  let [sent, acked] = [0, 0]
  let timer: NodeJS.Timeout | undefined
  const pings = setInterval(ping, keepalive * 500)
  for (let index = 0; index < count; index++) await connect(index)

  return {
    metricsPerMessage: METRICS,
    start: () => {
      timer = setInterval(tick, TICK_MS)
    },
    stop: () => clearInterval(timer),
    counts: () => ({ sent, acked, inFlight: sent - acked, closed: clients.filter(client => client.closed).length }),
    close,
  }

  async function connect(index: number): Promise<void> {
    inFlight.push(0)
    const received = ({ cmd }: Packet) => {
      if (cmd !== 'puback') return
      acked++
      inFlight[index] = (inFlight[index] ?? 0) - 1
    }
    clients.push(await openPlainClient(port, idOf(index), received, { keepalive }))
  }

  function ping(): void {
    for (const [index, client] of clients.entries()) if (inFlight[index] === 0) client.send({ cmd: 'pingreq' })
  }

  function tick(): void {
    for (let turn = 0; turn < MESSAGES_PER_TICK; turn++) {
      const index = sent % count
      if ((inFlight[index] ?? 0) >= WINDOW) return
      inFlight[index] = (inFlight[index] ?? 0) + 1
      send(index, sent++)
    }
  }

  function send(index: number, number: number): void {
    const values = Object.fromEntries(
      Array.from({ length: METRICS }, (_, n) => [`m${n}`, `${number}-m${n}-${'x'.repeat(PAD)}`]),
    )
    const payload = JSON.stringify({ ts: EPOCH + number, values })
    const topic = `devices/${idOf(index)}/telemetry`
    const messageId = 1 + (Math.floor(number / count) % 65_535)
    clients[index]?.send({ cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false })
  }

  function close(): void {
    clearInterval(timer)
    clearInterval(pings)
    for (const client of clients) client.close()
  }
}

function idOf(index: number): string {
  return `wide-${index}`
}
