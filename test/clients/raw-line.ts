/** One connection that sends the bytes it is told and shows what comes back, packet by packet, and how it ended. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type ConnectShape, connectBytes, openCutter, PINGREQ } from './wire.ts'

export interface RawLine {
  readonly socket: Socket
  /** Packets so far, as hex, the CONNACK among them. */
  readonly packets: readonly string[]
  /** How the other side ended it; null while it has not. */
  readonly end: 'closed' | 'reset' | null
  send(...bytes: readonly Buffer[]): void
  /** Resolves with the packets when there are so many, or when the connection has ended before. */
  atLeast(count: number): Promise<readonly string[]>
  /** Resolves with the packets when the other side has ended the connection. */
  ended(): Promise<readonly string[]>
  /** FIN: nothing more is sent from here, and what comes is still read. */
  finish(): void
  reset(): void
  close(): Promise<void>
}

export async function openRawLine(port: number): Promise<RawLine> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen: true })
  const packets: string[] = []
  let end: RawLine['end'] = null
  const cut = openCutter(packet => {
    packets.push(packet.length > 16 ? `${packet.toString('hex', 0, 8)}…` : packet.toString('hex'))
    socket.emit('changed')
  })
  socket.on('data', cut)
  socket.on('error', () => ended('reset'))
  socket.once('end', () => ended('closed'))
  socket.once('close', () => ended('reset'))
  await once(socket, 'connect')
  return {
    socket,
    packets,
    get end() {
      return end
    },
    send: (...bytes) => void socket.write(Buffer.concat(bytes)),
    atLeast: count => when(() => packets.length >= count || end !== null),
    ended: () => when(() => end !== null),
    finish: () => void socket.end(),
    reset: () => void socket.resetAndDestroy(),
    close: async () => {
      if (socket.destroyed) return
      socket.destroy()
      await once(socket, 'close')
    },
  }

  function ended(how: 'closed' | 'reset'): void {
    end ??= how
    socket.emit('changed')
  }

  async function when(holds: () => boolean): Promise<readonly string[]> {
    while (!holds()) await once(socket, 'changed')
    return packets
  }
}

/** A line that got a CONNACK; it is the first of its packets. Rejects when there came none. */
export async function openConnected(port: number, clientId: string, shape: ConnectShape = {}): Promise<RawLine> {
  const line = await openRawLine(port)
  line.send(connectBytes(clientId, shape))
  const [connack = 'none'] = await line.atLeast(1)
  if (!/^20020[01]00$/.test(connack)) throw new Error(`${clientId} was answered ${connack} ${line.end}`)
  return line
}

/** The next `count` packets after these bytes, or those that came before the line ended. Nothing else may be under way. */
export async function ask(line: RawLine, count: number, ...bytes: readonly Buffer[]): Promise<string> {
  const before = line.packets.length
  line.send(...bytes)
  return (await line.atLeast(before + count)).slice(before).join(' ')
}

/** What came back of some bytes that ask for no answer, on a line that has its CONNACK: the packets before the answer to a PINGREQ, or before the end. */
export async function answerTo(line: RawLine, ...bytes: readonly Buffer[]): Promise<string> {
  const before = line.packets.length
  line.send(...bytes, PINGREQ)
  for (let count = before + 1; ; count++) {
    await line.atLeast(count)
    const answers = line.packets.slice(before)
    if (answers.at(-1) === 'd000') return [...answers.slice(0, -1)].join(' ') || 'nothing'
    if (line.end !== null) return [...answers, 'closed'].join(' ')
  }
}
