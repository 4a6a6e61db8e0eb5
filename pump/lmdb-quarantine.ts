/** Quarantined messages in the log's environment: kept as they came, the oldest making room for new ones. */
import { footprint } from './chunk.ts'
import type { Db } from './lmdb-env.ts'
import { type LogMeta, writePosition } from './lmdb-log.ts'
import type { QuarantineEntry, Refused } from './pump.ts'
import { seal, unseal } from './sealed.ts'

export interface QuarantineBounds {
  readonly bytesMax: number
  readonly pageBytes: number
}

/** Keeps the refused and removes the oldest beyond the bound; the newest one always stays. Returns what to put as meta. */
export function putRefused(db: Db, before: LogMeta, refused: readonly Refused[], bounds: QuarantineBounds): LogMeta {
  let { quarantineFirst, quarantineEnd, quarantineBytes } = before
  for (const message of refused) {
    const sealed = packRefused(message)
    db.putSync(quarantineKey(quarantineEnd++), sealed)
    quarantineBytes += footprint(sealed.length, bounds.pageBytes)
    while (quarantineBytes > bounds.bytesMax && quarantineFirst < quarantineEnd - 1) {
      const oldest = quarantineKey(quarantineFirst++)
      quarantineBytes -= footprint(db.getBinary(oldest)?.length ?? 0, bounds.pageBytes)
      db.removeSync(oldest)
    }
  }
  return { ...before, quarantineFirst, quarantineEnd, quarantineBytes }
}

/** Null when it is not held any more. Throws `log_corrupt`. */
export function readRefused(db: Db, number: number): QuarantineEntry | null {
  const sealed = db.getBinary(quarantineKey(number))
  if (sealed === undefined) return null
  const bytes = unseal(sealed, `The quarantined message m${number}`)
  const headEnd = 4 + bytes.readUInt32BE(0)
  const head = JSON.parse(bytes.subarray(4, headEnd).toString()) as Omit<Refused, 'payload'>
  const payload = bytes.subarray(headEnd)
  // Without a size, as every entry of an older version is: all of it was kept.
  const { topic, payloadBytes: bytesTotal = payload.length, ...about } = head
  return { id: `m${number}`, where: topic, ...about, bytes: payload, bytesTotal }
}

function packRefused({ payload, receivedAt, device, topic, reason, detail, payloadBytes }: Refused): Buffer {
  const head = Buffer.from(JSON.stringify({ receivedAt, device, topic, reason, detail, payloadBytes }))
  const length = Buffer.allocUnsafe(4)
  length.writeUInt32BE(head.length)
  return seal(Buffer.concat([length, head, payload]))
}

function quarantineKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(9)
  key.write('q', 0)
  writePosition(key, number, 1)
  return key
}
