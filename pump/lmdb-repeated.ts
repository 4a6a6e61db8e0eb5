/** Repetitions in the log's environment: a list of the newest, so that an operator sees what was taken for one. */
import { footprint } from './chunk.ts'
import type { Db } from './lmdb-env.ts'
import { type Counted, type LogMeta, writePosition } from './lmdb-log.ts'
import { REPEATED_PAYLOAD_BYTES_MAX, type Repeated, type RepeatedEntry } from './pump.ts'
import { seal, unseal } from './sealed.ts'

export interface RepeatedBounds {
  readonly countMax: number
  /** On disk. */
  readonly bytesMax: number
}

export const REPEATED_BOUNDS: RepeatedBounds = { countMax: 1_000, bytesMax: 4 * 1024 * 1024 }

/** Lists them, and removes the oldest beyond the bounds. Returns what to put as meta. */
export function putRepeated(
  db: Db,
  before: Counted,
  repeated: readonly Repeated[],
  pageBytes: number,
  { countMax, bytesMax }: RepeatedBounds = REPEATED_BOUNDS,
): Counted {
  if (repeated.length === 0) return before
  let { repeatedFirst, repeatedEnd, repeatedBytes } = before
  for (const message of repeated) {
    const sealed = packRepeated(message)
    db.putSync(repeatedKey(repeatedEnd++), sealed)
    repeatedBytes += footprint(sealed.length, pageBytes)
    while (repeatedEnd - repeatedFirst > countMax || (repeatedBytes > bytesMax && repeatedFirst < repeatedEnd - 1)) {
      const oldest = repeatedKey(repeatedFirst++)
      repeatedBytes -= footprint(db.getBinary(oldest)?.length ?? 0, pageBytes)
      db.removeSync(oldest)
    }
  }
  return { ...before, repeatedFirst, repeatedEnd, repeatedBytes }
}

/** Of a device, or of all; newest first. Throws `log_corrupt`. */
export function readRepeated(db: Db, meta: LogMeta, entriesMax: number, device: string | null): RepeatedEntry[] {
  const { repeatedFirst = 1, repeatedEnd = 1 } = meta.counted ?? {}
  const entries: RepeatedEntry[] = []
  for (let number = repeatedEnd - 1; number >= repeatedFirst && entries.length < entriesMax; number--) {
    const sealed = db.getBinary(repeatedKey(number))
    const entry = sealed === undefined ? null : unpackRepeated(sealed, number)
    if (entry !== null && (device === null || entry.device === device)) entries.push(entry)
  }
  return entries
}

/** What the list takes of the disk, before it is put there, about. */
export function repeatedBytes(repeated: readonly Repeated[]): number {
  return repeated.reduce((sum, { payload }) => sum + Math.min(payload.length, REPEATED_PAYLOAD_BYTES_MAX), 0)
}

function packRepeated({ payload, receivedAt, device, topic, why }: Repeated): Buffer {
  const head = Buffer.from(JSON.stringify({ receivedAt, device, topic, why, payloadBytes: payload.length }))
  const length = Buffer.allocUnsafe(4)
  length.writeUInt32BE(head.length)
  return seal(Buffer.concat([length, head, payload.subarray(0, REPEATED_PAYLOAD_BYTES_MAX)]))
}

function unpackRepeated(sealed: Buffer, number: number): RepeatedEntry {
  const bytes = unseal(sealed, `The repetition ${number}`)
  const headEnd = 4 + bytes.readUInt32BE(0)
  const about = JSON.parse(bytes.subarray(4, headEnd).toString()) as Omit<RepeatedEntry, 'payload'>
  return { ...about, payload: bytes.subarray(headEnd) }
}

function repeatedKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key.write('r', 0)
  writePosition(key, number, 1)
  return key
}
