/**
 * The marks of QoS 2 messages that the log was found to hold: at start those of its end, later those of what others append.
 * A session whose record was not saved in time, because its broker was killed or the store was away, learns from them which
 * messages it has opened (`broker/open-messages.ts` says when one counts).
 *
 * Bounds: the newest MARKS_MAX of all, and of one connection the newest OPEN_MESSAGES_MAX, so that a client that sends much
 * leaves room for others. One that is forgotten, and whose message is sent again, costs a message stored twice.
 */
import { findMarks } from '../model/message.ts'
import { OPEN_MESSAGES_MAX } from '../sessions/sessions.ts'

export type FoundMark = ReturnType<typeof findMarks>[number]

export interface Marks {
  rememberLines(lines: Buffer): void
  /** Those that a connection left which found its session with this life, or gave it to it; oldest first. */
  of(life: string): readonly FoundMark[]
}

const MARKS_MAX = 65_536

export function openMarks(marksMax = MARKS_MAX): Marks {
  /** All of them, oldest first; and by either life, in the same order. */
  const all = new Set<FoundMark>()
  const byLife = new Map<string, Set<FoundMark>>()

  return { rememberLines, of: life => [...(byLife.get(life) ?? [])] }

  function rememberLines(lines: Buffer): void {
    for (const mark of findMarks(lines)) remember(mark)
  }

  function remember(mark: FoundMark): void {
    all.add(mark)
    const [oldest] = all
    if (all.size > marksMax && oldest !== undefined) forget(oldest)
    add(mark.before, mark)
    const own = add(mark.life, mark)
    const [oldestOwn] = own
    if (own.size > OPEN_MESSAGES_MAX && oldestOwn !== undefined) forget(oldestOwn)
  }

  function add(life: string, mark: FoundMark): Set<FoundMark> {
    const marks = byLife.get(life) ?? new Set()
    byLife.set(life, marks.add(mark))
    return marks
  }

  function forget(mark: FoundMark): void {
    all.delete(mark)
    for (const life of [mark.before, mark.life]) {
      const marks = byLife.get(life)
      marks?.delete(mark)
      if (marks?.size === 0) byLife.delete(life)
    }
  }
}
