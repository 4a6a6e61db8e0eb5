/**
 * Where the engine's process listens: two Unix sockets in a folder that only its own user can open. Whoever can open the
 * folder is surgetank itself, so `own.sock` asks for no password.
 */
import { createHash } from 'node:crypto'
import { chmodSync, lstatSync, mkdirSync, realpathSync, rmSync } from 'node:fs'
import type { Server } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { SurgetankError } from '../../errors.ts'

export interface Sockets {
  /** ClickHouse's HTTP protocol, for surgetank's own parts. */
  readonly own: string
  /** Statements of analysts, from the SQL port's process only (frames.ts). */
  readonly analysts: string
}

/** The kernel takes 107 bytes (macOS 103). */
const PATH_BYTES_MAX = 100

/** Paths of the engine on this folder. Those of a folder with a long name are in the folder for temporary files. */
export function socketsOf(dataDir: string): Sockets {
  const near = inFolder(join(resolve(dataDir), 'sockets'))
  if (Buffer.byteLength(near.analysts) <= PATH_BYTES_MAX) return near
  const name = createHash('sha256').update(realPath(dataDir)).digest('hex').slice(0, 16)
  return inFolder(join(tmpdir(), `surgetank-${name}`))
}

function inFolder(folder: string): Sockets {
  return { own: join(folder, 'own.sock'), analysts: join(folder, 'analysts.sock') }
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return resolve(path)
  }
}

/** Makes the folder, 0700. Throws `data_dir_unusable` when it belongs to another user, is a link, or stays open to others. */
export function makeSocketFolder({ own }: Sockets): void {
  const folder = dirname(own)
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const there = lstatSync(folder)
    // What a link leads to is not ours to change.
    if (there.isDirectory() && there.uid === process.getuid?.()) chmodSync(folder, 0o700)
  } catch (error) {
    throw new SurgetankError('data_dir_unusable', `${folder}; its user must be able to make folders there.`, error)
  }
  const found = lstatSync(folder)
  if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o077) !== 0) {
    const must = 'it must be a folder of the user who runs this, with the mode 0700: remove it, and start again.'
    throw new SurgetankError('data_dir_unusable', `${folder}; ${must}`)
  }
}

/** Listens on the path, 0600. What an earlier process left there is removed: the engine's lock on its folder is held by then. */
export function listenOnSocket(server: Server, path: string): Promise<void> {
  rmSync(path, { force: true })
  return new Promise((done, failed) => {
    server.once('error', failed)
    server.listen(path, () => {
      server.off('error', failed)
      chmodSync(path, 0o600)
      done()
    })
  })
}
