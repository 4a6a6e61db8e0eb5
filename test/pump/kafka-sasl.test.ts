/** What becomes of a user that cannot be proved: a password that Kafka refuses is not a connection that breaks meanwhile. */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { pino } from 'pino'
import { afterEach, expect, it } from 'vitest'
import { openKafkaClient } from '../../pump/kafka-client.ts'
import { rejection } from '../contracts/pump-samples.ts'
import { answerTo, onFrames } from './kafka-proxy.ts'

const [SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE] = [17, 18, 36]
const SASL_AUTHENTICATION_FAILED = 58

let server: Server | undefined
afterEach(() => server?.close())

it.each(['plain', 'scram-sha-256'] as const)(
  'tries again when the connection breaks meanwhile (%s)',
  async mechanism => {
    const error = await connectAs(mechanism, (_, socket) => socket.destroy())
    expect(error).toMatchObject({ code: 'log_unavailable', fate: 'retry' })
  },
)

it('says that Kafka refuses the user or the password', async () => {
  const error = await connectAs('plain', (request, socket) => socket.write(answerTo(request, REFUSAL)))
  expect(error).toMatchObject({ code: 'log_misconfigured', fate: 'stop' })
  expect(error.message).toContain('SURGETANK_KAFKA_USER')
})

it('says that Kafka does not offer the mechanism', async () => {
  const error = await connectAs('scram-sha-512', () => {})
  expect(error).toMatchObject({ code: 'log_misconfigured', fate: 'stop' })
  expect(error.message).toContain('SURGETANK_KAFKA_SASL')
})

/** What connecting rejects with, to a server that offers two mechanisms and deals so with the request that proves the user. */
async function connectAs(
  mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512',
  prove: (request: Buffer, socket: Socket) => unknown,
) {
  server = createServer(socket => {
    socket.on('error', () => {})
    onFrames(socket, request => {
      const key = request.readInt16BE(4)
      if (key === API_VERSIONS) socket.write(answerTo(request, VERSIONS))
      else if (key === SASL_HANDSHAKE) socket.write(answerTo(request, MECHANISMS))
      else if (key === SASL_AUTHENTICATE) prove(request, socket)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = openKafkaClient({
    brokers: [`127.0.0.1:${(server.address() as AddressInfo).port}`],
    tls: null,
    sasl: { mechanism, user: 'surge', password: 'secret' },
    log: pino({ level: 'silent' }),
  })
  const error = await rejection(client.knowTopic('log'))
  await client.close()
  return error
}

/** Each kind of request up to its version 1, which kafkajs knows of all of these. */
const VERSIONS = Buffer.concat([
  Buffer.from([0, 0, 0, 0, 0, 3]),
  ...[SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE].map(key => Buffer.from([0, key, 0, 0, 0, 1])),
  Buffer.alloc(4),
])
const MECHANISMS = Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 2]), ...['PLAIN', 'SCRAM-SHA-256'].map(text)])
/** Of version 1: with no bytes, and a session of no length. */
const REFUSAL = Buffer.concat([
  Buffer.from([0, SASL_AUTHENTICATION_FAILED]),
  text('Authentication failed'),
  Buffer.alloc(4),
  Buffer.alloc(8),
])

function text(content: string): Buffer {
  return Buffer.concat([Buffer.from([0, content.length]), Buffer.from(content)])
}
