/**
 * Everything this broker knows about the inside of Aedes 1.2.0, which package.json pins exactly. Nothing else of Aedes but
 * its public options, events and `client.conn`, `client.id`, `client.closed` is used anywhere.
 *
 * 1. Aedes calls `authorizePublish(client, packet, done)` before it acknowledges, and acknowledges only when `done` is
 *    called. Ours never is: we write the acknowledgement ourselves when the message is durable [G1]. So a poison message
 *    never closes a connection, a device that left while its messages were held raises no error per message, no QoS 2 store
 *    grows, and nothing is fanned out. Wills come through the same hook, without `cmd`, and after a sweep with a null client.
 * 2. `client._parsingBatch` counts the packets under way; Aedes reads the socket on when it is zero. A packet of ours
 *    leaves that count at once (`leaveToUs`), because what is in flight is bounded by the frame gate, exactly. The count
 *    alone would be no bound: every `readable` event lowers it too.
 * 3. `client._nextBatch()` reads from `conn.read(null)` and parses; the gate replaces that `read`. After the gate was shut,
 *    `readOn` makes Aedes ask again.
 * 4. A listener of Aedes' closes the client as soon as the peer has ended its half; `keepHalfOpen` takes it away. When both
 *    halves have ended, or the socket is closed, Aedes closes by `finished` of node:stream.
 * 5. `client._keepaliveTimer` closes a client that sent no packet for 1.5 times its keepalive; a client whose socket we do
 *    not read is kept by `keepAwake`.
 * 6. Aedes is told that every session is clean, so that it keeps nothing, and would say "no session". It writes CONNACK in
 *    pieces, before anything else that a connection gets; `tellSessionPresent` sets the flag in passing [MQTT-3.2.2-2].
 * 7. `client._parser` emits each packet that Aedes gets to see, before anything is done about it. The event 'unsubscribe' comes
 *    later, after a SUBSCRIBE that was sent behind it, and of all filters when a client closes.
 * 8. Aedes closes the client of a PUBLISH, SUBSCRIBE or UNSUBSCRIBE with more than `maxTopicLevels`, which it cuts to 100 when it is
 *    made, because what matches topics in it takes no more. Ours are refused before anything is matched (`topics.ts`), and a
 *    client that is closed sends its PUBLISH again for ever; so `judgeTopicsHere` lifts that.
 *
 * test/broker/aedes-internals.test.ts, and client-sessions.test.ts beside it, notice when an Aedes does any of this in another way.
 */
import type { EventEmitter } from 'node:events'
import type { Aedes, Client } from 'aedes'
import type { Packet } from 'mqtt-packet'
import { LIMITS } from '../model/limits.ts'
import type { Connection } from './connection.ts'

interface InnerClient {
  _parsingBatch: number
  readonly _nextBatch: () => void
  readonly _keepaliveTimer: NodeJS.Timeout | null
  readonly _parser: EventEmitter<{ packet: [Packet] }>
  /** Ours: spares a look-up per message. */
  ownConnection?: Connection
}

/** Topics of any depth come to our hooks. A packet has less than this. */
export function judgeTopicsHere(aedes: Aedes): void {
  ;(aedes as unknown as { maxTopicLevels: number }).maxTopicLevels = LIMITS.packetBytesMax
}

/** A packet that Aedes handed to a hook: we finish it, and Aedes reads on as if it were done. */
export function leaveToUs(client: Client): void {
  inner(client)._parsingBatch--
}

/** Makes Aedes read the socket again after the gate was shut. Never within a hook: its parser does not nest. */
export function readOn(client: Client): void {
  if (!client.closed) inner(client)._nextBatch()
}

/** From now on the client is closed when its socket is, and not when its peer has ended its half. */
export function keepHalfOpen(client: Client): void {
  const { conn } = client
  for (const listener of conn.listeners('end')) {
    if (listener.name === 'bound close') conn.off('end', listener as () => void)
  }
}

/** Starts the client's keepalive period anew. */
export function keepAwake(client: Client): void {
  inner(client)._keepaliveTimer?.refresh()
}

export interface FilterPackets {
  /** A SUBSCRIBE or an UNSUBSCRIBE has come. The broker's event of that name follows once it is answered. */
  came(): void
  /** With each filter of an UNSUBSCRIBE, in order with the hooks of other packets. */
  unsubscribed(filter: string): void
}

export function onFilterPackets(client: Client, { came, unsubscribed }: FilterPackets): void {
  inner(client)._parser.prependListener('packet', packet => {
    if (packet.cmd === 'subscribe' || packet.cmd === 'unsubscribe') came()
    if (packet.cmd === 'unsubscribe') for (const filter of packet.unsubscriptions) unsubscribed(filter)
  })
}

/** The third byte of CONNACK: its flags, of which only "session present" may be set [MQTT 3.1.1, 3.2.2.1]. */
const FLAGS_AT = 2

/** The CONNACK that Aedes is about to write, and that accepts, says that a session is present. Nothing was written before. */
export function tellSessionPresent(client: Client): void {
  const { conn } = client
  const write = conn.write
  let written = 0
  conn.write = ((bytes: Buffer, ...rest: []) => {
    const at = FLAGS_AT - written
    written += bytes.length
    if (at >= bytes.length) return write.call(conn, bytes, ...rest)
    conn.write = write
    const flagged = Buffer.from(bytes)
    flagged[at] = 1
    return write.call(conn, flagged, ...rest)
  }) as typeof conn.write
}

export function attach(client: Client, connection: Connection): void {
  inner(client).ownConnection = connection
}

export function connectionOf(client: Client): Connection {
  const connection = inner(client).ownConnection
  if (connection === undefined) throw new Error('A client that did not come through the listener.')
  return connection
}

function inner(client: Client): InnerClient {
  return client as unknown as InnerClient
}
