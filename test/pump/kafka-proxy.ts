/**
 * Stands between the pump and a broker, and knows Kafka's frames as far as their length, kind and number: so that it can keep back
 * the answer to a request that the broker has dealt with.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'

export interface KafkaProxy {
  readonly port: number
  /** To be set once the broker's port is known. */
  target: number
  /** What becomes of the answer to the next produce requests: asked for each. One that is cut ends after a few bytes. */
  fate: () => 'pass' | 'drop' | 'close' | 'cut'
  /** Answers that were kept back, or cut. */
  readonly keptBack: number
  close(): Promise<void>
}

const PRODUCE = 0
/** More than the length and the number of an answer. */
const CUT_BYTES = 20

export async function openKafkaProxy(): Promise<KafkaProxy> {
  const sockets = new Set<Socket>()
  let keptBack = 0
  const server: Server = createServer(accept)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const proxy: KafkaProxy = {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    target: 0,
    fate: () => 'pass',
    get keptBack() {
      return keptBack
    },
    close,
  }
  return proxy

  function accept(client: Socket): void {
    const broker = connect(proxy.target, '127.0.0.1')
    // Each write to a broker that is not there yet waits for the connection with a listener of its own.
    broker.setMaxListeners(0)
    const produces = new Set<number>()
    for (const socket of [client, broker]) {
      sockets.add(socket)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => {
        sockets.delete(socket)
        client.destroy()
        broker.destroy()
      })
    }
    onFrames(client, frame => {
      if (frame.readInt16BE(4) === PRODUCE) produces.add(frame.readInt32BE(8))
      broker.write(frame)
    })
    onFrames(broker, frame => {
      const fate = produces.delete(frame.readInt32BE(4)) ? proxy.fate() : 'pass'
      if (fate === 'pass') return void client.write(frame)
      keptBack++
      if (fate === 'close') client.destroy()
      if (fate === 'cut') client.end(frame.subarray(0, CUT_BYTES))
    })
  }

  async function close(): Promise<void> {
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => server.close(resolve))
  }
}

/** Whole frames, with their length of four bytes before them. */
export function onFrames(socket: Socket, take: (frame: Buffer) => void): void {
  let held = Buffer.alloc(0)
  socket.on('data', chunk => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk])
    while (held.length >= 4 && held.length >= 4 + held.readInt32BE(0)) {
      const length = 4 + held.readInt32BE(0)
      take(held.subarray(0, length))
      held = held.subarray(length)
    }
  })
}

/** A frame with the number of its request. */
export function answerTo(request: Buffer, body: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeInt32BE(4 + body.length, 0)
  request.copy(head, 4, 8, 12)
  return Buffer.concat([head, body])
}
