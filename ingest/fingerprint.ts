/**
 * A fingerprint of 128 bits of a message: MurmurHash3_x86_128 (public domain, Austin Appleby), with random seeds and random
 * multipliers for each process. Its published collisions need the published multipliers, so no device can prepare a message
 * that is taken for one of another. Ten times cheaper than the cryptographic hashes of Node.
 */
export type Fingerprinter = (device: string, readings: string, print: Int32Array) => void

type Four = [number, number, number, number]

interface Scratch {
  readonly bytes: Uint8Array
  /** The same memory. */
  readonly words: Int32Array
}

/** Longer messages are hashed in a buffer of their own. */
const SCRATCH_BYTES = 64 * 1024
const BLOCK_BYTES = 16
/** The most that UTF-8 takes for one UTF-16 code unit. */
const UTF8_BYTES_MAX = 3

const encoder = new TextEncoder()

/** `random` gives whole numbers of 32 bits. The fingerprint is written into the first four words of `print`. */
export function openFingerprinter(random: () => number): Fingerprinter {
  const [s1, s2, s3, s4] = Array.from({ length: 4 }, () => random() | 0) as Four
  const [c1, c2, c3, c4] = Array.from({ length: 4 }, () => random() | 1) as Four
  const scratch = newScratch(SCRATCH_BYTES)

  return (device, readings, print) => {
    const bytesMax = device.length + 1 + readings.length * UTF8_BYTES_MAX + BLOCK_BYTES
    const { bytes, words } = bytesMax > SCRATCH_BYTES ? newScratch(bytesMax) : scratch
    hash(words, fill(bytes, device, readings), print)
  }

  function hash(words: Int32Array, length: number, print: Int32Array): void {
    let h1 = s1
    let h2 = s2
    let h3 = s3
    let h4 = s4
    const end = Math.ceil(length / BLOCK_BYTES) * 4
    for (let at = 0; at < end; at += 4) {
      h1 = (rotate(h1 ^ scramble(words[at] as number, c1, 15, c2), 19) + h2) | 0
      h1 = (Math.imul(h1, 5) + 0x561ccd1b) | 0
      h2 = (rotate(h2 ^ scramble(words[at + 1] as number, c2, 16, c3), 17) + h3) | 0
      h2 = (Math.imul(h2, 5) + 0x0bcaa747) | 0
      h3 = (rotate(h3 ^ scramble(words[at + 2] as number, c3, 17, c4), 15) + h4) | 0
      h3 = (Math.imul(h3, 5) + 0x96cd1c35) | 0
      h4 = (rotate(h4 ^ scramble(words[at + 3] as number, c4, 18, c1), 13) + h1) | 0
      h4 = (Math.imul(h4, 5) + 0x32ac3b17) | 0
    }
    h1 = (h1 ^ length) + (h2 ^ length) + (h3 ^ length) + (h4 ^ length)
    h2 = (h2 ^ length) + h1
    h3 = (h3 ^ length) + h1
    h4 = (h4 ^ length) + h1
    h1 = finish(h1)
    h2 = finish(h2)
    h3 = finish(h3)
    h4 = finish(h4)
    h1 = h1 + h2 + h3 + h4
    print[0] = h1
    print[1] = h2 + h1
    print[2] = h3 + h1
    print[3] = h4 + h1
  }
}

function newScratch(bytesMin: number): Scratch {
  const words = new Int32Array(Math.ceil(bytesMin / 4))
  return { words, bytes: new Uint8Array(words.buffer) }
}

/** Readings, NUL (which neither part can hold), device, and zeros to the end of the block. Returns the bytes before the zeros. */
function fill(bytes: Uint8Array, device: string, readings: string): number {
  let length = encoder.encodeInto(readings, bytes).written
  bytes[length++] = 0
  for (let at = 0; at < device.length; at++) bytes[length++] = device.charCodeAt(at)
  for (let at = length; at % BLOCK_BYTES !== 0; at++) bytes[at] = 0
  return length
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
