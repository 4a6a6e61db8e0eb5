/**
 * Chunks of the log as rows of `readings`. The same chunks always give the same rows in the same order: no
 * clock, nothing from outside, because a retry must send what was sent before [G2].
 */
import type { RowBlock } from '../database/database.ts'
import { openRowBlock } from '../database/row-binary.ts'
import { parseLines } from '../model/message.ts'
import { toMs } from '../model/time.ts'
import type { Chunk } from '../pump/pump.ts'

/** Where a row comes from. */
export interface RowPlace {
  /** The row's place in the batch. */
  readonly ordinal: number
  readonly position: number
  /** The reading's place in its chunk. */
  readonly index: number
  readonly device: string
  /** ms since 1970 UTC. */
  readonly receivedAt: number
  /** The line that it came in, as the log has it. */
  readonly line: string
}

/** The rows of all chunks, or of those ordinals that `keep` says. */
export function encodeRows(source: string, chunks: readonly Chunk[], keep?: (ordinal: number) => boolean): RowBlock {
  const block = openRowBlock()
  let ordinal = 0
  for (const { position, lines, format } of chunks) {
    let index = 0
    for (const { device, readings } of parseLines(lines.toString('utf8'), format)) {
      for (const reading of readings) {
        if (keep === undefined || keep(ordinal)) block.add({ device, reading, source, position, index })
        index++
        ordinal++
      }
    }
  }
  return block.finish()
}

/** The same rows, by their places: only for the rare batch that must be taken apart. */
export function listRows(chunks: readonly Chunk[]): RowPlace[] {
  const rows: RowPlace[] = []
  for (const chunk of chunks) {
    const text = chunk.lines.toString('utf8')
    const lines = text.split('\n')
    let index = 0
    for (const [number, { device, readings }] of parseLines(text, chunk.format).entries()) {
      const line = lines[number] ?? ''
      for (const { receivedAt } of readings) {
        rows.push({ ordinal: rows.length, position: chunk.position, index, device, receivedAt: toMs(receivedAt), line })
        index++
      }
    }
  }
  return rows
}
