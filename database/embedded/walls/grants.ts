/**
 * What the engine's process may reach of the file system, and nothing else: its own folders, what it is made of, and the
 * few entries of the kernel by which Node and the engine size themselves. Paths come from the process that runs, not from
 * a list of a distribution.
 */
import { readFileSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** `read` lists nothing; `keep` reads, lists, writes, makes and removes; `engine` makes symbolic links, too, and `sockets` sockets. */
export type Rights = 'read' | 'run' | 'write' | 'keep' | 'engine' | 'sockets'

export interface Grant {
  readonly path: string
  readonly rights: Rights
}

/** Of the engine's data folder. Nothing else lies in them. */
export const OWN_FOLDERS = { engine: 'engine', tmp: 'keep' } as const satisfies Record<string, Rights>

export interface GrantOptions {
  /** The engine's data folder, absolute. */
  readonly folder: string
  readonly socketFolder: string
  /** Folders of programs, libraries and packages, which are only read. */
  readonly programs: readonly string[]
  readonly execPath: string
}

export function grantsOf({ folder, socketFolder, programs, execPath }: GrantOptions): Grant[] {
  const mapped = mappedFiles()
  return [
    ...Object.entries(OWN_FOLDERS).map(([name, rights]) => ({ path: join(folder, name), rights })),
    { path: socketFolder, rights: 'sockets' },
    ...programs.map(path => ({ path, rights: 'read' as const })),
    { path: realpathSync(execPath), rights: 'run' },
    ...mapped.filter(isLoader).map(path => ({ path, rights: 'run' as const })),
    ...librariesBeside(mapped.filter(isLibrary)).map(path => ({ path, rights: 'read' as const })),
    ...OF_SYSTEM,
    ...cgroupFiles().map(path => ({ path, rights: 'read' as const })),
  ]
}

export const OWN_THREADS = '/proc/self/task'

const OF_SYSTEM: readonly Grant[] = [
  { path: '/dev/null', rights: 'write' },
  { path: '/dev/urandom', rights: 'read' },
  { path: '/etc/ld.so.cache', rights: 'read' },
  { path: '/usr/share/zoneinfo/UTC', rights: 'read' },
  // Of FORMAT ORC.
  { path: '/usr/share/zoneinfo/GMT', rights: 'read' },
  { path: '/proc/meminfo', rights: 'read' },
  { path: '/proc/cpuinfo', rights: 'read' },
  { path: '/proc/stat', rights: 'read' },
  { path: '/proc/sys/vm/overcommit_memory', rights: 'read' },
  // Of each thread, how busy it is. Without them the engine throws, and writes down where, at the start of each query's
  // threads: half as much CPU again for a cheap SELECT. What else stands there of this process can be read with them.
  { path: OWN_THREADS, rights: 'read' },
  { path: '/proc/self/auxv', rights: 'read' },
  { path: '/proc/self/loginuid', rights: 'read' },
  { path: '/proc/self/maps', rights: 'read' },
  { path: '/proc/self/cgroup', rights: 'read' },
  { path: '/sys/devices/system/cpu/online', rights: 'read' },
  { path: '/sys/devices/system/cpu/possible', rights: 'read' },
  { path: '/sys/kernel/mm/transparent_hugepage/enabled', rights: 'read' },
]

/** Files that this process is made of: the C library and its like, and their loader. */
function mappedFiles(): string[] {
  const lines = readFileSync('/proc/self/maps', 'utf8').split('\n')
  return [...new Set(lines.map(line => line.slice(line.indexOf('/'))).filter(path => path.startsWith('/')))]
}

function isLoader(path: string): boolean {
  return /\/ld(-[^/]*|64)?\.so(\.[^/]*)?$/.test(path) || /\/ld-[\d.]+\.so$/.test(path)
}

function isLibrary(path: string): boolean {
  return /\.so(\.[\d.]+)?$/.test(path)
}

/** Parts of the C library that the engine names and node need not; of glibc 2.34 and newer they are empty. */
const OF_C_LIBRARY = ['libc.so.6', 'libm.so.6', 'libdl.so.2', 'librt.so.1', 'libpthread.so.0', 'libgcc_s.so.1']

/** These, and the C library's where they are: their folders hold what else is installed, and are not granted. */
function librariesBeside(mapped: readonly string[]): string[] {
  const folders = new Set(mapped.map(path => dirname(path)))
  return [...new Set([...mapped, ...[...folders].flatMap(folder => OF_C_LIBRARY.map(name => join(folder, name)))])]
}

const OF_CGROUP = ['memory.max', 'memory.high', 'memory.current', 'memory.stat', 'cpu.max', 'cpu.weight']
const OF_CGROUP_1 = {
  memory: ['memory.limit_in_bytes', 'memory.soft_limit_in_bytes', 'memory.usage_in_bytes', 'memory.stat'],
  cpu: ['cpu.cfs_quota_us', 'cpu.cfs_period_us'],
}

/** Limits of memory and CPU of this process, in its control groups and those above them. */
function cgroupFiles(): string[] {
  const groups = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n')
  return groups.flatMap(line => {
    const [, controllers = '', path = ''] = line.split(':')
    if (controllers === '') return within('/sys/fs/cgroup', path, OF_CGROUP)
    return Object.entries(OF_CGROUP_1).flatMap(([name, files]) =>
      controllers.split(',').includes(name) ? within(`/sys/fs/cgroup/${name}`, path, files) : [],
    )
  })
}

function within(root: string, path: string, files: readonly string[]): string[] {
  const found: string[] = []
  for (let group = join(root, path); group.startsWith(root); group = dirname(group)) {
    found.push(...files.map(file => join(group, file)))
  }
  return found
}
