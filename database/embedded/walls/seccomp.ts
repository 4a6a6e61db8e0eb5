/**
 * The walls around the network and other programs, by a filter of system calls that every thread of the engine's process
 * has. What is denied fails with EPERM, or ENOSYS where the C library or Node then takes another way; nothing is killed.
 *
 * The list names what is denied, not what is allowed: what Node and the engine need changes with their versions, and a
 * call that is missing from a list of allowed ones would end the engine on somebody's machine.
 */
import { getSystemErrorName } from 'node:util'
import { ARCHITECTURE_AT, argumentAt, assemble, NUMBER_AT, type Step } from './bpf.ts'
import type { Libc } from './libc.ts'
import { type Architecture, numberOf, type Syscall } from './syscalls.ts'
import type { Wall } from './walls.ts'

export interface FilterOptions {
  readonly architecture: Architecture
  /** The process, which stays the same over execve. */
  readonly pid: number
  /** Where the path stands that the launcher runs: in no later process there is anything at this address. */
  readonly programAt: bigint
}

const ALLOW = 0x7fff0000
const ERRNO = 0x00050000
const EPERM = ERRNO | 1
const ENOSYS = ERRNO | 38

/** linux/audit.h. */
const ARCHITECTURES: Readonly<Record<Architecture, number>> = { x64: 0xc000003e, arm64: 0xc00000b7 }
/** Of the x32 calls, which go by other numbers on the same architecture. */
const X32_FROM = 0x40000000

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_TYPE_MASK = 0xf
const CLONE_THREAD = 0x00010000
const PRIO_PROCESS = 0
/** Who gets the signals of an open file, and which: F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN and SIOCSPGRP of a socket. */
const FCNTL_OF_SIGNALS = [8, 10, 15]
const IOCTL_OF_SIGNALS = [0x8901, 0x8902]
/** CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET. */
const CLONE_NEW = 0x7e020000

/** To no end of this process: to look into others, to change the machine, to reach others past the file system. */
const DENIED: readonly Syscall[] = [
  ...(['connect', 'fork', 'vfork', 'execveat', 'tkill'] as const),
  ...(['ptrace', 'process_vm_readv', 'process_vm_writev', 'process_madvise', 'process_mrelease', 'kcmp'] as const),
  ...(['pidfd_open', 'pidfd_getfd', 'pidfd_send_signal'] as const),
  ...(['mount', 'umount2', 'move_mount', 'open_tree', 'open_tree_attr', 'fsopen', 'fsconfig', 'fsmount'] as const),
  ...(['fspick', 'mount_setattr', 'statmount', 'listmount', 'pivot_root', 'chroot', 'swapon', 'swapoff'] as const),
  ...(['unshare', 'setns', 'mknod', 'mknodat', 'name_to_handle_at', 'open_by_handle_at', 'fanotify_init'] as const),
  ...(['chown', 'lchown', 'fchownat', 'setxattr', 'lsetxattr', 'setxattrat'] as const),
  ...(['removexattr', 'lremovexattr', 'removexattrat'] as const),
  ...(['bpf', 'perf_event_open', 'userfaultfd', 'add_key', 'request_key', 'keyctl', 'kexec_load'] as const),
  ...(['kexec_file_load', 'init_module', 'finit_module', 'delete_module', 'reboot', 'sethostname'] as const),
  ...(['setdomainname', 'settimeofday', 'clock_settime', 'acct', 'quotactl', 'quotactl_fd', 'syslog', 'iopl'] as const),
  ...(['ioperm', 'modify_ldt', 'personality', 'lookup_dcookie', 'vhangup', 'uselib'] as const),
  ...(['ioprio_set', 'shmget', 'shmat', 'shmctl', 'semget', 'semop', 'semtimedop', 'semctl'] as const),
  ...(['msgget', 'msgsnd', 'msgrcv', 'msgctl', 'mq_open', 'mq_unlink'] as const),
]

/** As on a kernel without it: the C library then takes `clone`, whose flags can be seen, and Node its own threads. */
const UNKNOWN: readonly Syscall[] = ['clone3', 'io_uring_setup', 'io_uring_enter', 'io_uring_register']

/** The first argument names a process: no other than this one. */
const OF_OWN_PROCESS: readonly Syscall[] = ['kill', 'tgkill', 'rt_sigqueueinfo', 'rt_tgsigqueueinfo']

