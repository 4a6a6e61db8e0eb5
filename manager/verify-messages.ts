/**
 * The books in messages, as `surgetank verify` checks them [G7]: what became of all that was received, and, chunk by chunk,
 * whether the lines are as many as were counted. Pure functions.
 */
import { parseLines } from '../model/message.ts'
import { differenceOf, sumOf } from '../pump/message-counts.ts'
import type { Chunk, MessageBooks, PumpBooks } from '../pump/pump.ts'

export interface MessageVerdict extends MessageBooks {
  /** received − accepted − repeated − quarantined − let go: more than 0 is lost, less than 0 is counted twice. */
  readonly difference: number
  /** Messages that were counted as quarantined and were never kept. */
  readonly quarantinedMissing: number
}

/** A chunk whose lines are not those that were counted. */
export interface ChunkFault {
  readonly position: number
  /** As the chunk's header has them. */
  readonly messages: number
  readonly readings: number
  /** As they stand in the lines; 0 of lines that cannot be read. */
  readonly messagesFound: number
  readonly readingsFound: number
  /** Of the messages that it counts, those that are in none of its terms. */
  readonly difference: number
}

export function judgeMessages({ messages, quarantined }: PumpBooks): MessageVerdict {
  const counted = sumOf({ ...messages.quarantined })
  return {
    ...messages,
    difference: differenceOf({ ...messages, quarantined: counted }),
    quarantinedMissing: Math.max(0, counted - quarantined),
  }
}

export function areBalanced({ difference, quarantinedMissing }: MessageVerdict): boolean {
  return difference === 0 && quarantinedMissing === 0
}

/** Null when the chunk holds what its header says. */
export function findFault(chunk: Chunk): ChunkFault | null {
  const { position, messages, readings, counts } = chunk
  const found = countLines(chunk)
  const difference = differenceOf({ ...counts, accepted: messages })
  if (found.messages === messages && found.readings === readings && difference === 0) return null
  return { position, messages, readings, messagesFound: found.messages, readingsFound: found.readings, difference }
}

function countLines({ lines, format }: Chunk): { messages: number; readings: number } {
  try {
    const found = parseLines(lines.toString('utf8'), format)
    return { messages: found.length, readings: found.reduce((sum, { readings }) => sum + readings.length, 0) }
  } catch (error) {
    if (error instanceof SyntaxError) return { messages: 0, readings: 0 }
    throw error
  }
}

/** For a person. */
export function describeMessages(verdict: MessageVerdict): string[] {
  const { since, received, accepted, repeated, quarantined, letGo, difference, quarantinedMissing } = verdict
  const { waiting, retried, dropped, evicted } = quarantined
  const head =
    since === null ? 'messages' : `messages since ${new Date(since).toISOString()}; before that they were not counted`
  return [
    head,
    `  received        ${count(received)}`,
    `  accepted        ${count(accepted)}`,
    `  repeated        ${count(repeated)}`,
    `  quarantined     ${count(sumOf({ ...quarantined }))}  waiting ${waiting}, retried ${retried}, dropped ${dropped}, evicted ${evicted}${quarantinedMissing === 0 ? '' : `  ${quarantinedMissing} NOT KEPT`}`,
    `  let go          ${count(sumOf(letGo))}${describeReasons(letGo)}`,
    `  difference      ${count(difference)}${difference === 0 ? '' : difference > 0 ? '  LOST' : '  COUNTED TWICE'}`,
  ]
}

function describeReasons(letGo: Readonly<Record<string, number>>): string {
  const reasons = Object.entries(letGo).map(([reason, messages]) => `${reason} ${messages}`)
  return reasons.length === 0 ? '' : `  ${reasons.join(', ')}`
}

/** For a person. */
export function describeFault({ position, ...fault }: ChunkFault): string {
  const { messages, readings, messagesFound, readingsFound, difference } = fault
  const lines = `${messages} messages and ${readings} readings were counted, ${messagesFound} and ${readingsFound} are there`
  return `position ${position}: ${lines}${difference === 0 ? '' : `, difference of messages ${difference}`}`
}

export function count(number: number): string {
  return number.toLocaleString('en-US').padStart(12)
}
