/**
 * A disk whose power can be cut: ext4 in a file, told by an ioctl to stop as at that moment. What the file system had not
 * written is gone: files that were not synced, and names in folders that were not.
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

/** `_IOR('X', 125, __u32)` with EXT4_GOING_FLAGS_NOLOGFLUSH, of fs/ext4/ext4.h in Linux: xfstests cut power with it. */
const CUT =
  'open(my $dir, "<", $ARGV[0]) or die $!; my $flags = pack("I", 2); ioctl($dir, 0x8004587d, $flags) or die $!'

/** False where this user may not mount, as in most containers, or where a tool is not there. */
export async function canCutPower(): Promise<boolean> {
  let disk: CutDisk | null = null
  try {
    disk = openCutDisk(16)
    disk.cutPower()
    return true
  } catch {
    return false
  } finally {
    await disk?.remove()
  }
}

export function openCutDisk(megabytes: number): CutDisk {
  const place = mkdtempSync(join(tmpdir(), 'surgetank-disk-'))
  let file = join(place, 'disk')
  let restored = 0
  const dir = join(place, 'mounted')
  mkdirSync(dir)
  try {
    run('truncate', '-s', `${megabytes}M`, file)
    run('mkfs.ext4', '-q', '-F', file)
    mount()
  } catch (error) {
    rmSync(place, { recursive: true, force: true })
    throw error
  }
  return { dir, cutPower: () => run('perl', '-e', CUT, dir), restore, remove }

  /** The journal is written when something is synced, and not also because time has passed. */
  function mount(): void {
    run('mount', '-o', 'loop,commit=300', file, dir)
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
