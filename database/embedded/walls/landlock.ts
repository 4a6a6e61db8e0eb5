/**
 * The wall around files, by Landlock: every right that the kernel knows is taken, then some are given back for some paths
 * (docs.kernel.org/userspace-api/landlock.html). Looking up, `stat` and changing modes are no rights of Landlock: that a
 * file is there can be told from inside, what is in it cannot.
 *
 * Where the kernel's is new enough it closes TCP, abstract sockets and signals to others as well: those are the wall of
 * `seccomp.ts`, and are closed twice then.
 */
import { closeSync, openSync, statSync } from 'node:fs'
import { getSystemErrorName } from 'node:util'
import type { Grant, Rights } from './grants.ts'
import type { Libc } from './libc.ts'
import type { Wall } from './walls.ts'

const EXECUTE = 1n << 0n
const WRITE_FILE = 1n << 1n
const READ_FILE = 1n << 2n
const READ_DIR = 1n << 3n
const REMOVE_DIR = 1n << 4n
const REMOVE_FILE = 1n << 5n
const MAKE_DIR = 1n << 7n
const MAKE_REG = 1n << 8n
const MAKE_SOCK = 1n << 9n
const MAKE_SYM = 1n << 12n
const REFER = 1n << 13n
const TRUNCATE = 1n << 14n
const IOCTL_DEV = 1n << 15n

/** What a rule of a file, rather than of a folder, may give. */
const OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

const KEEP = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER

const RIGHTS: Readonly<Record<Rights, bigint>> = {
  read: READ_FILE,
  run: READ_FILE | EXECUTE,
  write: READ_FILE | WRITE_FILE | TRUNCATE,
  keep: KEEP,
  engine: KEEP | MAKE_SYM,
  sockets: KEEP | MAKE_SOCK,
}

const ABSTRACT_UNIX_SOCKET = 1n << 0n
const SIGNAL = 1n << 1n
const BIND_TCP = 1n << 0n
const CONNECT_TCP = 1n << 1n

/** Before it, no file can be renamed from one folder to another behind the wall, and the engine could drop no table. */
const ABI_MIN = 2
/** fcntl.h of Linux: names a file, and opens nothing of it. */
export const O_PATH = 0o10000000
const ENOSYS = -38
const EOPNOTSUPP = -95

export interface Handled {
  readonly files: bigint
  readonly tcp: bigint
  readonly scopes: bigint
}

/** Each right that a version of Landlock knows. Bits that a kernel does not know are refused by it. */
export function rightsOf(abi: number): Handled {
  const files = abi >= 5 ? 16n : abi >= 3 ? 15n : abi >= 2 ? 14n : 13n
  return {
    files: (1n << files) - 1n,
    tcp: abi >= 4 ? BIND_TCP | CONNECT_TCP : 0n,
    scopes: abi >= 6 ? ABSTRACT_UNIX_SOCKET | SIGNAL : 0n,
  }
}

/** Of this process from now on. What is granted and not there is passed over. */
export function raiseLandlock(libc: Libc, grants: readonly Grant[]): Wall {
  const abi = libc.createRuleset(null)
  if (abi < 0) return whyNot(abi)
  if (abi < ABI_MIN) return `the Landlock of this kernel is version ${abi}, and ${ABI_MIN} is needed (Linux 5.19)`
  const { files, tcp, scopes } = rightsOf(abi)
  const attributes = Buffer.alloc(24)
  attributes.writeBigUInt64LE(files, 0)
  attributes.writeBigUInt64LE(tcp, 8)
  attributes.writeBigUInt64LE(scopes, 16)
  const ruleset = libc.createRuleset(attributes)
  if (ruleset < 0) return whyNot(ruleset)
  for (const { path, rights } of grants) {
    const refused = grant(libc, ruleset, path, RIGHTS[rights] & files)
    if (refused < 0) return `${path} could not be granted: ${getSystemErrorName(refused)}`
  }
  const raised = libc.restrictSelf(ruleset)
  closeSync(ruleset)
  return raised < 0 ? whyNot(raised) : true
}

function grant(libc: Libc, ruleset: number, path: string, rights: bigint): number {
  let fd: number
  try {
    fd = openSync(path, O_PATH)
  } catch {
    return 0
  }
  try {
    const rule = Buffer.alloc(12)
    rule.writeBigUInt64LE(statSync(path).isDirectory() ? rights : rights & OF_FILES, 0)
    rule.writeInt32LE(fd, 8)
    return libc.addPathRule(ruleset, rule)
  } finally {
    closeSync(fd)
  }
}

function whyNot(error: number): string {
  switch (error) {
    case ENOSYS:
      return 'this kernel has no Landlock, or a container profile hides it'
    case EOPNOTSUPP:
      return 'Landlock is not switched on in this kernel (its list `lsm=` lacks it)'
    default:
      return `Landlock is refused: ${getSystemErrorName(error)}`
  }
}
