/**
 * What the engine's process and its parent say to each other: one JSON object a line, over a pair of sockets. Node's own
 * channel (`fork`) throws in a parent whose child writes there what is no message of Node's. Whoever runs code in the engine's
 * process may write anything, and the broker, which is the parent, must not end by it.
 */
import type { Duplex } from 'node:stream'

/** The file descriptor of it in the child. */
export const CHANNEL = 3

export interface Channel {
  /** Resolves when it is on its way, or when the other side is gone. */
  send<Message extends object>(message: Message): Promise<void>
  /** The next message, whatever is in it; null when the other side is gone, or said what is no message. */
  next(): Promise<Readonly<Record<string, unknown>> | null>
  /** Resolves when the other side is gone, or said what is no message. */
  readonly closed: Promise<void>
}

/** Of all that is ever said: a few short messages. */
const CHARS_MAX = 64 * 1024

export function openChannel(socket: Duplex): Channel {
  const heard: Record<string, unknown>[] = []
  const waiting: ((message: Record<string, unknown> | null) => void)[] = []
  let begun = ''
  let chars = 0
  const closed = new Promise<void>(resolve => socket.once('close', resolve))
  void closed.then(() => {
    for (const tell of waiting.splice(0)) tell(null)
  })
  socket
    .on('error', () => {})
    .on('data', (chunk: Buffer) => {
      chars += chunk.length
      const lines = (begun + chunk.toString('latin1')).split('\n')
      begun = lines.pop() ?? ''
      const messages = chars > CHARS_MAX ? [null] : lines.map(toMessage)
      for (const message of messages) {
        if (message === null) socket.destroy()
        else take(message)
      }
    })
  return { send, next, closed }

  function take(message: Record<string, unknown>): void {
    const tell = waiting.shift()
    if (tell === undefined) heard.push(message)
    else tell(message)
  }

  function send(message: object): Promise<void> {
    return new Promise(resolve => {
      socket.write(`${JSON.stringify(message)}\n`, () => resolve())
    })
  }

  function next(): Promise<Record<string, unknown> | null> {
    const message = heard.shift()
    if (message !== undefined) return Promise.resolve(message)
    if (socket.destroyed) return Promise.resolve(null)
    return new Promise(resolve => waiting.push(resolve))
  }
}

/** Null for what is no object. Whole lines only, so that no character is cut. */
function toMessage(line: string): Record<string, unknown> | null {
  try {
    const found = JSON.parse(Buffer.from(line, 'latin1').toString()) as unknown
    return typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : null
  } catch {
    return null
  }
}
