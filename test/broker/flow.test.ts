import * as mqtt from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { until } from '../waits.ts'
import { acknowledged, openBench, openClient, ping, publishPacket, type RawClient } from './harness.ts'

/** One that a short stop of this process does not outlast. */
const KEEPALIVE_S = 5

function sendTogether(client: RawClient, from: number, to: number): void {
  const packets = Array.from({ length: to - from + 1 }, (_, i) => mqtt.generate(publishPacket(from + i)))
  client.socket.write(Buffer.concat(packets))
}

describe('flow', () => {
  it('[G5] holds exactly as many messages of a connection as the setting says, in one burst', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 100 })
    const client = await openClient(broker.port)
    const other = await openClient(broker.port, { clientId: 'other' })
    sendTogether(client, 1, 6_000)
    await until(() => ingest.held >= 100)
    for (let round = 0; round < 20; round++) await ping(other)
    expect(ingest.held).toBe(100)
    let most = 0
    while (ingest.offered.length < 6_000) {
      most = Math.max(most, ingest.held)
      ingest.settle(30)
      await new Promise(resolve => setImmediate(resolve))
    }
    ingest.settle()
    await until(() => acknowledged(client).length === 6_000)
    expect(most).toBe(100)
    expect(acknowledged(client)).toEqual(Array.from({ length: 6_000 }, (_, i) => i + 1))
  })

  it('[G5] stops reading every publishing socket under pressure, and reads on when it ends', async () => {
    const { broker, ingest } = await openBench()
    const clients = await Promise.all(
      Array.from({ length: 200 }, (_, i) => openClient(broker.port, { clientId: `press-${i}` })),
    )
    ingest.press(true)
    for (const client of clients) sendTogether(client, 1, 10)
    const witness = await openClient(broker.port, { clientId: 'witness' })
    for (let round = 0; round < 20; round++) await ping(witness)
    expect(ingest.offered).toEqual([])
    ingest.press(false)
    await until(() => ingest.held === 2_000)
    ingest.settle()
    await Promise.all(clients.map(client => client.count(11)))
  })

  it('goes on when pressure comes and goes while messages are read', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 8 })
    const clients = await Promise.all(
      Array.from({ length: 20 }, (_, i) => openClient(broker.port, { clientId: `press-${i}` })),
    )
    for (const client of clients) sendTogether(client, 1, 500)
    for (let round = 0; ingest.offered.length < 10_000; round++) {
      ingest.press(round % 3 === 0)
      if (round % 2 === 0) ingest.settle(50)
      await new Promise(resolve => setImmediate(resolve))
      if (round > 100_000) throw new Error(`stuck at ${ingest.offered.length}`)
    }
    ingest.press(false)
    ingest.settle()
    await Promise.all(clients.map(client => client.count(501)))
    for (const client of clients) expect(acknowledged(client)).toEqual(Array.from({ length: 500 }, (_, i) => i + 1))
  })

  it('reads on for an ingest that settles within offer', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 1 })
    ingest.onOffer = () => ingest.settle()
    const client = await openClient(broker.port)
    sendTogether(client, 1, 300)
    await until(() => acknowledged(client).length >= 300)
    await ping(client)
    expect(acknowledged(client)).toEqual(Array.from({ length: 300 }, (_, i) => i + 1))
  })

  it('honours the keepalive of clients that are held, or whose socket is not read, through a stall', async () => {
    const { broker, ingest } = await openBench({ inFlightPerClient: 4 })
    const held = await openClient(broker.port, { clientId: 'held', keepalive: KEEPALIVE_S })
    held.send(publishPacket(1))
    const unread = await openClient(broker.port, { clientId: 'unread', keepalive: KEEPALIVE_S })
    sendTogether(unread, 1, 100)
    const pressed = await openClient(broker.port, { clientId: 'pressed', keepalive: KEEPALIVE_S })
    await until(() => ingest.held === 5)
    ingest.press(true)
    sendTogether(pressed, 1, 1)
    const silent = await openClient(broker.port, { clientId: 'silent', keepalive: 1 })
    const since = Date.now()
    await silent.closed
    await new Promise(resolve => setTimeout(resolve, Math.max(0, since + 1_800 * KEEPALIVE_S - Date.now())))
    expect(broker.connections).toBe(3)
    ingest.press(false)
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    ingest.settle()
    await Promise.all([held.count(2), unread.count(101), pressed.count(2)])
    // Nothing of theirs is held any more: now a silent one is closed in time.
    await Promise.all([held.closed, unread.closed, pressed.closed])
  })
})
