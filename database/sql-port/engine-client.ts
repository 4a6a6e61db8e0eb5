/**
 * The way from the SQL port to the engine: statements over `analysts.sock` (embedded/frames.ts), one at a time on a
 * connection, and some connections kept. A client that goes away closes its connection, which ends its statement there; one
 * that reads slowly stops the reading here, and with it the engine's.
 */
import { createConnection, type Socket } from 'node:net'
import type { Answer, Summary } from '../embedded/answer.ts'
import { EngineError } from '../embedded/engine-error.ts'
import { type AnalystRequest, type AnswerHead, frame, openFrameReader, toError, toObject } from '../embedded/frames.ts'

export interface EngineClient {
  /** Asks, and answers. Throws EngineError only while there is no answer yet: 210 when the engine is away. */
  ask(request: AnalystRequest, gone: AbortSignal, respond: (format: string) => Answer): Promise<void>
}

interface Turn {
  readonly respond: (format: string) => Answer
  answer: Answer | null
  /** Null: it is answered. An error: nothing is answered yet. */
  readonly settle: (error: EngineError | null) => void
}

interface Connection {
  readonly socket: Socket
  turn: Turn | null
}

const IDLE_MAX = 8

const AWAY = 'The database is away: it is being started again. Ask again in a moment'
const ENDED = 'The database ended while it ran this statement. Ask again in a moment'

export function openEngineClient(path: string): EngineClient {
  const idle = new Set<Connection>()
  return { ask }

  async function ask(request: AnalystRequest, gone: AbortSignal, respond: (format: string) => Answer): Promise<void> {
    const bytes = frame('Q', request)
    const [kept] = idle
    if (kept !== undefined) {
      idle.delete(kept)
      const heard = kept.socket.bytesRead
      const error = await converse(kept, bytes, gone, respond)
      if (error === null) return
      // One that the engine had closed meanwhile is no answer, and statements of analysts only read.
      const isStale = error.code === 210 && kept.socket.bytesRead === heard
      if (!isStale || gone.aborted) throw error
    }
    const error = await converse(await connect(), bytes, gone, respond)
    if (error !== null) throw error
  }

  function converse(
    connection: Connection,
    bytes: Buffer,
    gone: AbortSignal,
    respond: (format: string) => Answer,
  ): Promise<EngineError | null> {
    return new Promise(resolve => {
      const leave = () => connection.socket.destroy()
      const settle = (error: EngineError | null) => {
        gone.removeEventListener('abort', leave)
        resolve(error)
      }
      connection.turn = { respond, answer: null, settle }
      gone.addEventListener('abort', leave, { once: true })
      if (gone.aborted) leave()
      connection.socket.write(bytes)
    })
  }

  function connect(): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(path)
      const connection: Connection = { socket, turn: null }
      const read = openFrameReader((kind, content) => take(connection, kind, content))
      socket.once('connect', () => resolve(connection))
      socket.on('error', () => reject(new EngineError(210, AWAY)))
      socket.on('data', (chunk: Buffer) => {
        try {
          read(chunk)
        } catch {
          socket.destroy()
        }
      })
      socket.once('close', () => lose(connection))
    })
  }

  function take(connection: Connection, kind: string, content: Buffer): void {
    const { socket, turn } = connection
    if (turn === null) throw new Error('An answer came that nobody asked for.')
    if (kind === 'H') turn.answer = turn.respond(toObject<AnswerHead>(content).format)
    else if (kind === 'D') {
      const slow = turn.answer?.write(content) ?? null
      if (slow === null) return
      socket.pause()
      void slow.then(() => socket.resume())
    } else if (kind === 'X' || kind === 'E') {
      // What is no end of an answer throws here, while there is still a turn to be refused.
      const error = kind === 'X' ? toError(content) : new EngineError(210, ENDED)
      const summary = toObject<Summary>(content)
      connection.turn = null
      // Whoever is still reading this answer holds back no other one.
      socket.resume()
      if (idle.size < IDLE_MAX) idle.add(connection)
      else socket.destroy()
      if (kind === 'X' || turn.answer === null) refuse(turn, error)
      else
        turn.answer.end(summary).then(
          () => turn.settle(null),
          () => refuse(turn, error),
        )
    } else throw new Error('The engine speaks otherwise.')
  }

  function lose(connection: Connection): void {
    idle.delete(connection)
    const { turn } = connection
    connection.turn = null
    if (turn !== null) refuse(turn, new EngineError(210, ENDED))
  }

  function refuse({ answer, settle }: Turn, error: EngineError): void {
    answer?.fail(error)
    settle(answer === null ? error : null)
  }
}
