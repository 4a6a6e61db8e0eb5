/**
 * A ClickHouse as the embedded engine cannot be made: of another version, with a user of few rights, behind TLS. A proxy that
 * answers some statements as a server would, and passes all others on to the engine.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type RequestListener, request } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'

export interface ClickHouseProxy {
  readonly url: string
  /** Statements that came, in order. */
  readonly statements: string[]
  close(): Promise<void>
}

export interface ProxyOptions {
  /** A number is the ClickHouse error code that refuses the statement; a text answers it; null passes it on. */
  readonly answer?: (sql: string) => number | string | null
  /** The name of a certificate and its key in `certificates/`: the proxy speaks TLS then. */
  readonly certificate?: string
}

export async function openProxy(
  url: string,
  { answer = () => null, certificate }: ProxyOptions = {},
): Promise<ClickHouseProxy> {
  const { hostname, port } = new URL(url)
  const statements: string[] = []
  const handle: RequestListener = (incoming, response) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.once('end', () => {
      const body = Buffer.concat(chunks)
      const sql = (new URL(incoming.url ?? '/', url).searchParams.get('query') ?? body.toString()).trim()
      if (sql !== '') statements.push(sql)
      const answered = answer(sql)
      if (typeof answered === 'string') return void response.end(answered)
      if (answered !== null) {
        response.writeHead(500, { 'x-clickhouse-exception-code': String(answered) })
        return void response.end(`Code: ${answered}. DB::Exception: Refused here. (REFUSED_HERE) (version 26.7.2.1)`)
      }
      const { method, url: path, headers } = incoming
      const onward = request({ hostname, port, method, path, headers }, answer => {
        response.writeHead(answer.statusCode ?? 500, answer.headers)
        answer.pipe(response)
      })
      onward.once('error', () => response.destroy())
      onward.end(body)
    })
  }
  const server =
    certificate === undefined
      ? createServer(handle)
      : createTlsServer({ cert: pem(`${certificate}.pem`), key: pem(`${certificate}.key`) }, handle)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `${certificate === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    statements,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Made for these tests, valid until 2120: `server` is for 127.0.0.1, `other` for another name; both by `authority`. */
export function pem(file: string): string {
  return readFileSync(new URL(`certificates/${file}`, import.meta.url), 'utf8')
}
