/** Ports for servers that tests start: no connection that goes out is given one of these while they wait to be used. */
import { connect, createServer } from 'node:net'

/**
 * Below those that Linux and macOS give to connections, and above those that services have by custom. Each worker of vitest
 * has a part of them for itself, and gives none twice: a server may take a while until it listens.
 */
const [FIRST, LAST, PARTS] = [13_000, 32_000, 8]
const TRIES_MAX = 100

const part = (LAST - FIRST) / PARTS
const first = FIRST + part * (Number(process.env.VITEST_POOL_ID ?? 0) % PARTS)
const given = new Set<number>()

/** One of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const port = first + Math.floor(Math.random() * part)
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
  throw new Error(`No free port was found in ${TRIES_MAX} tries from ${first} on.`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

/** Whether something listens on the port of 127.0.0.1. */
export function accepts(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1', () => done(true))
    socket.once('error', () => done(false))
    const done = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
  })
}
