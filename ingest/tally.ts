/**
 * The tally: what became of messages that no line and no refusal in the log stands for, until the log keeps it with the
 * next append [G7]. What a kill takes of it is in no book: the messages were acknowledged, or promised nothing.
 */
import { type MessageCounts, REPEATED_OF_BATCH_MAX, type Repeated } from '../pump/pump.ts'

export interface Tally {
  /** Messages that a part holds, whatever becomes of them: counted apart from the rest, so that the books can fail. */
  receive(messages: number): void
  /** Messages that were taken for repetitions, and some of them to be listed. */
  repeat(messages: number, listed: readonly Repeated[]): void
  /** Messages that were let go, by reason. */
  letGo(reason: string, messages: number): void
  readonly isEmpty: boolean
  /** All since the last call; `quarantined` are those of the part that is about to be appended. */
  take(quarantined: number): { readonly counts: MessageCounts; readonly repeated: readonly Repeated[] }
}

export function openTally(): Tally {
  let received = 0
  let repeated = 0
  let listed: Repeated[] = []
  let gone = new Map<string, number>()

  return {
    receive,
    repeat,
    letGo,
    get isEmpty() {
      return repeated === 0 && gone.size === 0
    },
    take,
  }

  function receive(messages: number): void {
    received += messages
  }

  function repeat(messages: number, some: readonly Repeated[]): void {
    repeated += messages
    listed.push(...some.slice(0, REPEATED_OF_BATCH_MAX - listed.length))
  }

  function letGo(reason: string, messages: number): void {
    received += messages
    gone.set(reason, (gone.get(reason) ?? 0) + messages)
  }

  function take(quarantined: number) {
    const counts = { received, repeated, quarantined, letGo: Object.fromEntries(gone) }
    const taken = { counts, repeated: listed }
    received = 0
    repeated = 0
    listed = []
    gone = new Map()
    return taken
  }
}
