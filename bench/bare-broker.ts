/**
 * Bare Aedes 1.2.0: acknowledges, and stores nothing. What every other broker of the bench is measured against, and what
 * the tests of the generator talk to.
 */
import { createServer, type Socket } from 'node:net'
import { Aedes, type AedesOptions } from 'aedes'

export interface BareBroker {
  readonly port: number
  /** Cuts every connection, as a crash does; new ones are taken. */
  cut(): void
  close(): Promise<void>
}

/** On 127.0.0.1; port 0 picks a free one. `options` adds a hook, such as the insert of the direct baseline. */
export async function openBareBroker(port: number, options: AedesOptions = {}): Promise<BareBroker> {
  const aedes = await Aedes.createBroker(options)
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, socket => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    aedes.handle(socket)
  })
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject)
    server.listen(port, '127.0.0.1', 1_024, resolve)
  })
  const address = server.address()
  return { port: typeof address === 'object' && address !== null ? address.port : port, cut, close }

  function cut(): void {
    for (const socket of sockets) socket.destroy()
  }

  async function close(): Promise<void> {
    const closed = new Promise<void>(resolve => server.close(() => resolve()))
    cut()
    await closed
    await new Promise<void>(resolve => aedes.close(() => resolve()))
  }
}
