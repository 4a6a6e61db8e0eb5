/** Whether this machine has what the walls are made of, and the engine whose names were judged. */
import { readFileSync } from 'node:fs'
import { openLibc } from '../../database/embedded/walls/libc.ts'
import { numberOf } from '../../database/embedded/walls/syscalls.ts'

/** Names of functions and settings differ between builds of the engine. */
export const judgedEngineHere = process.platform === 'linux' && process.arch === 'x64'

const LANDLOCK_MIN = 2

/** Asked of the kernel, not of the walls: where these fail on a kernel that has all, the tests are to fail. */
export const wallsHere = areHere()

function areHere(): boolean {
  if (process.platform !== 'linux' || (process.arch !== 'x64' && process.arch !== 'arm64')) return false
  try {
    const version = openLibc(numberOf('seccomp', process.arch) ?? 0).createRuleset(null)
    return version >= LANDLOCK_MIN && /\berrno\b/.test(readFileSync('/proc/sys/kernel/seccomp/actions_avail', 'utf8'))
  } catch {
    return false
  }
}
