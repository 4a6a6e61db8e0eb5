/**
 * The window of recent messages, so that what a device sends again is stored once.
 *
 * A device that did not see its PUBACK sends the message again, often after our restart or to another broker. Whether its
 * original was acknowledged is not asked: the PUBACK may be lost. A message is a repetition only when it can be one:
 *
 * - On one connection a message with DUP=0 is never sent again [MQTT-4.4.0-1, MQTT-3.3.1-1]: a door that opens, closes and
 *   opens within one second of its clock has sent three messages.
 * - One with DUP=1 repeats the message of the same identity with the same packet identifier [MQTT-4.4.0-1].
 * - At QoS 0 nothing is ever sent again [MQTT-3.3.1-2].
 * - One with DUP=0 repeats a message of the same identity that another connection brought, and uses it up for its own
 *   connection: of open, close, open sent again, each finds its own original. A connection that has set DUP sets it on all
 *   that it sends again [MQTT-3.3.1-1], so what it sends with DUP=0 is new.
 *
 * The identity is that of `model/message.ts`: device, values, times as written, `seq` and `id`. Only messages are kept whose
 * readings all carry the device's own time: without one, two equal messages may be two measurements. At start the window
 * is filled from the end of the log; what comes from there counts as brought by another connection.
 *
 * Memory is fixed: two generations of ENTRIES_MAX entries, 25 MB. When the younger is full, the older is forgotten: the last
 * ENTRIES_MAX to 2 × ENTRIES_MAX messages are known, and what is older and sent again is stored again. Of one identity
 * the last ALIKE_MAX messages are known, so that a device that says the same all the time costs no more than others.
 *
 * A wrong match would lose a reading. A message is compared with the few entries that follow its own place, by 80 bits: below
 * 2^-76 in each look, and below 2^-31 in ten years of 100,000 messages a second (2^45).
 */
import type { LineFormat } from '../model/message.ts'
import { openFingerprinter } from './fingerprint.ts'

/** Where a message comes from. */
export interface Origin {
  /** Tells connections apart: 1 to 65,535, used again in turn. */
  readonly connection: number
  /** The MQTT packet identifier; 0 for none. */
  readonly packet: number
  readonly dup: boolean
  /** This connection has sent a message with DUP=1. */
  readonly marksDup: boolean
}

/** A line that was just written: `lines` hold the message's identity, but for the device, from `readingsAt` up to `readingsEnd`. */
export interface WrittenLine {
  readonly lines: Buffer
  readonly readingsAt: number
  readonly readingsEnd: number
}

/** Why this window takes a message for a repetition. */
export type Repetition = 'dup' | 'other_connection'

export interface Repetitions {
  /** Puts the message into the window, or says why it repeats one that is there. Each reading must have the device's own time. */
  remember(device: string, line: WrittenLine, origin: Origin): Repetition | null
  /** Puts lines of the log into the window, oldest first. */
  rememberLines(lines: Buffer, format: LineFormat): void
}

const ENTRIES_MAX = 2 ** 19
/** Places for each entry: a third of them stay free. */
const PLACES_PER_ENTRY = 1.5
/**
 * 32-bit words of an entry: two of the fingerprint, the first never 0, which stands for a free place; 16 bits more of it and the
 * packet identifier; the connection that brought it and the last one that used it up.
 */
const WORDS = 4
const ALIKE_MAX = 128
/** The connection of what comes from the log, and the user of what was not used up yet. */
const LOG = 0
const NOBODY = 0
/** Numbers of connections come again after 65,535: of two, the newer one is ahead by less than half of that. */
const HALF_OF_NUMBERS = 0x8000

const NEWLINE = 0x0a
const QUOTE = 0x22
const BACKSLASH = 0x5c
const LINE_HEAD = '{"device":"'
const LINE_READINGS = ',"readings":'
const LINE_PACKET = /,"packet":(\d+)$/
const LINE_TIMES = '],"times":['
/** The metric and the time of a reading of format 1; values that look like a time stay as they are. */
const TIME_OF_FORMAT_1 = /(\["(?:[^"\\]|\\.)*",)(\d+|null),/g

interface Generation {
  readonly words: Int32Array
  entries: number
}

