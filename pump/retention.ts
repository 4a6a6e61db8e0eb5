/** What the log may forget: pure. */
import type { ChunkHeader } from './chunk.ts'

export interface TrimWanted {
  /** The oldest chunk held. */
  readonly first: number
  /** Up to where the writers have committed: nothing from there on is ever removed [G5]. */
  readonly committed: number
  /** Room that is needed, whatever the age of what makes it. */
  readonly bytesNeeded: number
  /** Chunks of which nothing was received after this, ms, are removed also when there is room. */
  readonly olderThan: number
}

/** How many of the oldest chunks to remove, and what they take. */
export interface Trim {
  readonly chunks: number
  readonly bytes: number
}

/** The most that one commit removes, so that no PUBACK waits for the removal of a backlog. */
export const TRIM_CHUNKS_MAX = 64

export function planTrim(
  wanted: TrimWanted,
  headerAt: (position: number) => Pick<ChunkHeader, 'bytes' | 'lastReceivedAt'> | null,
): Trim {
  const { first, committed, bytesNeeded, olderThan } = wanted
  let bytes = 0
  let chunks = 0
  while (chunks < TRIM_CHUNKS_MAX && first + chunks < committed) {
    const header = headerAt(first + chunks)
    if (header === null || (bytes >= bytesNeeded && header.lastReceivedAt >= olderThan)) break
    bytes += header.bytes
    chunks++
  }
  return { chunks, bytes }
}