/** The same, and 0 for the caller. What would be another's: limits, turns on the CPUs, places in memory. */
const OF_OWN_PROCESS_OR_CALLER: readonly Syscall[] = [
  ...(['prlimit64', 'sched_setparam', 'sched_setscheduler', 'sched_setaffinity', 'sched_setattr'] as const),
  ...(['migrate_pages', 'move_pages'] as const),
]

/** The filter, as `struct sock_filter[]`. */
export function filterProgram(options: FilterOptions): Buffer {
  return assemble(filterSteps(options))
}

function filterSteps({ architecture, pid, programAt }: FilterOptions): Step[] {
  const jump = (name: Syscall, label: string): Step[] => {
    const value = numberOf(name, architecture)
    return value === null ? [] : [{ do: 'equal', value, yes: label }]
  }
  return [
    { do: 'load', offset: ARCHITECTURE_AT },
    { do: 'equal', value: ARCHITECTURES[architecture], no: 'unknown' },
    { do: 'load', offset: NUMBER_AT },
    ...(architecture === 'x64' ? [{ do: 'atLeast', value: X32_FROM, yes: 'unknown' } as const] : []),
    ...DENIED.flatMap(name => jump(name, 'deny')),
    ...UNKNOWN.flatMap(name => jump(name, 'unknown')),
    ...OF_OWN_PROCESS.flatMap(name => jump(name, 'own process')),
    ...OF_OWN_PROCESS_OR_CALLER.flatMap(name => jump(name, 'own process or caller')),
    ...jump('setpriority', 'own priority'),
    ...jump('fcntl', 'fcntl'),
    ...jump('ioctl', 'ioctl'),
    ...jump('socket', 'socket'),
    // A pair of datagram sockets sends to any name in the file system, connected as it is.
    ...jump('socketpair', 'socket'),
    ...jump('clone', 'clone'),
    ...jump('execve', 'execve'),
    { do: 'answer', value: ALLOW },

    { do: 'label', name: 'own process or caller' },
    { do: 'load', offset: argumentAt(0) },
    { do: 'equal', value: 0, yes: 'allow' },
    { do: 'label', name: 'own process' },
    { do: 'load', offset: argumentAt(0) },
    { do: 'equal', value: pid, yes: 'allow', no: 'deny' },

    { do: 'label', name: 'own priority' },
    { do: 'load', offset: argumentAt(0) },
    { do: 'equal', value: PRIO_PROCESS, no: 'deny' },
    { do: 'load', offset: argumentAt(1) },
    { do: 'equal', value: 0, yes: 'allow', no: 'deny' },

    { do: 'label', name: 'fcntl' },
    { do: 'load', offset: argumentAt(1) },
    ...FCNTL_OF_SIGNALS.map(value => ({ do: 'equal', value, yes: 'deny' }) as const),
    { do: 'answer', value: ALLOW },
    { do: 'label', name: 'ioctl' },
    { do: 'load', offset: argumentAt(1) },
    ...IOCTL_OF_SIGNALS.map(value => ({ do: 'equal', value, yes: 'deny' }) as const),
    { do: 'answer', value: ALLOW },

    { do: 'label', name: 'socket' },
    { do: 'load', offset: argumentAt(1) },
    { do: 'and', value: SOCK_TYPE_MASK },
    { do: 'equal', value: SOCK_STREAM, no: 'deny' },
    { do: 'load', offset: argumentAt(0) },
    { do: 'equal', value: AF_UNIX, yes: 'allow', no: 'deny' },

    { do: 'label', name: 'clone' },
    { do: 'load', offset: argumentAt(0) },
    { do: 'bits', value: CLONE_NEW, yes: 'deny' },
    { do: 'bits', value: CLONE_THREAD, yes: 'allow', no: 'deny' },

    { do: 'label', name: 'execve' },
    { do: 'load', offset: argumentAt(0, 'high') },
    { do: 'equal', value: Number(programAt >> 32n), no: 'deny' },
    { do: 'load', offset: argumentAt(0) },
    { do: 'equal', value: Number(programAt & 0xffffffffn), yes: 'allow', no: 'deny' },

    { do: 'label', name: 'allow' },
    { do: 'answer', value: ALLOW },
    { do: 'label', name: 'deny' },
    { do: 'answer', value: EPERM },
    { do: 'label', name: 'unknown' },
    { do: 'answer', value: ENOSYS },
  ]
}

/** Of this process from now on, and of what it becomes. */
export function raiseFilter(libc: Libc, options: FilterOptions): Wall {
  const raised = libc.addFilter(filterProgram(options))
  return raised < 0 ? `a filter of system calls is refused: ${getSystemErrorName(raised)}` : true
}
