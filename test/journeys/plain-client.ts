/** An MQTT connection that does only what it is told: no PINGREQ, no second try. For what a client library would hide. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { generate, type IConnectPacket, type Packet, parser } from 'mqtt-packet'

export interface PlainClient {
  readonly socket: Socket
  /** The broker, or this side, has closed it. */
  readonly closed: boolean
  send(packet: Packet): void
  close(): void
}

/** Resolves when the broker has accepted it; rejects when it does not. `received` gets every packet after CONNACK. */
export async function openPlainClient(
  port: number,
  clientId: string,
  received: (packet: Packet) => void,
  more: Partial<IConnectPacket> = {},
): Promise<PlainClient> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  const packets = parser()
  let closed = false
  const connack = new Promise<number>((resolve, reject) => {
    packets.on('packet', packet => (packet.cmd === 'connack' ? resolve(packet.returnCode ?? -1) : received(packet)))
    socket.once('close', () => reject(new Error(`${clientId} was closed before its CONNACK.`)))
  })
  socket.on('data', bytes => packets.parse(bytes))
  socket.on('error', () => undefined)
  socket.once('close', () => {
    closed = true
  })
  await once(socket, 'connect')
  const head = { cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true } as const
  send({ ...head, clientId, keepalive: 60, ...more })
  const code = await connack
  if (code !== 0) throw new Error(`${clientId} was refused with ${code}.`)
  return {
    socket,
    get closed() {
      return closed
    },
    send,
    close: () => void socket.destroy(),
  }

  function send(packet: Packet): void {
    socket.write(generate(packet))
  }
}
