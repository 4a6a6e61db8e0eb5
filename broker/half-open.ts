/**
 * Half-open connections: a peer that has ended its half (FIN) after its last packet reads on, and still gets the answer. So the
 * other half is ended only when everything that came before the FIN has been read, nothing of it is on its way into the log
 * any more, and CONNACK, SUBACK and UNSUBACK, which may wait for the client's session to be saved, are written. The will of such a
 * peer is sent as always when the connection ends without DISCONNECT [MQTT-3.1.2-8].
 *
 * A stalled log may keep it waiting, but not for ever: after HALF_OPEN_MS_MAX the connection is closed, and its device sends
 * again what was not acknowledged. Until then it is one of the connections that SURGETANK_CONNECTIONS_MAX allows.
 */
import type { Connection } from './connection.ts'

const HALF_OPEN_MS_MAX = 5_000

export interface HalfOpen {
  /** Everything that the peer has sent was read, and it sends nothing more. Once per connection. */
  peerEnded(connection: Connection): void
  /** Something that the connection is owed was written. */
  released(connection: Connection): void
}

export function openHalfOpen(waitMsMax: number = HALF_OPEN_MS_MAX): HalfOpen {
  return { peerEnded, released }

  function peerEnded(connection: Connection): void {
    const { socket } = connection
    connection.peerEnded = true
    const timer = setTimeout(() => socket.destroy(), waitMsMax)
    socket.once('close', () => clearTimeout(timer))
    released(connection)
  }

  function released({ peerEnded, newest, own, answersOwed, socket }: Connection): void {
    if (peerEnded && newest === null && answersOwed === 0 && own?.kept?.isReleasing !== true) socket.end()
  }
}
