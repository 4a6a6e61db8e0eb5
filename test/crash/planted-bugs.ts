/**
 * Bugs planted into a copy of the build, to see that the rounds catch them: a test that cannot fail proves nothing. The
 * product itself has no switch for faults. A bug whose place is not found any more fails loudly.
 */
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Target } from './rounds.ts'

export interface PlantedBug {
  readonly title: string
  /** The file of the build, what stands there, and what shall stand there. */
  readonly file: string
  readonly from: RegExp
  readonly to: string
  /** What shows it when it ends, and what the checker must say. */
  readonly target: Target
  readonly shows: 'lost' | 'duplicated' | 'statesWrong' | 'misordered'
}

export const BUGS: readonly PlantedBug[] = [
  {
    title: 'acknowledging before the log has it loses readings',
    file: 'ingest/commit-loop.js',
    from: /if \(!\(part\.isDurable && part\.held\.length > 0\) && !\(await commit\(part\)\)\)\s+break;\s+current = null;\s+options\.committed\(part\);/,
    to: 'options.committed(part);\nawait commit(part);\ncurrent = null;',
    target: 'tree',
    shows: 'lost',
  },
  {
    title: 'committing the position before the insert loses readings',
    file: 'writers/writer.js',
    from: /await moveOn\(claim, batch, await insertPlanned\(/,
    to: 'await claim.commit(batch.to, null);\nawait moveOn(claim, batch, await insertPlanned(',
    // With the engine, which otherwise stores what it was sent by a writer that died.
    target: 'tree',
    shows: 'lost',
  },
  {
    title: 'forgetting an open plan at the start stores readings twice',
    file: 'writers/writer.js',
    from: /let position = claim\.plan === null \? claim\.position : await finishPlan\(claim, claim\.plan, options\);/,
    to: 'let position = claim.position;',
    target: 'writer',
    shows: 'duplicated',
  },
  {
    title: 'acknowledging what the log has not synced loses readings',
    file: 'pump/lmdb-env.js',
    from: /overlappingSync: false,/,
    to: 'overlappingSync: false, noSync: true,',
    target: 'power',
    shows: 'lost',
  },
  {
    title: 'telling messages apart without their seq loses readings',
    file: 'model/message.js',
    from: /const ofSeq = seq === undefined \? '' : [^;]+;/,
    to: "const ofSeq = '';",
    // What a device measured while its connection was away comes on another one, in the same second.
    target: 'tree',
    shows: 'lost',
  },
  {
    title: 'taking a message of the same connection for one that was sent again loses readings',
    file: 'ingest/repetitions.js',
    from: /const isOther = bringer !== connection && \(/,
    to: 'const isOther = (',
    target: 'writer',
    shows: 'lost',
  },
  {
    title: 'breaking a tie by the value instead of the receipt shows a state that is over',
    file: 'space/metric-slots.js',
    from: /if \(receivedAt < heldReceivedAt\)\s+return false;\s+if \(receivedAt === heldReceivedAt && compareValues\(/,
    to: 'if (compareValues(',
    target: 'writer',
    shows: 'statesWrong',
  },
  {
    title: 'receipts that stand still lose the order of sending',
    file: 'ingest/receipts.js',
    from: /next: now => Math\.max\(now \* US_PER_MS, last \+ 1\),/,
    to: 'next: now => Math.max(now * US_PER_MS, last),',
    target: 'writer',
    shows: 'misordered',
  },
  {
    title: 'storing what is open when it comes again stores QoS 2 messages twice',
    file: 'broker/open-messages.js',
    from: /this\.#byPacket\.get\(packet\)\?\.print === print/,
    to: 'false',
    target: 'tree',
    shows: 'duplicated',
  },
]

/** A copy of the build with the bug; returns its folder. The caller removes `root`. */
export function plant(bug: PlantedBug): { root: string; dist: string } {
  const root = mkdtempSync(join(tmpdir(), 'surgetank-bug-'))
  const dist = join(root, 'dist')
  cpSync('dist', dist, { recursive: true })
  // The build looks for these beside itself.
  for (const name of ['node_modules', 'package.json', 'database', 'space']) symlinkSync(resolve(name), join(root, name))
  writeFileSync(join(dist, bug.file), withBug(bug, dist))
  return { root, dist }
}

/** The text of its file with the bug. Throws when the code has moved, and the bug must be planted anew. */
export function withBug({ title, file, from, to }: PlantedBug, dist = 'dist'): string {
  const source = readFileSync(join(dist, file), 'utf8')
  const places = [...source.matchAll(new RegExp(from, 'g'))].length
  if (places !== 1) throw new Error(`"${title}": ${places} places match ${from} in ${file}, not one.`)
  return source.replace(from, to)
}
