/** What broker/aedes-internals.ts relies on, held against the Aedes that is installed: an upgrade that changes it fails here. */
import { once } from 'node:events'
import { createServer, type Server, type ServerOpts } from 'node:net'
import { Aedes, type AedesOptions, type Client } from 'aedes'
import { describe, expect, it, onTestFinished } from 'vitest'
import { keepHalfOpen } from '../../broker/aedes-internals.ts'
import { until } from '../waits.ts'
import { acknowledged, openClient, ping, publishPacket } from './harness.ts'

interface Inner {
  _parsingBatch: number
  _nextBatch: unknown
  _keepaliveTimer: NodeJS.Timeout | null
}

const inner = (client: Client | undefined) => client as unknown as Inner

async function openBareAedes(
  options: AedesOptions,
  listener: ServerOpts = {},
): Promise<{ port: number; aedes: Aedes; clients: Client[] }> {
  const aedes = await Aedes.createBroker(options)
  const clients: Client[] = []
  const server: Server = createServer(listener, socket => void clients.push(aedes.handle(socket)))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
    return new Promise<void>(resolve => aedes.close(resolve))
  })
  return { port: (server.address() as { port: number }).port, aedes, clients }
}

describe('the inside of Aedes', () => {
  it('is that of version 1.2.0', async () => {
    const { aedes } = await openBareAedes({})
    expect((aedes as unknown as { version: string }).version).toBe('1.2.0')
  })

  it('[G1] acknowledges nothing whose authorizePublish was not called back', async () => {
    let asked = 0
    const { port } = await openBareAedes({ authorizePublish: () => void asked++ })
    const client = await openClient(port)
    client.send(publishPacket(1))
    client.send(publishPacket(2, { qos: 2 }))
    await until(() => asked === 2)
    await new Promise(resolve => setTimeout(resolve, 50))
    expect(client.received).toHaveLength(1)
  })

  it('counts packets under way in _parsingBatch, and reads on at zero', async () => {
    const { port, clients } = await openBareAedes({ authorizePublish: () => undefined })
    const client = await openClient(port)
    await until(() => inner(clients[0])._parsingBatch === 0)
    client.send(publishPacket(1))
    await until(() => inner(clients[0])._parsingBatch === 1)
    expect(inner(clients[0])._nextBatch).toBeTypeOf('function')
    inner(clients[0])._parsingBatch--
    await ping(client)
  })

  it('reads a socket through conn.read(null) alone', async () => {
    const { port, clients } = await openBareAedes({ authorizePublish: () => undefined })
    const client = await openClient(port)
    const socket = clients[0]?.conn
    if (socket === undefined) throw new Error('no client')
    const read = socket.read.bind(socket)
    const sizes: unknown[] = []
    let passed = 0
    socket.read = size => {
      sizes.push(size)
      if (size === 0) return read(0)
      const bytes: Buffer | null = read()
      passed += bytes?.length ?? 0
      return bytes
    }
    for (let i = 0; i < 10; i++) await ping(client)
    expect(passed).toBe(20)
    expect(new Set(sizes.filter(size => size !== 0))).toEqual(new Set([null]))
    socket.read = size => (size === 0 ? read(0) : null)
    client.send({ cmd: 'pingreq' })
    await new Promise(resolve => setTimeout(resolve, 50))
    expect(client.received).toHaveLength(11)
  })

  it('keeps the keepalive in a timer that refresh() starts anew', async () => {
    const { port, clients } = await openBareAedes({})
    const client = await openClient(port, { keepalive: 1 })
    const since = Date.now()
    const refreshing = setInterval(() => inner(clients[0])._keepaliveTimer?.refresh(), 500)
    await new Promise(resolve => setTimeout(resolve, 2_200))
    expect(client.socket.destroyed).toBe(false)
    clearInterval(refreshing)
    await client.closed
    expect(Date.now() - since).toBeGreaterThan(2_200)
  })

  it('closes at the end of the peer by one listener, and without it when both halves have ended', async () => {
    const { port, clients } = await openBareAedes({ authorizePublish: () => undefined }, { allowHalfOpen: true })
    await (await openClient(port)).close()
    await until(() => clients[0]?.closed === true)
    const client = await openClient(port)
    const [, half] = clients
    if (half === undefined) throw new Error('no client')
    const before = half.conn.listenerCount('end')
    keepHalfOpen(half)
    expect(half.conn.listenerCount('end')).toBe(before - 1)
    const ended = once(half.conn, 'end')
    client.socket.end()
    await ended
    expect([half.closed, half.conn.destroyed]).toEqual([false, false])
    half.conn.end()
    await until(() => half.closed)
  })

  it('hands over a will without a type, and its client closed', async () => {
    const wills: { cmd: unknown; closed: boolean | undefined }[] = []
    const { port } = await openBareAedes({
      authorizePublish(client, packet, done) {
        wills.push({ cmd: packet.cmd, closed: client?.closed })
        done(new Error('kept'))
      },
    })
    const will = { topic: 'devices/press-17/status', payload: Buffer.from('offline') }
    const client = await openClient(port, { will })
    await client.close()
    await until(() => wills.length === 1)
    expect(wills).toEqual([{ cmd: undefined, closed: true }])
    expect(acknowledged(client)).toEqual([])
  })
})
