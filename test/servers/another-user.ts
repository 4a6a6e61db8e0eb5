/** Whether a test can make files of another user, and run a process that may not change them. */
import { execFileSync } from 'node:child_process'

export const anotherUserHere = isHere()

function isHere(): boolean {
  if (process.getuid?.() !== 0) return false
  try {
    execFileSync('setpriv', ['--bounding-set=-all', '--inh-caps=-all', 'true'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
