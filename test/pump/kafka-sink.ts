/**
 * A writer cut down to what it asks of the pump, and a table that drops a token it has seen, as ClickHouse does: whatever
 * happens to claims, each line must end up in the table once [G2].
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Chunk, Claim } from '../../pump/pump.ts'

export interface Insert {
  readonly token: string
  readonly lines: readonly string[]
}

export interface Sink {
  /** How often each line is in the table. */
  readonly rows: ReadonlyMap<string, number>
  /** Inserts that began while another one of the same partition was under way: two writers had it at one time. */
  readonly overlaps: number
  insert(insert: Insert): Promise<void>
}

export function openSink(insertMs: () => number = () => 0): Sink {
  const rows = new Map<string, number>()
  const tokens = new Set<string>()
  const underWay = new Set<string>()
  let overlaps = 0
  return {
    rows,
    get overlaps() {
      return overlaps
    },
    insert,
  }

  async function insert({ token, lines }: Insert): Promise<void> {
    const partition = token.slice(0, token.lastIndexOf('/'))
    if (underWay.has(partition)) overlaps++
    underWay.add(partition)
    await pause(insertMs())
    underWay.delete(partition)
    if (tokens.has(token)) return
    tokens.add(token)
    for (const line of lines) rows.set(line, (rows.get(line) ?? 0) + 1)
  }
}

export interface MiniWriterOptions {
  readonly insert: (insert: Insert) => Promise<void>
  /** Chunks of one insert, at most. */
  readonly chunksMax: () => number
  /** Between plan and insert. */
  readonly planned?: (claim: Claim) => Promise<void>
}

/** The way of `writers/writer.ts`: READY, PLAN, INSERT, DONE; an open plan first. */
export function miniWriter({ insert, chunksMax, planned = async () => {} }: MiniWriterOptions) {
  return async (claim: Claim): Promise<void> => {
    let { position } = claim
    if (claim.plan !== null) position = await write(claim, position, claim.plan.to)
    while (!claim.lost.aborted) {
      const [first, ...more] = await claim.read(position, { chunksMax: chunksMax(), bytesMax: 4 << 20 })
      if (first === undefined) {
        await claim.wait(position, 250)
        continue
      }
      const to = (more.at(-1) ?? first).position + 1
      await claim.commit(position, { to, mode: 'whole' })
      await planned(claim)
      position = await write(claim, position, to)
    }
  }

  async function write(claim: Claim, from: number, to: number): Promise<number> {
    const chunks: Chunk[] = []
    for (let at = from; at < to; ) {
      const read = await claim.read(at, { chunksMax: to - at, bytesMax: 4 << 20 })
      const last = read.at(-1)
      chunks.push(...read.filter(({ position }) => position < to))
      if (last !== undefined) at = last.position + 1
      else if ((await claim.begins()) >= to) break
      // A new leader may not know yet how far the log was acknowledged.
      else await pause(20)
    }
    const lines = chunks.flatMap(chunk => chunk.lines.toString().split('\n'))
    await insert({ token: `${claim.source}/${from}-${to}`, lines })
    await claim.commit(to, null)
    return to
  }
}
