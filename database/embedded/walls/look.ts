/**
 * The walls as they are met from inside: each is tried once, before there is anything to protect. What a call that raised
 * them gave back is not enough to say that they stand.
 */
import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { openSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { OWN_THREADS } from './grants.ts'
import { O_PATH } from './landlock.ts'
import type { Walls } from './walls.ts'

/** Nobody listens there, and nothing is sent. */
const NOBODY = { host: '127.0.0.1', port: 9 }

/** What was raised, less what let something through. Run in a folder whose parent is outside of the walls. */
export async function lookFromInside(raised: Walls): Promise<Walls> {
  const { files, network, programs } = raised
  return {
    files:
      files === true && !(refused(() => readdirSync('/')) && refused(() => readdirSync('..')))
        ? notMet('a folder was read')
        : files,
    network: network === true && !(await isConnectionRefused()) ? notMet('a socket was made') : network,
    programs:
      programs === true && !(isProgramRefused() && refused(() => process.kill(process.ppid, 0)))
        ? notMet('another process was reached')
        : programs,
  }
}

/**
 * Keeps what was granted of this process' threads: the grant is of the very entry of /proc, which the kernel makes anew,
 * without it, once nobody has it open and memory is short.
 */
export function keepOwnThreads(): void {
  if (process.platform === 'linux') openSync(OWN_THREADS, O_PATH)
}

function notMet(what: string): string {
  return `it was raised, and ${what} all the same`
}

/** True when the kernel denied it; false also when there was another error, which a wall does not give. */
function refused(attempt: () => unknown): boolean {
  try {
    attempt()
    return false
  } catch (error) {
    return isDenied(error)
  }
}

async function isConnectionRefused(): Promise<boolean> {
  const stream = connect(NOBODY)
  const datagram = createSocket('udp4')
  datagram.bind(0, NOBODY.host)
  try {
    const errors = await Promise.all([errorOf(stream, 'connect'), errorOf(datagram, 'listening')])
    return errors.every(isDenied)
  } finally {
    stream.destroy()
    datagram.close()
  }
}

/** What `emitter` fails with; null when the event came. */
async function errorOf(emitter: NodeJS.EventEmitter, event: string): Promise<unknown> {
  return once(emitter, event).then(
    () => null,
    (error: unknown) => error,
  )
}

function isProgramRefused(): boolean {
  return isDenied(spawnSync(process.execPath, ['--version'], { stdio: 'ignore' }).error)
}

function isDenied(error: unknown): boolean {
  return ['EPERM', 'EACCES'].includes((error as NodeJS.ErrnoException | null | undefined)?.code ?? '')
}
