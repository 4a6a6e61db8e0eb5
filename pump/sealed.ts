/** Bytes with their checksum before them: what a bit flip or a torn write has changed is never taken for what was kept. */
import { crc32 } from 'node:zlib'
import { SurgetankError } from '../errors.ts'

const CRC_BYTES = 4

export function seal(bytes: Uint8Array): Buffer {
  const sealed = Buffer.allocUnsafe(CRC_BYTES + bytes.length)
  sealed.writeUInt32BE(crc32(bytes), 0)
  sealed.set(bytes, CRC_BYTES)
  return sealed
}

export function sealJson(value: unknown): Buffer {
  return seal(Buffer.from(JSON.stringify(value)))
}

/** The bytes that were sealed. Throws `log_corrupt`, naming `what`, when they are not the same any more. */
export function unseal(sealed: Buffer, what: string): Buffer {
  const bytes = sealed.subarray(CRC_BYTES)
  if (sealed.length < CRC_BYTES || sealed.readUInt32BE(0) !== crc32(bytes)) {
    throw new SurgetankError('log_corrupt', `${what} is damaged on disk.`)
  }
  return bytes
}
