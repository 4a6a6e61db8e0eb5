/** Presence that was refused at a bound is right within a second of room, without a word of the device [G5]. */
import { describe, expect, it } from 'vitest'
import { until } from '../waits.ts'
import { type Bench, openBench, openClient, ping, publishPacket, type RawClient } from './harness.ts'

const readingOf = (device: string, messageId = 1) =>
  publishPacket(messageId, { topic: `devices/${device}/telemetry`, payload: '{"n":1}' })

async function openSettling(options: Parameters<typeof openBench>[0]): Promise<Bench> {
  const bench = await openBench(options)
  bench.ingest.onOffer = () => setImmediate(() => bench.ingest.settle())
  return bench
}

/** A client that is connected and whose presence was looked at. */
async function openDevice({ broker }: Bench, clientId: string): Promise<RawClient> {
  const client = await openClient(broker.port, { clientId })
  await ping(client)
  return client
}

describe('a device that finds no room', () => {
  it.each(['publishes', 'is silent'])('is online once there is some, whether it %s', async what => {
    const bench = await openSettling({ devicesMax: 2 })
    const { space } = bench
    const idle = await openDevice(bench, 'idle-1')
    await openDevice(bench, 'idle-2')
    const third = await openDevice(bench, 'third')
    if (what === 'publishes') {
      third.send(readingOf('third'))
      await third.count(3)
    }
    await until(() => space.online('idle-1') === true && space.online('idle-2') === true)
    expect(space.online('third')).toBeUndefined()
    await idle.close()
    await until(() => space.online('third') === true)
    await third.close()
    await until(() => space.online('third') === false)
  })

  it('is not said to be online after it has gone, nor after it said that it is offline', async () => {
    const bench = await openSettling({ devicesMax: 1 })
    const { space, broker } = bench
    const idle = await openDevice(bench, 'idle')
    const gone = await openDevice(bench, 'gone')
    const quiet = await openDevice(bench, 'quiet')
    quiet.send(publishPacket(1, { topic: 'devices/quiet/status', payload: 'offline' }))
    await quiet.count(3)
    await gone.close()
    await until(() => broker.connections === 2)
    await idle.close()
    const next = await openDevice(bench, 'next')
    await until(() => space.online('next') === true)
    await next.close()
    expect(space.changes.filter(({ device, online }) => online && ['gone', 'quiet'].includes(device))).toEqual([])
  })

  it('is served in its turn: who waits longest is first', async () => {
    const bench = await openSettling({ devicesMax: 1 })
    const { space } = bench
    const clients = [await openDevice(bench, 'd-0')]
    for (let n = 1; n < 5; n++) clients.push(await openDevice(bench, `d-${n}`))
    for (const [n, client] of clients.entries()) {
      await until(() => space.online(`d-${n}`) === true)
      await client.close()
    }
    expect(space.changes.filter(({ online }) => online).map(({ device }) => device)).toEqual(
      clients.map((_, n) => `d-${n}`),
    )
  })
})

describe('a gateway that speaks for more devices than it may hold', () => {
  it('has them online as others go offline, those that are remembered unasked, the others with their next message', async () => {
    const bench = await openSettling({ inFlightPerClient: 60_000 })
    const { space, broker, ingest } = bench
    const gateway = await openClient(broker.port, { clientId: 'gateway' })
    for (let id = 1; id <= 11_500; id++) gateway.send(readingOf(`press-${id}`, id))
    await until(() => ingest.offered.length === 11_500 && space.changes.length === 10_000)
    expect(space.online('press-9999')).toBe(true)
    expect(space.online('press-10000')).toBeUndefined()
    gateway.send(publishPacket(1, { topic: 'devices/press-1/status', payload: 'offline', qos: 0 }))
    await until(() => space.online('press-10000') === true)
    for (let id = 2; id <= 1_001; id++) {
      gateway.send(publishPacket(id, { topic: `devices/press-${id}/status`, payload: 'offline', qos: 0 }))
    }
    await until(() => space.online('press-10999') === true)
    let sent = 0
    await until(() => {
      gateway.send(readingOf('press-11500', (sent++ % 60_000) + 1))
      return space.online('press-11500') === true
    })
  })
})

describe('a space that was away while more changed than may wait', () => {
  it('is told that those are offline which were held, and that those are online which came meanwhile', async () => {
    const bench = await openSettling({ devicesMax: 4 })
    const { space, broker } = bench
    const first = await Promise.all([1, 2, 3, 4].map(n => openDevice(bench, `first-${n}`)))
    await until(() => [1, 2, 3, 4].every(n => space.online(`first-${n}`) === true))
    space.away = new Error('away')
    // Of devices that nobody holds: they fill what may wait.
    for (let n = 1; n <= 6; n++) {
      first[0]?.send(publishPacket(n, { topic: `devices/unheld-${n}/status`, payload: 'offline' }))
    }
    await first[0]?.count(8)
    for (const client of first) await client.close()
    await until(() => broker.connections === 0)
    await Promise.all([1, 2, 3, 4].map(n => openDevice(bench, `second-${n}`)))
    expect([1, 2, 3, 4].map(n => space.online(`first-${n}`))).toEqual([true, true, true, true])
    space.away = null
    await until(() => [1, 2, 3, 4].every(n => space.online(`second-${n}`) === true))
    expect([1, 2, 3, 4].map(n => space.online(`first-${n}`))).toEqual([false, false, false, false])
  })
})
