/**
 * `analysts.sock`: the statements that the SQL port's process passes on (frames.ts). Everything that comes here is an
 * analyst's, whatever it says: this socket knows no other role.
 */
import { createServer, type Socket } from 'node:net'
import { within } from '../../within.ts'
import { type Answer, drained, type Summary } from './answer.ts'
import { EngineError, toEngineError } from './engine-error.ts'
import type { Executor } from './execute.ts'
import { type AnalystRequest, errorFrame, frame, frameHead, openFrameReader, toRequest } from './frames.ts'
import type { SocketServer } from './server.ts'
import { listenOnSocket } from './sockets.ts'

/** More than the SQL port lets in. */
const CONNECTIONS_MAX = 576

export async function openAnalystServer(executor: Executor, path: string): Promise<SocketServer> {
  /** What runs, by its connection; null for a connection that waits for its next request. */
  const connections = new Map<Socket, Promise<void> | null>()
  const server = createServer({ noDelay: true }, socket => {
    connections.set(socket, null)
    const gone = new AbortController()
    const read = openFrameReader((kind, content) => {
      if (kind !== 'Q' || connections.get(socket) !== null)
        throw new Error('A request is one frame, and one at a time.')
      const work = run(toRequest(content), socket, gone.signal)
      connections.set(socket, work)
      void work.then(() => connections.has(socket) && connections.set(socket, null))
    })
    socket.on('data', (chunk: Buffer) => {
      try {
        read(chunk)
      } catch {
        socket.destroy()
      }
    })
    socket.on('error', () => {})
    socket.once('close', () => {
      gone.abort()
      void Promise.resolve(connections.get(socket)).then(() => connections.delete(socket))
    })
  })
  server.maxConnections = CONNECTIONS_MAX
  await listenOnSocket(server, path)
  return { drain, abort }

  /** Never rejects: an error is an answer. */
  async function run({ sql, ...asked }: AnalystRequest, socket: Socket, gone: AbortSignal): Promise<void> {
    let answer: Answer | null = null
    try {
      const request = { ...asked, session: null, readonly: true }
      await executor.execute({ request, role: 'analyst', statement: { kind: 'query', sql }, gone }, format => {
        answer = openFrameAnswer(socket, format)
        return answer
      })
    } catch (error) {
      const shown = gone.aborted ? new EngineError(394, 'The client went away') : toEngineError(error)
      if (!socket.destroyed) socket.write(errorFrame(shown))
    }
  }

  async function drain(msMax: number): Promise<void> {
    server.close()
    for (const [socket, work] of connections) if (work === null) socket.destroy()
    await within(msMax, ended())
  }

  async function abort(): Promise<void> {
    for (const socket of connections.keys()) socket.destroy()
    await ended()
  }

  async function ended(): Promise<void> {
    const running = () => [...connections.values()].filter(work => work !== null)
    while (running().length > 0) await Promise.all(running())
  }
}

function openFrameAnswer(socket: Socket, format: string): Answer {
  let fresh = true
  return {
    get fresh() {
      return fresh
    },
    write,
    end,
    fail: error => void socket.write(errorFrame(error)),
  }

  function write(bytes: Uint8Array): Promise<void> | null {
    socket.cork()
    if (fresh) socket.write(frame('H', { format }))
    fresh = false
    socket.write(frameHead('D', bytes.length))
    const takesMore = socket.write(bytes)
    socket.uncork()
    return takesMore || socket.destroyed ? null : drained(socket)
  }

  async function end(summary: Summary): Promise<void> {
    socket.cork()
    if (fresh) socket.write(frame('H', { format }))
    fresh = false
    socket.write(frame('E', summary))
    socket.uncork()
  }
}
