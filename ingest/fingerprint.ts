/**
 * A fingerprint of 128 bits of a message: MurmurHash3_x86_128 (public domain, Austin Appleby), with random seeds and random
 * multipliers for each process. Its published collisions need the published multipliers, so no device can prepare a message
 * that is taken for one of another. Ten times cheaper than the cryptographic hashes of Node.
 */
import { LIMITS } from '../model/limits.ts'

export type Fingerprinter = (device: string, readings: Uint8Array, from: number, to: number, print: Int32Array) => void

type Four = [number, number, number, number]

const BLOCK_BYTES = 16
/** Of two for each character of a device id. */
const DEVICE_UNITS_MAX = 2 * LIMITS.deviceIdCharsMax

/**
 * `random` gives whole numbers of 32 bits. Takes the readings as they stand in a line, UTF-8 from `from` up to `to`, and the
 * device, of 256 UTF-16 units at most; the fingerprint is written into the first four words of `print`.
 */
export function openFingerprinter(random: () => number): Fingerprinter {
  const seeds = Array.from({ length: 4 }, () => random() | 0) as Four
  const [c1, c2, c3, c4] = Array.from({ length: 4 }, () => random() | 1) as Four
  const rest = new Uint8Array(BLOCK_BYTES)
  const name = new Uint8Array(2 * DEVICE_UNITS_MAX)

  return (device, readings, from, to, print) => {
    for (let word = 0; word < 4; word++) print[word] = seeds[word] as number
    absorb(print, readings, from, to)
    absorb(print, name, 0, nameBytes(device))
    finishAll(print, to - from, device.length)
  }

  /**
   * Puts the device into `name` and returns how many bytes it takes: the low ones of its units, and behind them the high ones,
   * unless all of these are 0.
   */
  function nameBytes(device: string): number {
    const units = Math.min(device.length, DEVICE_UNITS_MAX)
    let high = 0
    for (let at = 0; at < units; at++) {
      const unit = device.charCodeAt(at)
      name[at] = unit
      high |= unit
    }
    if (high <= 0xff) return units
    for (let at = 0; at < units; at++) name[units + at] = device.charCodeAt(at) >>> 8
    return 2 * units
  }

  /** Mixes bytes in, block by block, the last one filled up with zeros; their number is mixed in at the end. */
  function absorb(state: Int32Array, bytes: Uint8Array, from: number, to: number): void {
    let h1 = state[0] as number
    let h2 = state[1] as number
    let h3 = state[2] as number
    let h4 = state[3] as number
    for (let start = from; start < to; start += BLOCK_BYTES) {
      const isWhole = start + BLOCK_BYTES <= to
      const block = isWhole ? bytes : fillRest(bytes, start, to)
      const at = isWhole ? start : 0
      h1 = (rotate(h1 ^ scramble(word(block, at), c1, 15, c2), 19) + h2) | 0
      h1 = (Math.imul(h1, 5) + 0x561ccd1b) | 0
      h2 = (rotate(h2 ^ scramble(word(block, at + 4), c2, 16, c3), 17) + h3) | 0
      h2 = (Math.imul(h2, 5) + 0x0bcaa747) | 0
      h3 = (rotate(h3 ^ scramble(word(block, at + 8), c3, 17, c4), 15) + h4) | 0
      h3 = (Math.imul(h3, 5) + 0x96cd1c35) | 0
      h4 = (rotate(h4 ^ scramble(word(block, at + 12), c4, 18, c1), 13) + h1) | 0
      h4 = (Math.imul(h4, 5) + 0x32ac3b17) | 0
    }
    state[0] = h1
    state[1] = h2
    state[2] = h3
    state[3] = h4
  }

  function fillRest(bytes: Uint8Array, from: number, to: number): Uint8Array {
    for (let at = 0; at < BLOCK_BYTES; at++) rest[at] = from + at < to ? (bytes[from + at] as number) : 0
    return rest
  }
}

/** Both lengths go in, so that it is told where the readings end and the device begins. */
function finishAll(state: Int32Array, readingsBytes: number, deviceChars: number): void {
  const h1 = (state[0] as number) ^ readingsBytes
  const h2 = (state[1] as number) ^ deviceChars
  const h3 = (state[2] as number) ^ readingsBytes
  const h4 = (state[3] as number) ^ deviceChars
  const sum = (h1 + h2 + h3 + h4) | 0
  const [f1, f2, f3, f4] = [finish(sum), finish((h2 + sum) | 0), finish((h3 + sum) | 0), finish((h4 + sum) | 0)]
  const all = (f1 + f2 + f3 + f4) | 0
  state[0] = all
  state[1] = f2 + all
  state[2] = f3 + all
  state[3] = f4 + all
}

/** Little-endian, from any place. */
function word(bytes: Uint8Array, at: number): number {
  const low = (bytes[at] as number) | ((bytes[at + 1] as number) << 8)
  return low | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24)
}

function scramble(word: number, first: number, turn: number, second: number): number {
  return Math.imul(rotate(Math.imul(word, first), turn), second)
}

function rotate(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by))
}

function finish(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return mixed ^ (mixed >>> 16)
}
