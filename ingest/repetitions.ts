/**
 * The window of recent messages, so that what a device sends again is stored once.
 *
 * A device that did not see its PUBACK sends the message again, often after our restart. Such a message is recognised by
 * its device and its encoded readings, and only when every reading carries the device's own time: two equal messages
 * without one may be two measurements, so they are always stored. (MQTT's DUP flag proves nothing: a client sets it on
 * messages that never arrived, too.) At start the window is filled from the end of the log.
 *
 * Memory is fixed: two generations of ENTRIES_MAX fingerprints, 25 MB. When the younger is full, the older is forgotten:
 * the last ENTRIES_MAX to 2 × ENTRIES_MAX messages are known, and what is older and sent again is stored again.
 *
 * A wrong match would lose a reading. A fingerprint has 96 bits, so against 2^20 entries a message matches wrongly with a
 * probability below 2^20 × 2^-96 = 2^-76; at 100,000 messages a second for ten years (2^45) that is below 2^-31 in all.
 */
import { openFingerprinter } from './fingerprint.ts'

export interface Repetitions {
  /**
   * True when this message is in the window; else it is put there. `bytes` hold, from `from` up to `to`, what `encodeReadings`
   * wrote; each reading must have the device's own time.
   */
  remember(device: string, bytes: Buffer, from: number, to: number): boolean
  /** Puts lines of the log into the window, oldest first. */
  rememberLines(lines: Buffer): void
}

const ENTRIES_MAX = 2 ** 19
/** 32-bit words of a fingerprint; the first is never 0, which stands for a free place. */
const WORDS = 3

const NEWLINE = 0x0a
const LINE_HEAD = '{"device":"'
const LINE_READINGS = ',"readings":'
/** Stands in a line when a reading has no time of its own. A text that holds it makes its line unknown, which is harmless. */
const WITHOUT_TIME = '",null,'

interface Generation {
  readonly words: Int32Array
  entries: number
}

/** `random` gives whole numbers of 32 bits, such as `() => randomInt(2 ** 32)`; `entriesMax` a power of two. */
export function openRepetitions(random: () => number, entriesMax = ENTRIES_MAX): Repetitions {
  const fingerprint = openFingerprinter(random)
  const print = new Int32Array(4)
  let young = newGeneration(entriesMax)
  let old = newGeneration(entriesMax)

  return { remember, rememberLines }

  function remember(device: string, bytes: Buffer, from: number, to: number): boolean {
    fingerprint(device, bytes, from, to, print)
    if (print[0] === 0) print[0] = 1
    if (isTaken(old, find(old, print))) return true
    const place = find(young, print)
    if (isTaken(young, place)) return true
    if (young.entries < entriesMax) add(place)
    else {
      turn()
      add(find(young, print))
    }
    return false
  }

  function turn(): void {
    const forgotten = old
    old = young
    young = forgotten
    young.words.fill(0)
    young.entries = 0
  }

  function add(place: number): void {
    for (let word = 0; word < WORDS; word++) young.words[place + word] = print[word] as number
    young.entries++
  }

  function rememberLines(lines: Buffer): void {
    for (let from = 0; from < lines.length; ) {
      const newline = lines.indexOf(NEWLINE, from)
      const to = newline === -1 ? lines.length : newline
      rememberLine(lines.subarray(from, to))
      from = to + 1
    }
  }

  /** The line is cut where its parts are known to be: parsing everything that a restart reads would hold it up. */
  function rememberLine(line: Buffer): void {
    const deviceEnd = line.indexOf('"', LINE_HEAD.length)
    const head = line.indexOf(LINE_READINGS, deviceEnd)
    if (head === -1 || line.includes(WITHOUT_TIME)) return
    remember(line.toString('latin1', LINE_HEAD.length, deviceEnd), line, head + LINE_READINGS.length, line.length - 1)
  }
}

/** Written once at start, so that a spike later does not grow the process by it. */
function newGeneration(entriesMax: number): Generation {
  return { words: new Int32Array(entriesMax * 2 * WORDS).fill(0), entries: 0 }
}

/** Where this fingerprint stands, or the free place where it would. There is one: half of all places are free. */
function find(generation: Generation, print: Int32Array): number {
  const { words } = generation
  const first = print[0]
  const second = print[1]
  const third = print[2]
  const size = words.length
  let at = (((print[3] as number) >>> 0) % (size / WORDS)) * WORDS
  for (;;) {
    const word = words[at]
    if (word === 0 || (word === first && words[at + 1] === second && words[at + 2] === third)) return at
    at += WORDS
    if (at === size) at = 0
  }
}

function isTaken(generation: Generation, place: number): boolean {
  return generation.words[place] !== 0
}
