/** A disk of a few hundred MB for one system: a tmpfs in a user namespace, which ends with the processes in it. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'

/** Words that start a program with a disk of `megabytes` mounted at `dir`, in its own process. */
export function onDiskOf(megabytes: number, dir: string): string[] {
  const mount = `mount -t tmpfs -o size=${megabytes}m tmpfs "$0" && exec "$@"`
  return ['unshare', '-Urm', 'sh', '-c', mount, dir]
}

/** Words that start a program that sees the disks of the process `pid`. */
export function besides(pid: number): string[] {
  return ['nsenter', '-t', String(pid), '-U', '-m', '--preserve-credentials']
}

export function canMount(): boolean {
  try {
    const [command = '', ...args] = ['unshare', '-Urm', 'sh', '-c', 'mount -t tmpfs -o size=1m tmpfs /mnt']
    execFileSync(command, args, { stdio: 'ignore' })
    execFileSync('nsenter', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

export interface Filler {
  /** Takes what is left of the disk; returns the bytes taken. */
  fill(): number
  remove(): void
}

const BLOCK = Buffer.alloc(64 * 1024, 1)
const SECTOR = 4096

/** A file on the disk of the process `pid`. */
export function openFiller(pid: number, dir: string): Filler {
  const path = `/proc/${pid}/root${dir}/filler`
  return { fill, remove: () => rmSync(path, { force: true }) }

  function fill(): number {
    const file = openSync(path, 'a')
    try {
      return writeUntilFull(file, BLOCK.length) + writeUntilFull(file, SECTOR)
    } finally {
      closeSync(file)
    }
  }
}

function writeUntilFull(file: number, bytes: number): number {
  for (let written = 0; ; ) {
    try {
      written += writeSync(file, BLOCK, 0, bytes)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return written
      throw error
    }
  }
}
