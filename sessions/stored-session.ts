/** The session of a client that is connected: its record as it was handed over last, and what of it is certain to be kept. */
import { metrics } from '../metrics.ts'
import { checkSize, encodeRecord, nameOf, type ParsedRecord } from './record.ts'
import type { SessionRecord, SessionStore, StoredSession } from './sessions.ts'

export interface StoredOptions {
  readonly from: ParsedRecord
  readonly isPresent: boolean
  /** False as soon as somebody else has opened it, it was discarded, or its client has left. */
  isHolder(): boolean
  /** Throws `sessions_unavailable` when there is no room for a record of this text. */
  checkRoom(text: string): void
  /** Makes what `text()` says then durable; as `Commits.put`. */
  save(): Promise<void>
  /** As `Commits.putSoon`. */
  saveSoon(): void
  leave(): Promise<void>
}

export interface Stored {
  readonly session: StoredSession
  /** The record as it is to be kept by now. */
  text(): string
}

/** The `open` of a store, by the name of its key; what came of it is counted. */
export function openCounted(openNamed: (name: string) => Promise<StoredSession | null>): SessionStore['open'] {
  return async key => {
    const name = nameOf(key)
    const session = name === null ? null : await openNamed(name)
    metrics.sessionsOpened.inc({ result: session === null ? 'not_kept' : session.isPresent ? 'present' : 'new' })
    return session
  }
}

export function openStored({ from, isPresent, isHolder, ...store }: StoredOptions): Stored {
  const { fields } = from
  let wanted = from.record
  /** What is wanted when the save that is under way is refused: the latest that was not. */
  let certain = { record: from.record, call: 0 }
  let calls = 0
  const session: StoredSession = {
    isPresent,
    get record() {
      return wanted
    },
    save,
    saveSoon,
    leave: async () => {
      if (isHolder()) await store.leave()
    },
  }
  return { session, text: () => encodeRecord(wanted, fields) }

  async function save(next: SessionRecord): Promise<boolean> {
    if (!isHolder()) return false
    const text = encodeRecord(next, fields)
    checkSize(text)
    store.checkRoom(text)
    const call = ++calls
    wanted = next
    try {
      await store.save()
      if (call > certain.call) certain = { record: next, call }
    } catch (error) {
      if (wanted === next) wanted = certain.record
      throw error
    }
    return isHolder()
  }

  function saveSoon(next: SessionRecord): void {
    if (!isHolder()) return
    wanted = next
    certain = { record: next, call: ++calls }
    store.saveSoon()
  }
}
