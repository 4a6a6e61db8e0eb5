/** The process of the SQL port, kept running on the same port. Nobody but analysts feels its end. */
import type { Logger } from 'pino'
import { type SqlPortExit, startSqlPort } from '../database/sql-port/sql-port.ts'
import { type Child, type ChildEnd, type Supervised, supervise } from './supervise.ts'

export interface SqlChildOptions {
  /** 0 for any free one, the same then until the end. */
  readonly port: number
  readonly analystsSocket: string
  readonly log: Logger
}

export interface SqlChild extends Pick<Supervised, 'expectEnd' | 'stop' | 'kill'> {
  readonly port: number
}

/** Resolves when it listens. Rejects with `port_in_use`, or when it cannot be started here at all. */
export async function superviseSql({ port, analystsSocket, log }: SqlChildOptions): Promise<SqlChild> {
  let portTaken = port
  const { expectEnd, stop, kill } = await supervise({ name: 'sql', log, start })
  return { port: portTaken, expectEnd, stop, kill }

  async function start(signal: AbortSignal): Promise<Child> {
    let tellEnd = (_end: ChildEnd) => {}
    const ended = new Promise<ChildEnd>(resolve => (tellEnd = resolve))
    const onExit = ({ code, signal: by }: SqlPortExit) => tellEnd({ how: String(by ?? code), error: null })
    const child = await startSqlPort({ port: portTaken, analystsSocket, onExit })
    portTaken = child.port
    if (signal.aborted) {
      child.kill()
      await ended
      signal.throwIfAborted()
    }
    return { ended, stop: child.stop, kill: child.kill }
  }
}
