/**
 * What one append makes durable, while it is being collected: messages, refused messages and repetitions, in order of arrival.
 *
 * A part holds lines of one UTC day of `receivedAt` only, because its rows must end in one partition of ClickHouse, and
 * about PART_BYTES_MAX at most, so that a chunk of the log stays small enough to be read and retried whole. Lines are
 * written as bytes when they come: strings that wait for the commit would be copied by every collection of garbage.
 */
import type { Message } from '../model/message.ts'
import { toMs } from '../model/time.ts'
import { utcDay } from '../model/utc-day.ts'
import { type Batch, REPEATED_OF_BATCH_MAX, type Refused, type Repeated } from '../pump/pump.ts'
import type { Tally } from './tally.ts'

const PART_BYTES_MAX = 1024 * 1024
const PART_BYTES_LARGE = 256 * 1024
/** Messages of a part, repetitions and refused ones included: these may be of no bytes at all. */
const PART_MESSAGES_MAX = 16_384
/** What a message takes beside its bytes until it is settled: the objects that stand for it, and its readings. */
export const MESSAGE_BYTES = 512
/** The most that UTF-8 takes for one UTF-16 code unit. */
const UTF8_BYTES_MAX = 3
const SPARES_MAX = 4

export class Part<Held> {
  readonly held: Held[] = []
  readonly messages: Message[] = []
  readonly refused: Refused[] = []
  readings = 0
  repetitions = 0
  /** Some of the repetitions, to be listed. */
  readonly repeated: Repeated[] = []
  /** What its messages take until they are settled: MESSAGE_BYTES each, and its payload or its line, whichever is longer. */
  bytes = 0
  lines: Buffer
  /** Of the line written last: where its readings begin, and where they end. */
  readingsAt = 0
  readingsEnd = 0
  private length = 0
  /** Bytes that the append takes: lines and refused payloads. */
  private appended = 0
  /** Of the messages, ms. */
  private firstReceivedAt = 0
  private lastReceivedAt = 0
  /** When the first message came by the clock, which receipts may run ahead of, ms. */
  private cameAt = 0

  /** `lines` is this part's until its append has ended. */
  constructor(lines: Buffer) {
    this.lines = lines
  }

  /** Worth a commit of its own. */
  get isLarge(): boolean {
    return this.appended >= PART_BYTES_LARGE
  }

  /** False when this message, received at this ms and of about so many bytes in the append, must begin another part. */
  hasRoom(receivedAt: number, bytes: number): boolean {
    if (this.held.length === 0) return true
    if (this.held.length === PART_MESSAGES_MAX || this.appended + bytes > PART_BYTES_MAX) return false
    return this.messages.length === 0 || utcDay(receivedAt) === utcDay(this.firstReceivedAt)
  }

  /** Writes a line, from its head (ASCII) and its readings; it counts only when `add` follows. Returns its bytes. */
  write(head: string, readings: string): number {
    const { length } = this
    this.reserve(length + head.length + readings.length * UTF8_BYTES_MAX + 2)
    // One call for all: each costs more than the bytes.
    const written = this.lines.write(`${head}${readings}}\n`, length)
    this.readingsAt = length + head.length
    this.readingsEnd = length + written - 2
    return written
  }

  /** The message of the line written last, which came at `cameAt`, in ms of the clock. */
  add(held: Held, bytes: number, message: Message, cameAt: number): void {
    // Receipts grow.
    if (this.messages.length === 0) {
      this.firstReceivedAt = toMs(message.receivedAt)
      this.cameAt = cameAt
    }
    const { readings } = message
    this.lastReceivedAt = toMs(readings[readings.length - 1]?.receivedAt ?? message.receivedAt)
    this.appended += this.readingsEnd + 2 - this.length
    this.length = this.readingsEnd + 2
    this.messages.push(message)
    this.readings += readings.length
    this.hold(held, bytes)
  }

  addRefused(held: Held, bytes: number, refused: Refused): void {
    this.appended += refused.payload.length
    this.refused.push(refused)
    this.hold(held, bytes)
  }

  /** True while a repetition more is listed. */
  get listsMore(): boolean {
    return this.repeated.length < REPEATED_OF_BATCH_MAX
  }

  /** `listed` is null for one that is only counted. */
  addRepetition(held: Held, bytes: number, listed: Repeated | null): void {
    this.repetitions++
    if (listed !== null) this.repeated.push(listed)
    this.hold(held, bytes)
  }

  /** When the oldest message that is to be stored came, ms; null when there is none. */
  get oldestAt(): number | null {
    return this.messages.length === 0 ? null : this.cameAt
  }

  /** True when all of it was durable before: it can be acknowledged at once. */
  get isDurable(): boolean {
    return this.messages.length === 0 && this.refused.length === 0
  }

  /** What to append, with all that the tally holds. */
  batch(tally: Tally): Batch {
    const { messages, readings, firstReceivedAt, lastReceivedAt, refused } = this
    const lines = this.lines.subarray(0, Math.max(0, this.length - 1))
    const counted = tally.take(refused.length)
    return { lines, messages: messages.length, readings, firstReceivedAt, lastReceivedAt, refused, ...counted }
  }

  private reserve(bytes: number): void {
    if (bytes <= this.lines.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(bytes, this.lines.length * 2))
    this.lines.copy(larger, 0, 0, this.length)
    this.lines = larger
  }

  private hold(held: Held, bytes: number): void {
    this.held.push(held)
    this.bytes += bytes
  }
}

/** Memory for the lines of parts, used again and again: at most as much as SPARES_MAX parts take. */
export interface LineMemory {
  take(): Buffer
  giveBack(lines: Buffer): void
}

export function openLineMemory(): LineMemory {
  const spares: Buffer[] = []
  const size = 2 * PART_BYTES_MAX
  return {
    take: () => spares.pop() ?? Buffer.allocUnsafeSlow(size),
    giveBack: lines => {
      if (spares.length < SPARES_MAX && lines.length === size) spares.push(lines)
    },
  }
}
