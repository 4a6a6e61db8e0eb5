/**
 * The pipes of this process, closed to whoever opens them by name. The engine opens a time zone called `file:<path>` as a file
 * (cctz), and holds a lock meanwhile that every statement needs: `file:/proc/self/fd/5` would wait for ever for what comes by a
 * pipe of Node's. No wall of the kernel's is about pipes without a name, but their modes are. The superuser's powers pass them.
 */
import { fchmodSync, fstatSync } from 'node:fs'

/** At a start a process has some forty; the folder that lists them is behind the walls. */
const FILES_MAX = 512

/** What has them open already goes on. */
export function closePipesByName(): void {
  for (let fd = 0; fd < FILES_MAX; fd++) {
    try {
      if (fstatSync(fd).isFIFO()) fchmodSync(fd, 0)
    } catch {
      // Not open, or another user's.
    }
  }
}
