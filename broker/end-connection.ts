/**
 * The end of a connection that the broker wants to end: what is written reaches the peer. What the peer still sends is read
 * and thrown away: left unread it would reset the connection, and with it the acknowledgements under way.
 */
import { readOn } from './aedes-internals.ts'
import type { Connection } from './connection.ts'

/** From now on nothing of the connection is looked at; what is on its way into the log is acknowledged still. */
export function stopReading({ gate, client }: Connection): void {
  gate?.discard()
  if (client !== null) readOn(client)
}

/** Resolves when the peer has closed too, which it may never do. */
export function endConnection(connection: Connection): Promise<void> {
  const { socket } = connection
  const closed = new Promise<void>(resolve => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
  stopReading(connection)
  socket.end()
  return closed
}
