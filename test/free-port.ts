/** Ports for servers that tests start: no connection that goes out is given one of these while they wait to be used. */
import { createServer } from 'node:net'

/** Below those that Linux and macOS give to connections, and above those that services have by custom. */
const [FIRST, LAST] = [13_000, 32_000]
const TRIES_MAX = 100

/** One of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST))
    if (await isFree(port)) return port
  }
  throw new Error(`No free port was found in ${TRIES_MAX} tries between ${FIRST} and ${LAST}.`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
