/**
 * What one append makes durable, while it is being collected: messages, refused messages and repetitions, in order of arrival.
 *
 * A part holds lines of one UTC day of `receivedAt` only, because its rows must end in one partition of ClickHouse, and
 * about PART_BYTES_MAX at most, so that a chunk of the log stays small enough to be read and retried whole.
 */
import type { Message } from '../model/message.ts'
import type { Batch, Refused } from '../pump/pump.ts'

const PART_BYTES_MAX = 1024 * 1024
const DAY_MS = 86_400_000

export class Part<Held> {
  readonly held: Held[] = []
  readonly messages: Message[] = []
  readonly refused: Refused[] = []
  readings = 0
  repetitions = 0
  /** Of each message its payload or its line, whichever is longer: what it takes until it is settled. */
  bytes = 0
  private readonly lines: string[] = []
  private firstReceivedAt = 0
  private lastReceivedAt = 0

  /** False when this message must begin another part. */
  hasRoom(receivedAt: number, bytes: number): boolean {
    if (this.held.length === 0) return true
    if (this.bytes + bytes > PART_BYTES_MAX) return false
    return this.lines.length === 0 || dayOf(receivedAt) === dayOf(this.firstReceivedAt)
  }

  add(held: Held, bytes: number, message: Message, line: string): void {
    const { receivedAt } = message
    if (this.lines.length === 0 || receivedAt < this.firstReceivedAt) this.firstReceivedAt = receivedAt
    if (this.lines.length === 0 || receivedAt > this.lastReceivedAt) this.lastReceivedAt = receivedAt
    this.lines.push(line)
    this.messages.push(message)
    this.readings += message.readings.length
    this.hold(held, bytes)
  }

  addRefused(held: Held, refused: Refused): void {
    this.refused.push(refused)
    this.hold(held, refused.payload.length)
  }

  addRepetition(held: Held, bytes: number): void {
    this.repetitions++
    this.hold(held, bytes)
  }

  /** Null when there is nothing to append: all of it was durable before. */
  batch(): Batch | null {
    if (this.lines.length === 0 && this.refused.length === 0) return null
    const { lines, readings, firstReceivedAt, lastReceivedAt, refused } = this
    return { lines, readings, firstReceivedAt, lastReceivedAt, refused }
  }

  private hold(held: Held, bytes: number): void {
    this.held.push(held)
    this.bytes += bytes
  }
}

function dayOf(receivedAt: number): number {
  return Math.floor(receivedAt / DAY_MS)
}
