/**
 * CRC-32C (Castagnoli), the checksum of a Kafka record batch; Node has only CRC-32. Eight bytes at a time by eight tables
 * ("slicing by 8", Kounavis and Berry, 2005), two to three times as fast as byte by byte.
 */
const POLYNOMIAL_REVERSED = 0x82f63b78

const T0 = firstTable()
const T1 = nextTable(T0)
const T2 = nextTable(T1)
const T3 = nextTable(T2)
const T4 = nextTable(T3)
const T5 = nextTable(T4)
const T6 = nextTable(T5)
const T7 = nextTable(T6)

/** Of the bytes from `from` on; a whole number from 0 to 2^32 − 1. */
export function crc32c(bytes: Uint8Array, from = 0): number {
  let crc = -1
  let at = from
  for (const last = bytes.length - 8; at <= last; at += 8) {
    const low = byteOf(bytes, at) | (byteOf(bytes, at + 1) << 8)
    const first = crc ^ (low | (byteOf(bytes, at + 2) << 16) | (byteOf(bytes, at + 3) << 24))
    crc =
      of(T7, first) ^
      of(T6, first >>> 8) ^
      of(T5, first >>> 16) ^
      of(T4, first >>> 24) ^
      of(T3, byteOf(bytes, at + 4)) ^
      of(T2, byteOf(bytes, at + 5)) ^
      of(T1, byteOf(bytes, at + 6)) ^
      of(T0, byteOf(bytes, at + 7))
  }
  for (; at < bytes.length; at++) crc = of(T0, crc ^ byteOf(bytes, at)) ^ (crc >>> 8)
  return ~crc >>> 0
}

function byteOf(bytes: Uint8Array, at: number): number {
  return bytes[at] as number
}

function of(table: Int32Array, value: number): number {
  return table[value & 0xff] as number
}

/** What a last byte does to the checksum. */
function firstTable(): Int32Array {
  return Int32Array.from({ length: 256 }, (_, value) => {
    let crc = value
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL_REVERSED : crc >>> 1
    return crc
  })
}

/** What a byte does that one byte more follows than in `table`. */
function nextTable(table: Int32Array): Int32Array {
  return table.map(crc => (crc >>> 8) ^ of(T0, crc))
}
