/**
 * A disk whose power can be cut: a file system in a file, told by an ioctl to stop as at that moment. What it had not written
 * is gone: files that were not synced, and names in folders that were not.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { until } from '../waits.ts'

export interface CutDisk {
  readonly dir: string
  /** From here on nothing is written, and each write and sync fails. */
  cutPower(): void
  /** After all who used it were killed: what was written is there again. */
  restore(): Promise<void>
  remove(): Promise<void>
}

export type FileSystem = 'ext4' | 'xfs'

const MAKE = { ext4: ['mkfs.ext4', '-q', '-F'], xfs: ['mkfs.xfs', '-q', '-f'] } as const
/** The journal of ext4 is written when something is synced, and not also because time has passed. */
const MOUNT = { ext4: 'loop,commit=300', xfs: 'loop' }
/** XFS is made of 300 at least. */
const MEGABYTES = 2_048

/** `_IOR('X', 125, __u32)` with EXT4_GOING_FLAGS_NOLOGFLUSH, of fs/ext4/ext4.h in Linux; XFS has the same. xfstests cut power with it. */
const CUT =
  'open(my $dir, "<", $ARGV[0]) or die $!; my $flags = pack("I", 2); ioctl($dir, 0x8004587d, $flags) or die $!'

/** False where this user may not mount, as in most containers, or where a tool is not there. */
export async function canCutPower(fileSystem: FileSystem): Promise<boolean> {
  let disk: CutDisk | null = null
  try {
    disk = openCutDisk(fileSystem)
    disk.cutPower()
    return true
  } catch {
    return false
  } finally {
    await disk?.remove()
  }
}

export function openCutDisk(fileSystem: FileSystem): CutDisk {
  const place = mkdtempSync(join(tmpdir(), 'surgetank-disk-'))
  let file = join(place, 'disk')
  let restored = 0
  const dir = join(place, 'mounted')
  mkdirSync(dir)
  try {
    const [make, ...options] = MAKE[fileSystem]
    run('truncate', '-s', `${MEGABYTES}M`, file)
    run(make, ...options, file)
    mount()
  } catch (error) {
    rmSync(place, { recursive: true, force: true })
    throw error
  }
  return { dir, cutPower: () => run('perl', '-e', CUT, dir), restore, remove }

  function mount(): void {
    run('mount', '-o', MOUNT[fileSystem], file, dir)
  }

  /** Mounted from a copy: another process's namespace may still hold the file system that was stopped. */
  async function restore(): Promise<void> {
    await unmount()
    const stopped = file
    file = join(place, `disk-${++restored}`)
    run('cp', '--sparse=always', stopped, file)
    rmSync(stopped)
    mount()
  }

  async function remove(): Promise<void> {
    await unmount()
    rmSync(place, { recursive: true, force: true })
  }

  /** A process that was killed holds its files for a moment longer. */
  async function unmount(): Promise<void> {
    await until(() => spawnSync('umount', [dir]).status === 0, 'unmounted')
  }
}

function run(command: string, ...args: readonly string[]): void {
  execFileSync(command, args, { stdio: 'ignore' })
}
