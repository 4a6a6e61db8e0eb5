/**
 * A stand-in for a ClickHouse server: TCP, a user and a password, and behind them the embedded engine by its own socket. Who
 * has no login is refused as by a server, with 516.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { ACCESS_DEFAULTS, type DatabaseAccess } from '../../database/database.ts'
import { startEmbeddedDatabase } from '../../database/embedded/embedded-database.ts'
import { startSqlPort } from '../../database/sql-port/sql-port.ts'

export interface ClickHouseServer {
  readonly port: number
  readonly url: string
  readonly user: string
  readonly password: string
  /** All of it, for `openDatabase`. */
  readonly access: DatabaseAccess
  /** As CLICKHOUSE_URL and its like. */
  readonly env: Readonly<Record<string, string>>
  close(): Promise<void>
}

const USER = 'surgetank'

/** The engine may be away now, and start again. */
export async function openClickHouseServer(ownSocket: string): Promise<ClickHouseServer> {
  const password = randomBytes(12).toString('hex')
  const agent = new Agent({ keepAlive: true })
  const server = createServer({ maxHeaderSize: 1 << 20 }, (incoming, response) => {
    if (incoming.url === '/ping' || loginOf(incoming) === `${USER}:${password}`) return passOn(incoming, response)
    response.writeHead(403, { 'x-clickhouse-exception-code': '516' })
    response.end('Code: 516. DB::Exception: Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)\n')
    incoming.resume()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const access = { ...ACCESS_DEFAULTS, url, user: USER, password }
  const env = { CLICKHOUSE_URL: url, SURGETANK_CLICKHOUSE_USER: USER, SURGETANK_CLICKHOUSE_PASSWORD: password }
  return { port, url, user: USER, password, access, env, close }

  function passOn(incoming: IncomingMessage, response: ServerResponse): void {
    const { method, url: path, headers } = incoming
    const onward = request({ agent, socketPath: ownSocket, method, path, headers }, answer => {
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.once('error', () => response.destroy())
      answer.pipe(response)
    })
    onward.once('error', () => response.destroy())
    response.once('close', () => {
      if (!response.writableFinished) onward.destroy()
    })
    incoming.once('error', () => onward.destroy())
    incoming.pipe(onward)
  }

  async function close(): Promise<void> {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
    agent.destroy()
  }
}

/** `user:password`, by any of the ways that a server takes it. */
function loginOf({ url = '/', headers }: IncomingMessage): string {
  const query = new URL(url, 'http://localhost').searchParams
  const basic = /^Basic (.*)$/i.exec(headers.authorization ?? '')?.[1]
  if (basic !== undefined) return Buffer.from(basic, 'base64').toString()
  const user = headers['x-clickhouse-user'] ?? query.get('user') ?? ''
  return `${user}:${headers['x-clickhouse-key'] ?? query.get('password') ?? ''}`
}

export interface WholeClickHouse extends ClickHouseServer {
  /** Of the engine that runs now. */
  readonly pid: number
  /** The same engine for analysts, without a user and a password. */
  readonly sqlPort: number
  /** Ends the engine at once and starts it again, on the same folder. */
  killAndRestart(): Promise<void>
}

/** An engine of its own on a folder, with everything before it. */
export async function startClickHouse(dataDir: string): Promise<WholeClickHouse> {
  let engine = await startEmbeddedDatabase({ dataDir })
  const { own, analysts: analystsSocket } = engine.sockets
  const [server, sql] = await Promise.all([openClickHouseServer(own), startSqlPort({ port: 0, analystsSocket })])
  return {
    ...server,
    sqlPort: sql.port,
    get pid() {
      return engine.pid
    },
    async killAndRestart() {
      engine.kill()
      engine = await startEmbeddedDatabase({ dataDir })
    },
    async close() {
      await Promise.all([server.close(), sql.stop()])
      await engine.stop()
    },
  }
}
