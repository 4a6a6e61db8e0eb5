/**
 * A ClickHouse with a user of few rights, or in another state that the embedded engine cannot be brought to: a proxy that
 * answers some statements as a server would, and passes all others on to the engine.
 */
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Refusing {
  readonly url: string
  close(): Promise<void>
}

/** `codeOf` gives the ClickHouse error code of a statement that is refused, or null. */
export async function refuse(url: string, codeOf: (sql: string) => number | null): Promise<Refusing> {
  const { hostname, port } = new URL(url)
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.once('end', () => {
      const body = Buffer.concat(chunks)
      const sql = new URL(incoming.url ?? '/', url).searchParams.get('query') ?? body.toString()
      const code = codeOf(sql.trim())
      if (code !== null) {
        response.writeHead(500, { 'x-clickhouse-exception-code': String(code) })
        return void response.end(
          `Code: ${code}. DB::Exception: refused for this test. (REFUSED_FOR_TEST) (version 26.7.2.1)`,
        )
      }
      const { method, url: path, headers } = incoming
      const onward = request({ hostname, port, method, path, headers }, answer => {
        response.writeHead(answer.statusCode ?? 500, answer.headers)
        answer.pipe(response)
      })
      onward.once('error', () => response.destroy())
      onward.end(body)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