/** `random` gives whole numbers of 32 bits, such as `() => randomInt(2 ** 32)`. */
export function openRepetitions(random: () => number, entriesMax = ENTRIES_MAX): Repetitions {
  const fingerprint = openFingerprinter(random)
  const print = new Int32Array(4)
  const places = Math.ceil(entriesMax * PLACES_PER_ENTRY)
  let young = newGeneration(places)
  let old = newGeneration(places)
  /** Where the entries of the message at hand begin, in each generation. */
  let home = 0

  return { remember, rememberLines }

  function remember(device: string, line: WrittenLine, origin: Origin): Repetition | null {
    const { lines, readingsAt, readingsEnd } = line
    print4(device, lines, readingsAt, readingsEnd)
    if (origin.dup || !origin.marksDup) {
      if (takeFrom(old, origin) || takeFrom(young, origin)) return origin.dup ? 'dup' : 'other_connection'
    }
    add(origin.packet, origin.connection)
    return null
  }

  function print4(device: string, bytes: Buffer, from: number, to: number): void {
    fingerprint(device, bytes, from, to, print)
    if (print[0] === 0) print[0] = 1
    // Without the sign: whole numbers of 31 bits divide several times faster than those of 32.
    home = (((print[3] as number) >>> 1) % places) * WORDS
  }

  /**
   * True when an entry is an original of the message; it is used up for this connection then. The entries of a fingerprint stand
   * in its home or in the places behind it, up to a free one.
   */
  function takeFrom({ words }: Generation, { dup, packet, connection }: Origin): boolean {
    for (let at = home; words[at] !== 0; at = nextPlace(words, at)) {
      if (!isAlike(words, at, print)) continue
      const entryPacket = (words[at + 2] as number) & 0xffff
      const bringer = (words[at + 3] as number) >>> 16
      const user = (words[at + 3] as number) & 0xffff
      const isOther = bringer !== connection && (user === NOBODY || isNewer(connection, user))
      // Lines of format 1 do not tell their packet identifier.
      const isOriginal = dup && entryPacket !== 0 ? entryPacket === packet : isOther
      if (!isOriginal) continue
      words[at + 3] = (bringer << 16) | connection
      return true
    }
    return false
  }

  function add(packet: number, connection: number): void {
    if (young.entries >= entriesMax) turn()
    const { words } = young
    let alike = 0
    let at = home
    for (; words[at] !== 0; at = nextPlace(words, at)) if (isAlike(words, at, print)) alike++
    if (alike >= ALIKE_MAX) at = forgetOldestAlike(words)
    else young.entries++
    words[at] = print[0] as number
    words[at + 1] = print[1] as number
    words[at + 2] = ((print[2] as number) & 0xffff0000) | packet
    words[at + 3] = connection << 16
  }

  /** They stand in the order in which they came: each moves to the place of the one before it. Returns that of the last one. */
  function forgetOldestAlike(words: Int32Array): number {
    let last = -1
    for (let at = home; words[at] !== 0; at = nextPlace(words, at)) {
      if (!isAlike(words, at, print)) continue
      if (last !== -1) words.copyWithin(last, at, at + WORDS)
      last = at
    }
    return last
  }

  function turn(): void {
    const forgotten = old
    old = young
    young = forgotten
    young.words.fill(0)
    young.entries = 0
  }

  function rememberLines(lines: Buffer, format: LineFormat): void {
    for (let from = 0; from < lines.length; ) {
      const newline = lines.indexOf(NEWLINE, from)
      const to = newline === -1 ? lines.length : newline
      const line = lines.subarray(from, to)
      if (format === 1) rememberLine(inFormat2(line), 0)
      else rememberLine(line, packetOf(line))
      from = to + 1
    }
  }

  /** The line is cut where its parts are known to be: parsing everything that a restart reads would hold it up. */
  function rememberLine(line: Buffer, packet: number | null): void {
    const deviceEnd = endOfText(line, LINE_HEAD.length)
    const head = line.indexOf(LINE_READINGS, deviceEnd)
    if (head === -1 || packet === null || !hasOwnTimes(line)) return
    const device = deviceOf(line.toString('latin1', LINE_HEAD.length, deviceEnd))
    print4(device, line, head + LINE_READINGS.length, line.length - 1)
    add(packet, LOG)
  }
}

/** Where the text of JSON that begins at `from` ends: its first quote that is not escaped. */
function endOfText(line: Buffer, from: number): number {
  for (let at = from; at < line.length; at++) {
    if (line[at] === BACKSLASH) at++
    else if (line[at] === QUOTE) return at
  }
  return line.length
}

function deviceOf(written: string): string {
  return written.includes('\\') ? (JSON.parse(`"${written}"`) as string) : written
}

/** A connection that is older than the last user, or that one itself, may have used the original up before. */
function isNewer(connection: number, user: number): boolean {
  const ahead = (connection - user) & 0xffff
  return ahead > 0 && ahead < HALF_OF_NUMBERS
}

/** Null for a message of QoS 0, which nothing repeats. */
function packetOf(line: Buffer): number | null {
  const found = LINE_PACKET.exec(line.toString('latin1', 0, line.indexOf(LINE_READINGS)))
  return found === null ? null : Number(found[1])
}

/** A text never holds what begins the times: its quotes are escaped. */
function hasOwnTimes(line: Buffer): boolean {
  const from = line.indexOf(LINE_TIMES)
  return from !== -1 && !line.toString('latin1', from, line.indexOf(']', from + LINE_TIMES.length)).includes('null')
}

/**
 * A line of format 1 as format 2 has it. What format 1 did not keep (`seq`, a time that was not written in ms, where an element
 * begins) is missing: sent again after the upgrade, such a message is stored again.
 */
function inFormat2(line: Buffer): Buffer {
  const times = new Set<string>()
  const text = line.toString('latin1').replace(TIME_OF_FORMAT_1, (_, metric: string, ms: string) => {
    times.add(ms)
    return metric
  })
  const [ms] = times
  return Buffer.from(times.size === 1 ? `${text.slice(0, -1)},"times":[${ms}000]}` : text, 'latin1')
}

/** Written once at start, so that a spike later does not grow the process by it. */
function newGeneration(places: number): Generation {
  return { words: new Int32Array(places * WORDS).fill(0), entries: 0 }
}

function nextPlace(words: Int32Array, at: number): number {
  return at + WORDS === words.length ? 0 : at + WORDS
}

function isAlike(words: Int32Array, at: number, print: Int32Array): boolean {
  return (
    words[at] === print[0] &&
    words[at + 1] === print[1] &&
    ((words[at + 2] as number) ^ (print[2] as number)) >>> 16 === 0
  )
}
