/** What the walls are made of, as tables: the filter of system calls, the rights of Landlock, the sentences. */
import { describe, expect, test } from 'vitest'
import { rightsOf } from '../../database/embedded/walls/landlock.ts'
import { filterProgram } from '../../database/embedded/walls/seccomp.ts'
import { type Architecture, numberOf, SYSCALLS, type Syscall } from '../../database/embedded/walls/syscalls.ts'
import { allMissing, describeWalls, everStood, isLost } from '../../database/embedded/walls/walls.ts'

const ARCHITECTURE = { x64: 0xc000003e, arm64: 0xc00000b7 }
const PID = 4711
const PROGRAM = 0x7f12_3456_789an
const THREAD = 0x003d0f00

interface Call {
  readonly nr: number
  readonly arch?: number
  readonly args?: readonly (number | bigint)[]
}

/** What the kernel answers, by the five instructions that the filters have (linux/filter.h). */
function answer(program: Buffer, { nr, arch, args = [] }: Call, architecture: Architecture): string {
  const data = Buffer.alloc(64)
  data.writeUInt32LE(nr, 0)
  data.writeUInt32LE(arch ?? ARCHITECTURE[architecture], 4)
  for (const [index, value] of args.entries()) data.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 16 + 8 * index)
  let accumulator = 0
  for (let at = 0; at < program.length; at += 8) {
    const value = program.readUInt32LE(at + 4)
    const jump = (yes: boolean) => (at += 8 * program.readUInt8(at + (yes ? 2 : 3)))
    switch (program.readUInt16LE(at)) {
      case 0x20:
        accumulator = data.readUInt32LE(value)
        break
      case 0x54:
        accumulator = (accumulator & value) >>> 0
        break
      case 0x15:
        jump(accumulator === value)
        break
      case 0x35:
        jump(accumulator >= value)
        break
      case 0x45:
        jump((accumulator & value) !== 0)
        break
      case 0x06:
        return { 2147418112: 'allowed', 327681: 'EPERM', 327718: 'ENOSYS' }[value] ?? 'another'
      default:
        throw new Error('No such instruction.')
    }
  }
  throw new Error('The filter has no end.')
}

