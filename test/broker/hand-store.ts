/**
 * A store of sessions in memory, behind the port of `sessions/sessions.ts`, whose disk outlives the brokers that open it. The test says
 * when it is away, when a save goes through, and when a process is killed before what was to be saved soon was.
 */
import type { SessionKey, SessionRecord, SessionStore, StoredSession } from '../../sessions/sessions.ts'

export interface HandStore extends SessionStore {
  /** By client: what a kill leaves. */
  readonly disk: Map<string, SessionRecord>
  /** It takes nothing: what is asked of it fails. */
  isAway: boolean
  /** Each save waits for it. */
  gate: Promise<void>
  /** Records that were made durable. */
  readonly saved: SessionRecord[]
  readonly left: string[]
  /** What was to be saved soon is durable. */
  flush(): void
  /** What nobody may find any more is gone: a store that is back does so by itself. */
  pay(): void
  /** What was to be saved soon is lost, and nobody holds a session any more. */
  kill(): void
}

interface Holder {
  soon: SessionRecord | null
}

export function openHandStore(sessionsMax = Number.POSITIVE_INFINITY): HandStore {
  const holders = new Map<string, Holder>()
  /** Clients of which nothing may be found once it is back. */
  const owed = new Set<string>()
  let lives = 0
  const store: HandStore = {
    disk: new Map(),
    isAway: false,
    gate: Promise.resolve(),
    saved: [],
    left: [],
    open,
    async discard({ client }) {
      if (store.isAway) return owe(client)
      holders.delete(client)
      store.disk.delete(client)
      return true
    },
    count: async () => store.disk.size,
    flush: () => holders.forEach((_, client) => void write(client)),
    pay,
    kill() {
      holders.clear()
      owed.clear()
    },
    close: async () => undefined,
  }
  return store

  async function open({ client }: SessionKey): Promise<StoredSession | null> {
    if (store.isAway) {
      owe(client)
      return null
    }
    pay()
    write(client)
    const found = store.disk.get(client)
    if (found === undefined && store.disk.size >= sessionsMax) return null
    const opened = found ?? { life: `life-${++lives}`, filters: [], opened: 0, open: [] }
    store.disk.set(client, opened)
    const holder: Holder = { soon: null }
    holders.set(client, holder)
    return storedOf(client, holder, opened, found !== undefined)
  }

  function owe(client: string): false {
    owed.add(client)
    return false
  }

  function pay(): void {
    for (const client of owed) {
      holders.delete(client)
      store.disk.delete(client)
    }
    owed.clear()
  }

  function storedOf(client: string, holder: Holder, opened: SessionRecord, isPresent: boolean): StoredSession {
    const isHolder = () => holders.get(client) === holder
    return {
      isPresent,
      get record() {
        return holder.soon ?? store.disk.get(client) ?? opened
      },
      async save(record) {
        await store.gate
        if (store.isAway) throw new Error('The store is away.')
        if (!isHolder()) return false
        holder.soon = null
        put(client, record)
        return true
      },
      saveSoon(record) {
        if (isHolder()) holder.soon = record
      },
      async leave() {
        if (!isHolder()) return
        store.left.push(client)
        if (!store.isAway) write(client)
        holders.delete(client)
      },
    }
  }

  function write(client: string): void {
    const holder = holders.get(client)
    if (holder === undefined || holder.soon === null) return
    put(client, holder.soon)
    holder.soon = null
  }

  function put(client: string, record: SessionRecord): void {
    // A copy, as a disk has one.
    const copy = structuredClone(record)
    store.disk.set(client, copy)
    store.saved.push(copy)
  }
}
