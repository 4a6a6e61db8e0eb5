/** Faults of kafkajs that are mended for the process, shown on a server that speaks no more of Kafka than its frames. */
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { mendKafkajs } from '../../pump/kafka-mended.ts'
import { until } from '../waits.ts'
import { answerTo, onFrames } from './kafka-proxy.ts'

const require = createRequire(import.meta.url)
const ConnectionPool = require('kafkajs/src/network/connectionPool') as new (
  options: object,
) => { send(request: object): Promise<Buffer>; destroy(): Promise<void> }
const { createLogger, LEVELS } = require('kafkajs/src/loggers') as {
  createLogger(options: object): object
  LEVELS: { NOTHING: number }
}

mendKafkajs()

let server: Server | undefined
/** Of the client, in the order of their connecting. */
let opened: Socket[] = []
afterEach(() => server?.close())

it('reads on over a new connection after one that ended in the middle of an answer', async () => {
  const pool = await openPool((answer, connection, socket) => {
    if (connection === 1) socket.end(answer.subarray(0, 5_000))
    else socket.write(answer)
  })
  await expect(pool.send(REQUEST)).rejects.toThrow('Closed connection')
  await pool.destroy()
  for (let asked = 0; asked < 3; asked++) expect(await pool.send(REQUEST)).toEqual(BODY)
  await pool.destroy()
})

it('is not disturbed by the end of a connection that it has given up', async () => {
  let first: Socket | undefined
  const pool = await openPool(async (answer, connection, socket) => {
    if (connection === 1) {
      first = socket
      return
    }
    first?.end()
    await until(() => opened[0]?.closed === true)
    socket.write(answer)
  })
  await expect(pool.send(REQUEST)).rejects.toThrow('timed out')
  await pool.destroy()
  expect(await pool.send(REQUEST)).toEqual(BODY)
  await pool.destroy()
})

const BODY = Buffer.alloc(100_000, '{')
const REQUEST = {
  request: {
    ...{ apiKey: 1, apiVersion: 11, apiName: 'Fetch' },
    encode: async () => ({ buf: Buffer.alloc(4), buffer: Buffer.alloc(4), size: () => 4 }),
  },
  response: { decode: async (bytes: Buffer) => bytes, parse: async (bytes: Buffer) => bytes },
}

/** Connections to a server whose answers, numbered as their requests are, go out as `answered` says; connections count from 1. */
async function openPool(answered: (answer: Buffer, connection: number, socket: Socket) => unknown) {
  let connections = 0
  opened = []
  server = createServer({ allowHalfOpen: true }, socket => {
    const connection = ++connections
    socket.on('error', () => {})
    onFrames(socket, request => answered(answerTo(request, BODY), connection, socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return new ConnectionPool({
    ...{ host: '127.0.0.1', port, clientId: 'test', connectionTimeout: 60_000, requestTimeout: 5_000 },
    socketFactory: ({ onConnect }: { onConnect: () => void }) => {
      const socket = connect(port, '127.0.0.1', onConnect)
      opened.push(socket)
      return socket
    },
    logger: createLogger({ level: LEVELS.NOTHING, logCreator: () => () => {} }),
  })
}
