/** A parent as `lone-parent.mjs` on a machine that grants no wall: an outer filter answers as an older kernel does. */
import { assemble } from '../../dist/database/embedded/walls/bpf.js'
import { openLibc } from '../../dist/database/embedded/walls/libc.js'
import { numberOf } from '../../dist/database/embedded/walls/syscalls.js'

const ENOSYS = 0x50026
const ALLOW = 0x7fff0000
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
await import('./lone-parent.mjs')
