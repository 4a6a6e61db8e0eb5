/**
 * A TCP balancer as it stands before several brokers: each connection goes to the next one that takes it. As HAProxy does, it
 * hands on that one side has ended its half, and the other side may go on.
 */
import { connect, createServer, type Socket } from 'node:net'

export interface Balancer {
  readonly port: number
  close(): Promise<void>
}

/** `targets` may change while it runs. */
export async function openBalancer(targets: readonly number[]): Promise<Balancer> {
  const sockets = new Set<Socket>()
  let next = 0
  const server = createServer({ allowHalfOpen: true }, client => {
    keep(client)
    forward(client, targets.length)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return { port: typeof address === 'object' && address !== null ? address.port : 0, close }

  function forward(client: Socket, triesLeft: number): void {
    const target = targets[next++ % targets.length] ?? 0
    const server = keep(connect({ port: target, host: '127.0.0.1', allowHalfOpen: true }))
    server.once('connect', () => {
      client.pipe(server).pipe(client)
      client.once('close', () => server.destroy())
      server.once('close', () => client.destroy())
    })
    server.once('error', () => {
      if (server.connecting || triesLeft <= 1) client.destroy()
      else forward(client, triesLeft - 1)
    })
  }

  function keep(socket: Socket): Socket {
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.once('close', () => sockets.delete(socket))
    return socket
  }

  async function close(): Promise<void> {
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => server.close(resolve))
  }
}
