import { describe, expect, it } from 'vitest'
import { timed, until } from '../waits.ts'
import { acknowledged, openBench, openClient, openRaw, ping, publishPacket } from './harness.ts'

describe('closing', () => {
  it('takes no connection and no message after stopReading, acknowledges what it held, then ends every connection', async () => {
    const { broker, ingest, space } = await openBench()
    const client = await openClient(broker.port)
    for (let id = 1; id <= 20; id++) client.send(publishPacket(id))
    await until(() => ingest.held === 20)
    await until(() => space.online('press-17') === true)
    broker.stopReading()
    for (let id = 21; id <= 2_000; id++) client.send(publishPacket(id))
    await expect(openRaw(broker.port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await ingest.drain(1_000)
    await broker.close()
    await client.closed
    expect(ingest.offered).toHaveLength(20)
    expect(acknowledged(client)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
    expect(space.online('press-17')).toBe(false)
    expect(broker.connections).toBe(0)
  })

  it('drops QoS 0 once it stopped reading', async () => {
    const { broker, ingest } = await openBench()
    const client = await openClient(broker.port)
    broker.stopReading()
    client.send(publishPacket(0, { qos: 0 }))
    await ping(client)
    expect(ingest.offered).toEqual([])
  })

  it('closes also when peers do not, and may be called twice', async () => {
    const { broker, ingest } = await openBench()
    const deaf = await openClient(broker.port, { clientId: 'deaf' })
    deaf.socket.removeAllListeners('data').pause()
    for (let i = 0; i < 50; i++) await openRaw(broker.port)
    deaf.send(publishPacket(1))
    await until(() => ingest.held === 1)
    const { ms } = await timed(() => Promise.all([broker.close(), broker.close()]))
    expect(ms).toBeLessThan(10_000)
    expect(broker.connections).toBe(0)
    ingest.settle()
  })
})
