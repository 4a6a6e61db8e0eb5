/**
 * The log's disk. There is no reserve file: the log leaves a part of its disk free instead, because only the writers make
 * room in it, and ClickHouse needs disk to take what they write. Pages inside the log's own file are not the disk's: they
 * are used again also when the disk is full to the last byte.
 */
import { statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'

export interface Disk {
  /** Whether `bytes` more may be written while the file's values take `bytesUsed`. Looks at the disk once a second. */
  allows(bytes: number, bytesUsed: number): boolean
}

const LOOK_MS = 1_000
/** Room inside the file is counted only when it is ample: what is free there may be in pieces. */
const ROOM_FACTOR = 4
const ROOM_BYTES_MIN = 1024 * 1024

export function openDisk(path: string, freeBytesMin: number): Disk {
  let lookedAt = Number.NEGATIVE_INFINITY
  let free = 0
  let fileBytes = 0

  return { allows }

  function allows(bytes: number, bytesUsed: number): boolean {
    if (performance.now() - lookedAt >= LOOK_MS) look()
    return free >= freeBytesMin || fileBytes - bytesUsed > ROOM_FACTOR * bytes + ROOM_BYTES_MIN
  }

  function look(): void {
    lookedAt = performance.now()
    const disk = statfsSync(path)
    free = disk.bavail * disk.bsize
    fileBytes = statSync(join(path, 'data.mdb')).size
  }
}
