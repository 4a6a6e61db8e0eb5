/** Has the kernel answer this process, and what it starts, as an older one does that grants no wall. */
import { assemble } from '../../dist/database/embedded/walls/bpf.js'
import { openLibc } from '../../dist/database/embedded/walls/libc.js'
import { numberOf } from '../../dist/database/embedded/walls/syscalls.js'

const ENOSYS = 0x50026
const ALLOW = 0x7fff0000

export function hideWalls() {
  const seccomp = numberOf('seccomp', process.arch)
  const libc = openLibc(seccomp)
  libc.forbidNewPrivileges()
  const added = libc.addFilter(
    assemble([
      { do: 'load', offset: 0 },
      ...[444, 445, 446, seccomp].map(value => ({ do: 'equal', value, yes: 'unknown' })),
      { do: 'answer', value: ALLOW },
      { do: 'label', name: 'unknown' },
      { do: 'answer', value: ENOSYS },
    ]),
  )
  if (added !== 0) throw new Error(`no filter: ${added}`)
}
