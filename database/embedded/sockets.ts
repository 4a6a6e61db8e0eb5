/**
 * Where the engine's process listens: two Unix sockets in a folder that only its own user can open. Whoever can open the
 * folder is surgetank itself, so `own.sock` asks for no password.
 *
 * The folder lies beside the engine's files, where it can be closed to others, its disk takes sockets and its path is short
 * enough. Elsewhere, such as on a volume that keeps no modes, it is made under the directory for temporary files, with a
 * name that nobody can know before, and removed at the end. Who else must find it is told where it is (manager/data-dir.ts).
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, unlinkSync } from 'node:fs'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { SurgetankError } from '../../errors.ts'

export interface Sockets {
  /** ClickHouse's HTTP protocol, for surgetank's own parts. */
  readonly own: string
  /** Statements of analysts, from the SQL port's process only (frames.ts). */
  readonly analysts: string
}

export interface SocketPlace {
  /** Absolute. */
  readonly folder: string
  readonly sockets: Sockets
  /** Removes a folder for temporary files; the engine has ended, or is about to. */
  close(): void
}

/** The kernel takes 107 bytes (macOS 103). */
const PATH_BYTES_MAX = 100
const TEMPORARY = /^surgetank-sockets-\w{6}$/

export function socketsIn(folder: string): Sockets {
  return { own: join(folder, 'own.sock'), analysts: join(folder, 'analysts.sock') }
}

/** Beside the engine's files. */
export function nearFolder(dataDir: string): string {
  return join(resolve(dataDir), 'sockets')
}

/** A folder for the sockets of the engine on `dataDir`. Rejects with `no_socket_place`, which says why each place was none. */
export async function openSocketPlace(
  dataDir: string,
  temporary: readonly string[] = [tmpdir(), '/tmp'],
): Promise<SocketPlace> {
  const near = nearFolder(dataDir)
  const why = await whyNotNear(near)
  if (why === null) return { folder: near, sockets: socketsIn(near), close: () => {} }
  const reasons = [`${near}: ${why}`]
  for (const parent of new Set(temporary.map(path => resolve(path)))) {
    const found = await makeTemporary(parent)
    if (typeof found !== 'string') return found
    reasons.push(`${parent}: ${found}`)
  }
  const way = 'Set TMPDIR to a folder on a disk of this machine that its user may write, with a short path.'
  throw new SurgetankError('no_socket_place', `${reasons.join('; ')}. ${way}`)
}

async function whyNotNear(folder: string): Promise<string | null> {
  if (isTooLong(folder)) return 'its path is too long'
  try {
    keepPrivate(folder)
    await tryToListen(join(folder, `${randomBytes(4).toString('hex')}.try`))
    return null
  } catch (error) {
    return (error as Error).message
  }
}

/** Half a sentence where that cannot be. */
async function makeTemporary(parent: string): Promise<SocketPlace | string> {
  const prefix = join(parent, 'surgetank-sockets-')
  if (isTooLong(`${prefix}123456`)) return 'its path is too long'
  let folder: string | null = null
  try {
    folder = mkdtempSync(prefix)
    const [made, sockets] = [folder, socketsIn(folder)]
    keepPrivate(made)
    await tryToListen(sockets.own)
    return { folder: made, sockets, close: () => removeTemporary(made) }
  } catch (error) {
    if (folder !== null) removeTemporary(folder)
    return (error as Error).message
  }
}

function isTooLong(folder: string): boolean {
  return Buffer.byteLength(socketsIn(folder).analysts) > PATH_BYTES_MAX
}

/** Makes the folder, or closes one that is there. Throws when it can be entered by anybody else. */
export function keepPrivate(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { uid, mode } = lookAt(folder)
  if (uid !== process.geteuid?.()) throw new Error(`it belongs to user ${uid}`)
  if (mode !== 0o700) chmodSync(folder, 0o700)
  if ((lookAt(folder).mode & 0o077) !== 0) throw new Error('its disk keeps no modes')
}

function lookAt(folder: string): { uid: number; mode: number } {
  const found = lstatSync(folder)
  if (!found.isDirectory()) throw new Error('it is no folder')
  return { uid: found.uid, mode: found.mode & 0o777 }
}

/** Some disks take the name of a socket, and no connection by it. */
async function tryToListen(path: string): Promise<void> {
  const server = createServer(socket => socket.destroy())
  try {
    await listenOnSocket(server, path)
    const client = connect(path)
    await once(client, 'connect').finally(() => client.destroy())
  } finally {
    server.close()
    rmSync(path, { force: true })
  }
}

/**
 * Removes a folder that `openSocketPlace` made under the one for temporary files, also for a process that was killed. Any
 * other folder, and one that holds anything but sockets, stays as it is.
 */
export function removeTemporary(folder: string): void {
  try {
    const { uid, mode } = lookAt(folder)
    if (!TEMPORARY.test(basename(folder)) || uid !== process.geteuid?.() || (mode & 0o077) !== 0) return
    const ours = Object.values(socketsIn(folder))
    const found = readdirSync(folder).map(name => join(folder, name))
    if (!found.every(path => ours.includes(path) && lstatSync(path).isSocket())) return
    for (const path of found) unlinkSync(path)
    rmdirSync(folder)
  } catch {
    // Gone already, or not to be removed by this user.
  }
}

/** Listens on the path, 0600. What an earlier process left there is removed: the engine's lock on its folder is held by then. */
export function listenOnSocket(server: Server, path: string): Promise<void> {
  rmSync(path, { force: true })
  return new Promise((done, failed) => {
    server.once('error', failed)
    server.listen(path, () => {
      server.off('error', failed)
      try {
        chmodSync(path, 0o600)
        done()
      } catch (error) {
        failed(error)
      }
    })
  })
}
