/**
 * One connection of the load generator: connects, reads the answers, and connects again after every loss until it is
 * closed. It knows nothing of messages; what was not acknowledged is resent by its owner when `ready` is called.
 */
import { connect, type Socket } from 'node:net'
import { answerReader, connectPacket, DISCONNECT } from './wire.ts'

export interface ConnectionEvents {
  /** After each CONNACK that accepts. */
  ready(): void
  puback(packetId: number): void
  /** All answers that one read brought were handed over. */
  progress(): void
  /** The connection was lost, and will be made again. */
  lost(): void
}

export interface Connection {
  readonly ready: boolean
  write(bytes: Buffer): void
  close(): void
}

export interface Target {
  readonly host: string
  readonly port: number
}

const BACKOFF_MS_MIN = 50
const BACKOFF_MS_MAX = 1_000
const CONNACK_MS_MAX = 10_000

export function openConnection(target: Target, clientId: string, events: ConnectionEvents): Connection {
  let socket: Socket | null = null
  let ready = false
  let closed = false
  let failures = 0
  let timer: NodeJS.Timeout | null = null

  attempt()
  return {
    get ready() {
      return ready
    },
    write: bytes => void socket?.write(bytes),
    close,
  }

  function attempt(): void {
    const opened = connect({ ...target, noDelay: true })
    socket = opened
    // A broker that was stopped under load may take the connection and never answer.
    timer = setTimeout(() => opened.destroy(), CONNACK_MS_MAX)
    const read = answerReader({ connack, puback: events.puback })
    opened.on('connect', () => opened.write(connectPacket(clientId)))
    opened.on('data', chunk => {
      read(chunk)
      events.progress()
    })
    opened.on('error', () => opened.destroy())
    opened.on('close', lost)
  }

  function connack(returnCode: number): void {
    if (timer !== null) clearTimeout(timer)
    if (returnCode !== 0) return void socket?.destroy()
    failures = 0
    ready = true
    events.ready()
  }

  function lost(): void {
    if (timer !== null) clearTimeout(timer)
    const wasReady = ready
    ready = false
    if (closed) return
    const backoff = Math.min(BACKOFF_MS_MIN * 2 ** failures, BACKOFF_MS_MAX)
    failures++
    // Half of it at random, so that a fleet does not come back in one moment.
    timer = setTimeout(attempt, backoff * (0.5 + Math.random() / 2))
    if (wasReady) events.lost()
  }

  function close(): void {
    closed = true
    if (timer !== null) clearTimeout(timer)
    if (ready) socket?.end(DISCONNECT)
    else socket?.destroy()
    ready = false
  }
}
