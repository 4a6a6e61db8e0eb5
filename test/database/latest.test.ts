/** The newest state as a stream: who stops reading it ends the query, wherever the server hangs. */
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { openDatabase } from '../../database/clickhouse-database.ts'
import { ACCESS_DEFAULTS, type Database } from '../../database/database.ts'

const ROW = '["d","m",1000,1010,1,7,"",1010]\n'

test.each([
  ['before it answers', (_: ServerResponse) => {}, 0],
  ['after some rows', (response: ServerResponse) => response.write(ROW), 1],
])('a signal ends the query of a server that hangs %s', async (_, begin, pages) => {
  const { database, asked } = await openHanging(begin)
  const stopped = new AbortController()
  const read = database.latest(stopped.signal)[Symbol.asyncIterator]()
  for (let page = 0; page < pages; page++) expect(await read.next()).toMatchObject({ value: [{ device: 'd' }] })
  const next = read.next()
  const closed = once(await asked, 'close')
  stopped.abort()
  const cause = expect.objectContaining({ message: expect.stringMatching(/user aborted|operation was aborted/) })
  await expect(next).rejects.toMatchObject({ code: 'database_unavailable', fate: 'retry', cause })
  await closed
})

/** A server that begins an answer and never ends it. */
async function openHanging(
  begin: (response: ServerResponse) => void,
): Promise<{ database: Database; asked: Promise<Socket> }> {
  const server = createServer((_, response) => begin(response))
  const asked = once(server, 'request').then(([request]) => request.socket as Socket)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const database = openDatabase({ url, user: 'surgetank', password: '', ...ACCESS_DEFAULTS })
  onTestFinished(async () => {
    await database.close()
    server.closeAllConnections()
    server.close()
  })
  return { database, asked }
}
