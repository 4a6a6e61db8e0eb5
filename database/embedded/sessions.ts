/**
 * Sessions: connections that are kept between requests by an id, with their settings and temporary tables.
 * One request at a time each; ended after their timeout without a request; bounded in number.
 */
import type { EngineConnection } from './engine.ts'
import { EngineError } from './engine-error.ts'
import type { SessionRequest } from './request.ts'

export interface Sessions {
  /** The session's connection, for one request; hand it back with `giveBack`. Throws 372, 373 or 202. */
  take(request: SessionRequest): EngineConnection
  giveBack(request: SessionRequest): void
}

interface Session {
  readonly connection: EngineConnection
  busy: boolean
  timer: NodeJS.Timeout | null
}

const SESSIONS_MAX = 64

export function openSessions(connect: () => EngineConnection): Sessions {
  const open = new Map<string, Session>()
  return { take, giveBack }

  function take({ id, check }: SessionRequest): EngineConnection {
    const known = open.get(id)
    if (known?.busy) throw new EngineError(373, 'The session is in use by another request')
    if (known === undefined && check) throw new EngineError(372, 'The session does not exist')
    if (known === undefined && open.size >= SESSIONS_MAX)
      throw new EngineError(202, `Too many sessions: ${SESSIONS_MAX} are open`)
    const session = known ?? { connection: connect(), busy: false, timer: null }
    session.busy = true
    if (session.timer !== null) clearTimeout(session.timer)
    open.set(id, session)
    return session.connection
  }

  function giveBack({ id, timeoutMs }: SessionRequest): void {
    const session = open.get(id)
    if (session === undefined) return
    session.busy = false
    session.timer = setTimeout(end, timeoutMs, id)
  }

  function end(id: string): void {
    const session = open.get(id)
    if (session === undefined || session.busy) return
    if (session.timer !== null) clearTimeout(session.timer)
    open.delete(id)
    session.connection.close()
  }
}
