/**
 * What lies in the sessions' environment:
 *
 *   s principal 0 client      a checksum; 8 bytes: when the client was last known to be connected, ms since 1970 UTC as a
 *                             double; then the record (`record.ts`)
 *
 * The first bytes are the same in every version, so that a version that cannot read a record can still expire it.
 */
import type { Db, Env } from '../pump/lmdb-env.ts'
import { seal, unseal } from '../pump/sealed.ts'

export interface Head {
  readonly name: string
  readonly seenAt: number
  /** On disk. */
  readonly bytes: number
}

const BEGIN = 's'
const END = Buffer.from('t')
const TIME_BYTES = 8
const HEADS_OF_A_READ = 2_000
/** What a put takes on disk beside its bytes, about: a part of a page that is written anew. */
const PUT_BYTES = 256
/** What LMDB keeps of an entry beside its key and its value. */
const ENTRY_BYTES = 16

export function keyOf(name: string): Buffer {
  return Buffer.from(`${BEGIN}${name}`)
}

export function packValue(seenAt: number, text: string): Buffer {
  const time = Buffer.allocUnsafe(TIME_BYTES)
  time.writeDoubleBE(seenAt)
  return seal(Buffer.concat([time, Buffer.from(text)]))
}

/** The record's text. Throws `log_corrupt`. */
export function unpackValue(value: Uint8Array): string {
  return unseal(Buffer.from(value), 'A session').subarray(TIME_BYTES).toString()
}

export function bytesOf(name: string, value: Uint8Array): number {
  return Buffer.byteLength(name) + value.length + ENTRY_BYTES
}

/** One transaction; null removes what is there. */
export async function writeValues(env: Env, puts: readonly (readonly [string, Uint8Array | null])[]): Promise<void> {
  const keyed = puts.map(([name, value]) => [keyOf(name), value] as const)
  const bytes = keyed.reduce((sum, [key, value]) => sum + key.length + (value?.length ?? 0) + PUT_BYTES, 0)
  await env.write(db => {
    for (const [key, value] of keyed) value === null ? db.removeSync(key) : db.putSync(key, value as Buffer)
  }, bytes)
}

/** All sessions, in slices; those that are damaged are passed over. */
export async function* readHeads(env: Env): AsyncGenerator<Head[]> {
  for (let after: Buffer | null = keyOf(''); after !== null; ) {
    const from: Buffer = after
    const slice = await env.read(db => readSlice(db, from))
    yield slice?.heads ?? []
    after = slice?.last ?? null
  }
}

function readSlice(db: Db, from: Buffer): { heads: Head[]; last: Buffer | null } {
  const heads: Head[] = []
  let [last, seen] = [null as Buffer | null, 0]
  for (const { key, value } of db.getRange({ start: from, end: END, limit: HEADS_OF_A_READ })) {
    const copy = Buffer.from(key)
    if (copy.equals(from)) continue
    seen++
    last = copy
    const head = headOf(copy.subarray(BEGIN.length).toString(), value)
    if (head !== null) heads.push(head)
  }
  return { heads, last: seen === 0 ? null : last }
}

function headOf(name: string, value: Buffer): Head | null {
  try {
    const bytes = unseal(value, 'A session')
    return bytes.length < TIME_BYTES ? null : { name, seenAt: bytes.readDoubleBE(0), bytes: bytesOf(name, value) }
  } catch {
    return null
  }
}
