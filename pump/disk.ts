/**
 * The log's disk. There is no reserve file: the log leaves a part of its disk free instead, because only the writers make
 * room in it, and ClickHouse and the positions need disk to take what they write. Below that part the log still goes on
 * where it has ample room inside its own file, which never shrinks; else it could not begin again after it was drained.
 */
import { statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'

export interface Disk {
  /** Whether `bytes` more may be written while the file's values take `bytesUsed`. Looks at the disk once a second. */
  allows(bytes: number, bytesUsed: number): boolean
}

const FREE_BYTES_MIN = 256 * 1024 * 1024
/** A small disk leaves this part of itself. */
const FREE_PART_MIN = 0.05
const LOOK_MS = 1_000
/** Room inside the file is counted only when it is ample: what is free there may be in pieces. */
const ROOM_FACTOR = 4
const ROOM_BYTES_MIN = 1024 * 1024

/** `freeBytesMin` is what stays free; by default 256 MB, or a twentieth of a small disk. */
export function openDisk(path: string, freeBytesMin: number | undefined): Disk {
  let lookedAt = Number.NEGATIVE_INFINITY
  let aboveMin = false
  let fileBytes = 0

  return { allows }

  function allows(bytes: number, bytesUsed: number): boolean {
    if (performance.now() - lookedAt >= LOOK_MS) look()
    return aboveMin || fileBytes - bytesUsed > ROOM_FACTOR * bytes + ROOM_BYTES_MIN
  }

  function look(): void {
    lookedAt = performance.now()
    const disk = statfsSync(path)
    const min = freeBytesMin ?? Math.min(FREE_BYTES_MIN, disk.blocks * disk.bsize * FREE_PART_MIN)
    aboveMin = disk.bavail * disk.bsize >= min
    fileBytes = statSync(join(path, 'data.mdb')).size
  }
}
