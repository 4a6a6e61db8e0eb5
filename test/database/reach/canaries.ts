/**
 * What must not be reached: files with a word in them, places where nothing may be written, and a server on loopback that
 * counts every connection. They are real, so a statement that gets through is seen, whatever it gets through by.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'

/** In no statement and in no answer of an engine but by reading a canary. */
export const WORD = 'CANARY4711'

export interface Canaries {
  /** A CSV by its absolute path. */
  readonly file: string
  /** The same from the engine's folder, and from where the process was started. */
  readonly relative: readonly string[]
  /** Inside the engine's own data folder. */
  readonly inside: string
  /** In the place where a server lets `file()` read. */
  readonly folder: string
  /** Nothing may ever be there. */
  readonly target: string
  readonly host: string
  readonly url: string
  /** Connections to the server so far. */
  connections(): number
  /** Files that are where nothing may be. */
  written(): string[]
  close(): Promise<void>
}

/** `dataDir` is that of an engine that runs. */
export async function openCanaries(dataDir: string): Promise<Canaries> {
  const folder = mkdtempSync(join(tmpdir(), 'surgetank-canary-'))
  const file = join(folder, 'canary.csv')
  writeFileSync(file, `token\n${WORD}\n`)
  const inside = join(dataDir, 'canary.csv')
  writeFileSync(inside, `token\n${WORD}\n`)
  const targets = join(folder, 'targets')
  mkdirSync(targets)
  let connections = 0
  const open = new Set<Socket>()
  const server = createServer(socket => {
    connections++
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    socket.on('error', () => {})
    socket.once('data', () => {
      const body = `token\n${WORD}\n`
      socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    file,
    relative: [relative(dataDir, file), relative(process.cwd(), file), `../../../../../../../..${file}`],
    inside,
    folder,
    target: join(targets, 'written'),
    host,
    url: `http://${host}/canary.csv`,
    connections: () => connections,
    written: () => readdirSync(targets),
    async close() {
      for (const socket of open) socket.destroy()
      await new Promise(resolve => server.close(resolve))
      rmSync(folder, { recursive: true, force: true })
      rmSync(inside, { force: true })
    },
  }
}
