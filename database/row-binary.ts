/**
 * Rows of `readings` in ClickHouse's RowBinary format: what the writers build and the database inserts.
 *
 * Invariant: the columns are written in the order of READINGS_COLUMNS, which is that of schema/004-microseconds.sql.
 * RowBinary: LEB128 length and bytes for a string, little-endian numbers, a flag byte before a nullable value.
 */
import { KIND, type Reading, type Value } from '../model/reading.ts'
import type { RowBlock } from './database.ts'

/** The columns of a block, in order. */
export const READINGS_COLUMNS =
  'device, metric, ts, kind, value, value_str, received_delta, sent_delta, source, source_position, source_index'

const FIRST_CHUNK_BYTES = 64 * 1024
const CHUNK_BYTES = 1024 * 1024
/** Names kept in encoded form, by all blocks; beyond it they are encoded anew. */
const NAMES_MAX = 65_536
/** All columns but the three names and the text: 3 Int64, UInt64, UInt32, Int8, 2 flags and Float64, the length of the text. */
const FIXED_BYTES = 64

const names = new Map<string, Uint8Array>()

/** One reading and where it stands in the log. */
export interface ReadingRow {
  readonly device: string
  readonly reading: Reading
  readonly source: string
  /** The chunk of the source. */
  readonly position: number
  /** The place of the reading in its chunk. */
  readonly index: number
}

/** Collects rows into one block. */
export interface RowBlockBuilder {
  /** Rows and bytes added so far. */
  readonly rows: number
  readonly bytes: number
  add(row: ReadingRow): void
  /** The block; it may be inserted any number of times. The builder is done then. */
  finish(): RowBlock
}

/** Text must be well-formed UTF-16: a lone surrogate has no UTF-8 and would be stored changed; ingest refuses it [G3]. */
export function openRowBlock(): RowBlockBuilder {
  return new RowWriter()
}

class RowWriter implements RowBlockBuilder {
  rows = 0
  #bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_CHUNK_BYTES)
  #view: DataView = new DataView(this.#bytes.buffer)
  #at = 0
  #full: Uint8Array[] = []
  #fullBytes = 0

  get bytes(): number {
    return this.#fullBytes + this.#at
  }

  add({ device, reading, source, position, index }: ReadingRow): void {
    const { metric, ts, receivedAt, value, sentTs } = reading
    const encodedDevice = names.get(device) ?? encodeName(device)
    const encodedMetric = names.get(metric) ?? encodeName(metric)
    const encodedSource = names.get(source) ?? encodeName(source)
    const text = typeof value === 'string' ? value : typeof value === 'bigint' ? String(value) : ''
    this.#reserve(FIXED_BYTES + encodedDevice.length + encodedMetric.length + encodedSource.length + text.length * 3)
    this.#copy(encodedDevice)
    this.#copy(encodedMetric)
    this.#int64(ts)
    this.#value(value)
    this.#text(text)
    this.#int64(receivedAt - ts)
    this.#sentDelta(ts, sentTs)
    this.#copy(encodedSource)
    this.#int64(position)
    this.#view.setUint32(this.#at, index, true)
    this.#at += 4
    this.rows++
  }

  finish(): RowBlock {
    return { rows: this.rows, bytes: [...this.#full, this.#bytes.subarray(0, this.#at)] }
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    this.#full.push(this.#bytes.subarray(0, this.#at))
    this.#fullBytes += this.#at
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(CHUNK_BYTES, bytes))
    this.#view = new DataView(this.#bytes.buffer)
    this.#at = 0
  }

  /** A loop, not `set`: names are short, and the call costs more than the bytes. */
  #copy(encoded: Uint8Array): void {
    const bytes = this.#bytes
    let at = this.#at
    for (let i = 0; i < encoded.length; i++) bytes[at++] = encoded[i] as number
    this.#at = at
  }

  #int64(value: number): void {
    this.#view.setUint32(this.#at, value, true)
    this.#view.setInt32(this.#at + 4, Math.floor(value / 0x1_0000_0000), true)
    this.#at += 8
  }

  /** The column sent_delta: NULL for none. */
  #sentDelta(ts: number, sentTs: number | null): void {
    this.#bytes[this.#at++] = sentTs === null ? 1 : 0
    if (sentTs === null) return
    if (Number.isSafeInteger(sentTs)) this.#int64(sentTs - ts)
    else {
      this.#view.setBigInt64(this.#at, exactMicros(sentTs) - BigInt(ts), true)
      this.#at += 8
    }
  }

  /** The columns kind and value. */
  #value(value: Value): void {
    switch (typeof value) {
      case 'number':
        this.#number(KIND.number, value)
        break
      case 'boolean':
        this.#number(KIND.bool, value ? 1 : 0)
        break
      case 'bigint':
        this.#number(KIND.integer, Number(value))
        break
      default:
        this.#bytes[this.#at++] = value === null ? KIND.null : KIND.string
        this.#bytes[this.#at++] = 1
    }
  }

  #number(kind: number, value: number): void {
    this.#bytes[this.#at++] = kind
    this.#bytes[this.#at++] = 0
    this.#view.setFloat64(this.#at, value, true)
    this.#at += 8
  }

  #text(text: string): void {
    if (text.length === 0) {
      this.#bytes[this.#at++] = 0
      return
    }
    for (const byte of leb128(Buffer.byteLength(text, 'utf8'))) this.#bytes[this.#at++] = byte
    this.#at += this.#bytes.write(text, this.#at, 'utf8')
  }
}

/** A time beyond the year 2255 comes from a log that held whole ms, and the product is only near: the ms are found again. */
function exactMicros(micros: number): bigint {
  return BigInt(Math.round(micros / 1_000)) * 1_000n
}

/** The length and the UTF-8 of a name, kept for the rows to come. */
function encodeName(name: string): Uint8Array {
  if (names.size >= NAMES_MAX) names.clear()
  const text = Buffer.from(name, 'utf8')
  const encoded = Uint8Array.from([...leb128(text.length), ...text])
  names.set(name, encoded)
  return encoded
}

/** An unsigned length in LEB128: seven bits a byte, least first, the high bit on all but the last. */
function leb128(length: number): number[] {
  const bytes: number[] = []
  let rest = length
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80)
    rest >>>= 7
  }
  bytes.push(rest)
  return bytes
}
