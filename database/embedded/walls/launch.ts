/**
 * Raises the walls, then becomes the program that lives behind them: node on another file, in the same process, with the
 * same channel to its parent. `fork.ts` starts it.
 *
 * Why another program: Landlock binds the thread that asks and what that starts, and Node has had threads since before its
 * first line ran, those of the pool that runs queries among them. After execve there is one thread, and it is bound.
 * Nothing is taken from the channel here: what the parent says is for the program. This process ends with its parent as
 * that does: an end of the channel that comes before execve is there after it.
 */
import { mkdirSync, readdirSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { keepFilesPrivate } from '../../../private-files.ts'
import { CHANNEL } from '../channel.ts'
import { ENVIRONMENT } from '../environment.ts'
import { grantsOf, OWN_FOLDERS } from './grants.ts'
import { raiseLandlock } from './landlock.ts'
import { raiseFilter } from './seccomp.ts'
import { type Architecture, numberOf } from './syscalls.ts'
import type { Walls } from './walls.ts'

/** The only argument, as JSON. */
export interface LaunchOptions {
  /** The file that node runs behind the walls; its arguments are `folder`, and the walls that were raised, as JSON. */
  readonly entry: string
  /** Absolute. */
  readonly folder: string
  /** Where it makes its sockets; made, for this user only, when it does not exist. */
  readonly socketFolder: string
  /** Folders and files that it reads: itself, and what it loads. */
  readonly programs: readonly string[]
}

const STDERR = 2
const CANNOT = 70

keepFilesPrivate()
// A terminal's SIGINT is left to the parent, here and in what comes.
process.on('SIGINT', () => {})
try {
  await launch(JSON.parse(process.argv[2] ?? '') as LaunchOptions)
} catch (error) {
  writeSync(STDERR, `${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(CANNOT)
}

/** Throws what keeps the program from being run: the parent runs it without walls then. */
async function launch({ entry, folder, socketFolder, programs }: LaunchOptions): Promise<never> {
  const architecture = process.arch as Architecture
  const { openLibc } = await import('./libc.ts')
  const libc = openLibc(numberOf('seccomp', architecture) ?? 0)
  // The end of the channel says the same, but not to a process that the engine keeps from reading it.
  libc.dieWithParent()
  // Only what is there can be granted.
  const own = [...Object.keys(OWN_FOLDERS).map(name => join(folder, name)), socketFolder]
  for (const path of own) mkdirSync(path, { recursive: true, mode: 0o700 })
  const grants = grantsOf({ folder, socketFolder, programs, execPath: process.execPath })
  // Nothing that is open here is the program's, but for its channel and what every program has.
  for (const fd of readdirSync('/proc/self/fd').map(Number)) libc.setCloseOnExec(fd, fd > CHANNEL)
  const node = libc.pin(process.execPath)
  libc.forbidNewPrivileges()
  const files = raiseLandlock(libc, grants)
  const filter = raiseFilter(libc, {
    architecture,
    pid: process.pid,
    programAt: node.address,
  })
  const walls: Walls = { files, network: filter, programs: filter }
  const error = libc.execute(node, [process.execPath, entry, folder, JSON.stringify(walls)], ENVIRONMENT)
  throw new Error(`${process.execPath} cannot be run behind them (error ${-error})`)
}