describe.each(['x64', 'arm64'] as const)('the filter of system calls on %s', architecture => {
  const closed = filterProgram({ architecture, pid: PID, programAt: PROGRAM })
  const ask = (name: Syscall, ...args: (number | bigint)[]) => {
    const nr = numberOf(name, architecture)
    return nr === null ? 'none' : answer(closed, { nr, args }, architecture)
  }
  const listed = Object.keys(SYSCALLS) as Syscall[]
  const some = 'socket socketpair clone execve kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo prlimit64 seccomp'.split(
    ' ',
  )
  some.push(
    ...'setpriority sched_setscheduler sched_setparam sched_setaffinity sched_setattr fcntl ioctl prctl'.split(' '),
  )

  test('denies each call that it names but for some, which it looks into', () => {
    const wrong = listed
      .filter(name => !some.includes(name))
      .filter(name => !['EPERM', 'ENOSYS', 'none'].includes(ask(name)))
    expect(wrong).toEqual([])
    expect(['clone3', 'io_uring_setup'].map(name => ask(name as Syscall))).toEqual(['ENOSYS', 'ENOSYS'])
  })

  test('lets the ordinary ones be', () => {
    const read = architecture === 'x64' ? 0 : 63
    const openat = architecture === 'x64' ? 257 : 56
    const accept4 = architecture === 'x64' ? 288 : 242
    for (const nr of [read, openat, accept4]) expect(answer(closed, { nr }, architecture)).toBe('allowed')
  })

  test.each([
    ['a socket of the file system', 'socket', [1, 0x80801], 'allowed'],
    ['a datagram of the file system, which could be sent to any', 'socket', [1, 0x80802], 'EPERM'],
    ['TCP', 'socket', [2, 1], 'EPERM'],
    ['TCP by IPv6', 'socket', [10, 1], 'EPERM'],
    ['UDP', 'socket', [2, 2], 'EPERM'],
    ['netlink', 'socket', [16, 3], 'EPERM'],
    ['vsock', 'socket', [40, 1], 'EPERM'],
    ['TCP, with bits that the kernel does not read', 'socket', [0x1_0000_0002n, 1], 'EPERM'],
    ['any connection', 'connect', [], 'EPERM'],
    ['a pair of sockets', 'socketpair', [1, 1], 'allowed'],
    ['a pair of sockets that close at execve', 'socketpair', [1, 0x80801], 'allowed'],
    ['a pair of datagrams', 'socketpair', [1, 2], 'EPERM'],
    ['a pair of datagrams that close at execve', 'socketpair', [1, 0x80802], 'EPERM'],
    ['a pair of packets', 'socketpair', [1, 5], 'EPERM'],
    ['a pair of others', 'socketpair', [30, 1], 'EPERM'],
    ['a pair of datagrams, which could be sent to any', 'socketpair', [1, 2], 'EPERM'],
    ['a thread', 'clone', [THREAD], 'allowed'],
    ['a process', 'clone', [17], 'EPERM'],
    ['a thread in a namespace of its own', 'clone', [THREAD | 0x10000000], 'EPERM'],
    ["the launcher's program", 'execve', [PROGRAM], 'allowed'],
    ['a program at another address', 'execve', [PROGRAM + 1n], 'EPERM'],
    ['a program at an address that is half the same', 'execve', [PROGRAM & 0xffffffffn], 'EPERM'],
    ['a signal to itself', 'kill', [PID, 9], 'allowed'],
    ['a signal to its thread', 'tgkill', [PID, PID + 1, 6], 'allowed'],
    ['a signal to another', 'kill', [PID + 1, 0], 'EPERM'],
    ['a signal to its group', 'kill', [0, 15], 'EPERM'],
    ['a signal to all', 'kill', [-1, 15], 'EPERM'],
    ['its limits', 'prlimit64', [0], 'allowed'],
    ['limits of another', 'prlimit64', [PID + 1], 'EPERM'],
    ['its priority', 'setpriority', [0, 0, 19], 'allowed'],
    ['its priority by its number', 'setpriority', [0, PID, 19], 'allowed'],
    ['the priority of another', 'setpriority', [0, PID + 1, 19], 'EPERM'],
    ['the priority of its group', 'setpriority', [1, 0, 19], 'EPERM'],
    ['the priority of its user', 'setpriority', [2, 0, 19], 'EPERM'],
    ['its processors', 'sched_setaffinity', [0], 'allowed'],
    ['processors of another', 'sched_setaffinity', [PID + 1], 'EPERM'],
    ['the scheduler of another', 'sched_setscheduler', [PID + 1], 'EPERM'],
    ['flags of a file', 'fcntl', [1, 4, 0x800], 'allowed'],
    ['whom a file signals', 'fcntl', [1, 8, PID + 1], 'EPERM'],
    ['what a file signals', 'fcntl', [1, 10, 9], 'EPERM'],
    ['the size of a terminal', 'ioctl', [1, 0x5413], 'allowed'],
    ['whom a socket signals', 'ioctl', [1, 0x8901], 'EPERM'],
    ['keys of a terminal', 'ioctl', [0, 0x5412], 'EPERM'],
    ['the name of a thread', 'prctl', [15], 'allowed'],
    ['to outlive its parent', 'prctl', [1, 0], 'EPERM'],
  ] as const)('%s', (_what, name, args, expected) => {
    expect(ask(name, ...args)).toBe(expected)
  })

  test('denies what goes by the numbers of another architecture', () => {
    expect(answer(closed, { nr: 0, arch: 0x40000003 }, architecture)).toBe('ENOSYS')
    const x32 = answer(closed, { nr: 0x40000000 }, architecture)
    expect(x32).toBe(architecture === 'x64' ? 'ENOSYS' : 'allowed')
  })
})

describe('the rights of Landlock', () => {
  test('are all that its version knows, and none that it refuses', () => {
    const bits = [1, 2, 3, 4, 5, 6, 7].map(abi => {
      const { files, tcp, scopes } = rightsOf(abi)
      return [files, tcp, scopes].map(mask => mask.toString(2).replaceAll('0', '').length)
    })
    expect(bits).toEqual([
      [13, 0, 0],
      [14, 0, 0],
      [15, 0, 0],
      [15, 2, 0],
      [16, 2, 0],
      [16, 2, 2],
      [16, 2, 2],
    ])
  })
})

describe('the sentence about the walls', () => {
  test('names what stands, and why something does not', () => {
    expect(describeWalls({ files: true, network: true, programs: true })).toBe(
      'walled from files, network and programs',
    )
    expect(describeWalls({ files: 'no Landlock here', network: true, programs: true })).toBe(
      'walled from network and programs; not from files: no Landlock here',
    )
    expect(describeWalls(allMissing('only Linux has them'))).toBe(
      'not from files, network and programs: only Linux has them',
    )
  })
})

describe('a wall that stood before', () => {
  const files = { files: true, network: 'refused', programs: 'refused' } as const
  test('is lost when it is missing now, whatever else stands', () => {
    expect(isLost(allMissing('none'), allMissing('none'))).toBe(false)
    expect(isLost(files, { files: true, network: true, programs: true })).toBe(false)
    expect(isLost(files, { files: 'ENOMEM', network: true, programs: true })).toBe(true)
  })

  test('is remembered', () => {
    expect(everStood(files, { files: 'ENOMEM', network: true, programs: 'no' })).toEqual({
      files: true,
      network: true,
      programs: 'no',
    })
  })
})
