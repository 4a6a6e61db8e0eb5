/** A log as the version before format 2 left it: the bytes are packed here, because no code of ours writes them any more. */
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { type Env, openEnv } from '../../pump/lmdb-env.ts'
import { chunkKey } from '../../pump/lmdb-log.ts'
import { sealJson, unseal } from '../../pump/sealed.ts'
import { RECEIVED_AT } from '../contracts/pump-samples.ts'

const META_KEY = Buffer.from('m')
const HEADER_BYTES = 64

/** Of one message and one reading. Lines of format 1 count in ms. */
export function lineOfFormat1(number: number): string {
  return `{"device":"press-1","receivedAt":${RECEIVED_AT + number},"readings":[["temperature",null,${number}]]}`
}

/** Makes a log of `chunks` chunks of one line each, and of so many quarantined messages ever, the last of which is kept. */
export async function makeLogOfFormat1(dir: string, chunks: number, quarantined: number): Promise<void> {
  const env = openLogEnv(dir)
  await env.write(db => {
    let bytes = 0
    for (let position = 0; position < chunks; position++) {
      const key = chunkKey(position, 'header')
      const lines = Buffer.from(lineOfFormat1(position))
      db.putSync(key, headerOf(key, { version: 1, length: HEADER_BYTES, position, bytesBefore: bytes, lines }))
      db.putSync(chunkKey(position, 'lines'), lines)
      bytes += 500
    }
    const sums = { readings: chunks, bytes, bytesTrimmed: 0, bytesMax: 1 << 20 }
    const quarantine = { quarantineFirst: quarantined, quarantineEnd: quarantined + 1, quarantineBytes: 0 }
    db.putSync(META_KEY, sealJson({ format: 1, logId: 'aabbccddeeff', first: 0, end: chunks, ...sums, ...quarantine }))
  })
  await env.close()
}

/**
 * Puts another header in the place of a chunk's: as a version would that nobody knows yet, when it says so; or received so
 * many ms later.
 */
export async function putHeader(
  dir: string,
  position: number,
  version: number,
  length: number,
  laterMs = 0,
): Promise<void> {
  const env = openLogEnv(dir)
  await env.write(db => {
    const key = chunkKey(position, 'header')
    const lines = db.getBinary(chunkKey(position, 'lines')) ?? Buffer.alloc(0)
    db.putSync(key, headerOf(key, { version, length, position, bytesBefore: 0, lines, laterMs }))
  })
  await env.close()
}

/** The log's own record, as it stands on disk. */
export async function metaOnDisk(dir: string): Promise<Record<string, unknown>> {
  const env = openLogEnv(dir)
  const text = await env.read(db => unseal(db.getBinary(META_KEY) ?? Buffer.alloc(0), 'meta').toString())
  await env.close()
  return JSON.parse(text ?? '{}') as Record<string, unknown>
}

/** Changes the log's own record as another version would. */
export async function changeMeta(dir: string, change: Record<string, unknown>): Promise<void> {
  const before = await metaOnDisk(dir)
  const env = openLogEnv(dir)
  await env.write(db => db.putSync(META_KEY, sealJson({ ...before, ...change })))
  await env.close()
}

function openLogEnv(dir: string): Env {
  return openEnv({ path: join(dir, 'log'), writable: true, mapBytes: 1 << 28 })
}

interface Header {
  readonly version: number
  readonly length: number
  readonly position: number
  readonly bytesBefore: number
  readonly lines: Buffer
  readonly laterMs?: number
}

function headerOf(key: Buffer, { version, length, position, bytesBefore, lines, laterMs = 0 }: Header): Buffer {
  const numbers = Buffer.alloc(Math.max(length, HEADER_BYTES))
  numbers.writeUInt8(version, 4)
  numbers.writeUInt32BE(1, 8)
  numbers.writeUInt32BE(1, 12)
  numbers.writeDoubleBE(RECEIVED_AT + position + laterMs, 16)
  numbers.writeDoubleBE(RECEIVED_AT + position + laterMs, 24)
  numbers.writeDoubleBE(position, 32)
  numbers.writeDoubleBE(bytesBefore, 40)
  numbers.writeUInt32BE(500, 48)
  numbers.writeUInt32BE(crc32(lines, crc32(key)), 52)
  const bytes = numbers.subarray(0, length)
  bytes.writeUInt32BE(crc32(bytes.subarray(4), crc32(key)), 0)
  return bytes
}
