/**
 * The border to the C library: the few calls that raise walls, typed, and nothing else of it. koffi makes them, and is
 * loaded by the launcher only; no process that serves anybody can call into C this way.
 *
 * Each call gives what the kernel gave: 0 or more, or the negative error number, such as -38 for ENOSYS.
 */
import koffi from 'koffi'

export interface Libc {
  /** landlock_create_ruleset(2): with null the version of the kernel's Landlock, else a file descriptor. */
  createRuleset(attributes: Buffer | null): number
  /** landlock_add_rule(2) of what stands beneath a path. */
  addPathRule(ruleset: number, attributes: Buffer): number
  /** landlock_restrict_self(2) of this thread, and of what it becomes and starts. */
  restrictSelf(ruleset: number): number
  /** prctl(2): no program that is run gives more rights. Without it an ordinary user may raise neither wall. */
  forbidNewPrivileges(): number
  /** prctl(2): the kernel ends this process, and what it becomes, with the thread that forked it. */
  dieWithParent(): number
  /** seccomp(2) of this thread, and of what it becomes and starts. */
  addFilter(program: Buffer): number
  /** fcntl(2): whether an open file stays open for the program that is run next. */
  setCloseOnExec(fd: number, close: boolean): number
  /** The text in memory that neither moves nor ends: its address names it to a filter. */
  pin(text: string): PinnedText
  /** execve(2): comes back only when it failed. */
  execute(path: PinnedText, args: readonly string[], environment: Readonly<Record<string, string>>): number
}

export interface PinnedText {
  readonly text: string
  readonly address: bigint
  readonly pointer: unknown
}

/** The same on x86_64 and aarch64. */
const LANDLOCK_CREATE_RULESET = 444
const LANDLOCK_ADD_RULE = 445
const LANDLOCK_RESTRICT_SELF = 446
const RULESET_VERSION = 1
const RULE_PATH_BENEATH = 1
const SECCOMP_SET_MODE_FILTER = 1
const PR_SET_NO_NEW_PRIVS = 38
const PR_SET_PDEATHSIG = 1
const SIGKILL = 9
const F_SETFD = 2
const FD_CLOEXEC = 1
const INSTRUCTION_BYTES = 8

/** Throws where there is no GNU C library, or no koffi for this machine. */
export function openLibc(seccompNumber: number): Libc {
  const libc = koffi.load('libc.so.6')
  const landlock = libc.func('long syscall(long number, void *attributes, size_t size, uint32_t flags)')
  const addRule = libc.func('long syscall(long number, int ruleset, int kind, void *attributes, uint32_t flags)')
  const restrict = libc.func('long syscall(long number, int ruleset, uint32_t flags)')
  const seccomp = libc.func('long syscall(long number, uint32_t operation, uint32_t flags, void *program)')
  const prctl = libc.func('int prctl(int option, ulong a, ulong b, ulong c, ulong d)')
  const fcntl = libc.func('int fcntl(int fd, int command, int value)')
  const execve = libc.func('int execve(void *path, const char **args, const char **environment)')
  return {
    createRuleset: attributes =>
      attributes === null
        ? given(landlock(LANDLOCK_CREATE_RULESET, null, 0, RULESET_VERSION))
        : given(landlock(LANDLOCK_CREATE_RULESET, attributes, attributes.length, 0)),
    addPathRule: (ruleset, attributes) => given(addRule(LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, attributes, 0)),
    restrictSelf: ruleset => given(restrict(LANDLOCK_RESTRICT_SELF, ruleset, 0)),
    forbidNewPrivileges: () => given(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
    dieWithParent: () => given(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)),
    addFilter: program => given(seccomp(seccompNumber, SECCOMP_SET_MODE_FILTER, 0, filterOf(program))),
    setCloseOnExec: (fd, close) => given(fcntl(fd, F_SETFD, close ? FD_CLOEXEC : 0)),
    pin,
    execute: (path, args, environment) =>
      given(execve(path.pointer, [...args, null], [...Object.entries(environment).map(([k, v]) => `${k}=${v}`), null])),
  }
}

/** `struct sock_fprog`: how many instructions, and where. The memory is left: this process is another one soon. */
function filterOf(program: Buffer): Buffer {
  const instructions = koffi.alloc('uint8_t', program.length)
  koffi.encode(instructions, 'uint8_t', [...program], program.length)
  const filter = Buffer.alloc(16)
  filter.writeUInt16LE(program.length / INSTRUCTION_BYTES, 0)
  filter.writeBigUInt64LE(koffi.address(instructions), 8)
  return filter
}

function pin(text: string): PinnedText {
  const bytes = Buffer.from(`${text}\0`)
  const pointer = koffi.alloc('uint8_t', bytes.length)
  koffi.encode(pointer, 'uint8_t', [...bytes], bytes.length)
  return { text, address: koffi.address(pointer), pointer }
}

function given(result: number): number {
  return result === -1 ? -koffi.errno() : result
}
