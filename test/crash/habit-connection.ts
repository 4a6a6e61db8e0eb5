/** One connection of the fleet of habits: connects again after every loss until it is closed. What is in flight is its owner's. */
import { connect, type Socket } from 'node:net'
import { generate, type Packet, parser } from 'mqtt-packet'

export interface HabitPublish {
  readonly topic: string
  readonly payload: string
  readonly qos: 1 | 2
  readonly packetId: number
  readonly dup: boolean
}

export interface HabitConnectionEvents {
  /** After each CONNACK that accepts. */
  ready(sessionPresent: boolean): void
  received(kind: 'puback' | 'pubrec' | 'pubcomp', packetId: number): void
  lost(): void
}

export interface HabitConnection {
  readonly ready: boolean
  /** Goes out with what else is written until `flush`, in one write. */
  publish(message: HabitPublish): void
  pubrel(packetId: number): void
  flush(): void
  /** Connects anew without a word to the connection that there is, as a device does whose line is dead. */
  connectAnew(): void
  close(): void
}

const BACKOFF_MS = 100
const CONNACK_MS_MAX = 10_000

export function connectionOf(
  port: number,
  clientId: string,
  clean: boolean,
  events: HabitConnectionEvents,
): HabitConnection {
  let socket: Socket | null = null
  let ready = false
  let closed = false
  let timer: NodeJS.Timeout | null = null
  let unwritten: Buffer[] = []

  attempt()
  return {
    get ready() {
      return ready
    },
    publish({ packetId, ...message }) {
      unwritten.push(generate({ cmd: 'publish', messageId: packetId, retain: false, ...message }))
    },
    pubrel: packetId => void unwritten.push(generate({ cmd: 'pubrel', messageId: packetId })),
    flush,
    connectAnew,
    close,
  }

  function attempt(): void {
    const opened = connect({ host: '127.0.0.1', port, noDelay: true })
    socket = opened
    // A broker that was stopped under load may take the connection and never answer.
    timer = setTimeout(() => opened.destroy(), CONNACK_MS_MAX)
    const packets = parser()
    packets.on('packet', take)
    opened.on('connect', () =>
      opened.write(generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean, clientId, keepalive: 0 })),
    )
    opened.on('data', bytes => {
      packets.parse(bytes)
      flush()
    })
    opened.on('error', () => opened.destroy())
    opened.on('close', lost)
  }

  function take(packet: Packet): void {
    if (packet.cmd === 'connack') {
      if (timer !== null) clearTimeout(timer)
      if (packet.returnCode !== 0) return void socket?.destroy()
      ready = true
      events.ready(packet.sessionPresent)
    } else if (packet.cmd === 'puback' || packet.cmd === 'pubrec' || packet.cmd === 'pubcomp') {
      events.received(packet.cmd, packet.messageId ?? 0)
    } else throw new Error(`The broker sent a packet that a publisher does not expect: ${packet.cmd}.`)
  }

  function flush(): void {
    if (unwritten.length > 0) socket?.write(Buffer.concat(unwritten))
    unwritten = []
  }

  function lost(): void {
    if (timer !== null) clearTimeout(timer)
    const wasReady = ready
    ready = false
    unwritten = []
    if (closed) return
    // Half of it at random, so that a fleet does not come back in one moment.
    timer = setTimeout(attempt, BACKOFF_MS * (0.5 + Math.random() / 2))
    if (wasReady) events.lost()
  }

  function connectAnew(): void {
    const old = socket
    if (!ready || closed || old === null) return
    old.removeAllListeners()
    old.on('error', () => old.destroy()).resume()
    ready = false
    unwritten = []
    events.lost()
    attempt()
  }

  function close(): void {
    closed = true
    if (timer !== null) clearTimeout(timer)
    if (ready) socket?.end(generate({ cmd: 'disconnect' }))
    else socket?.destroy()
    ready = false
  }
}
