/**
 * What every store of sessions keeps, whichever adapter: run over each of them. `harness` gives an empty one of its own.
 */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  OPEN_MESSAGES_MAX,
  type SessionFilter,
  type SessionKey,
  type SessionRecord,
  type SessionStore,
  type StoredSession,
} from '../../sessions/sessions.ts'
import { until } from '../waits.ts'

export interface SessionStoreHarness {
  /** Another broker on the same store; where one process has it for itself, the same one again. `sessionsMax`: of these clients. */
  open(options?: { readonly sessionsMax?: number }): Promise<SessionStore>
  /** As after a kill -9 of every broker. */
  crash(): Promise<SessionStore>
  /** The text of the record as it is kept; null when there is none. */
  read(key: SessionKey): Promise<string | null>
  /** Puts another text in its place, while its client is away and no store is open. */
  rewrite(key: SessionKey, text: string): Promise<void>
  /** Names for clients that share the bound of a store. */
  client(number: number): string
  destroy(): Promise<void>
}

export type OpenHarness = () => Promise<SessionStoreHarness>

const FILTERS: readonly SessionFilter[] = [
  { filter: 'devices/a/cmd/#', qos: 1 },
  { filter: 'devices/a/cmd/"ü\\😀', qos: 2 },
  { filter: 'devices/a/cmd/+', qos: 0 },
]

export function sessionStoreContract(adapter: string, openHarness: OpenHarness, options: { readonly runs: number }) {
  let harness: SessionStoreHarness
  let store: SessionStore
  beforeEach(async () => {
    harness = await openHarness()
    store = await harness.open()
  })
  afterEach(() => harness.destroy())
  const key = (number = 1): SessionKey => ({ principal: '', client: harness.client(number) })
  const opened = (wanted = key(), from = store) => openOne(from, wanted)

  describe(`the contract of sessions, kept by ${adapter}`, () => {
    test('a client that was never here begins a session, and finds what it held when it comes back [MQTT-3.2.2-2]', async () => {
      const first = await opened()
      expect(first).toMatchObject({ isPresent: false, record: { filters: [], opened: 0, open: [] } })
      expect(first.record.life).toMatch(/^[\w-]{12,}$/)
      const record = { ...first.record, filters: FILTERS, opened: 7, open: [{ packet: 65_535, print: 'p' }] }
      await first.save(record)
      expect(first.record).toEqual(record)
      await first.leave()
      const second = await opened()
      expect(second).toMatchObject({ isPresent: true, record })
      await second.leave()
      expect(await opened()).toMatchObject({ isPresent: true, record })
    })

    test('each client has its own, by principal and id, and a session that is begun anew has another life', async () => {
      const names = ['a', 'a b', 'a:b', 'ü', '😀', '{s1}', '__proto__', '$SYS', '%i', '1:a', 'x'.repeat(256)]
      const keys = names.flatMap(client => ['', 'a', '1'].map(principal => ({ principal, client })))
      const sessions = await Promise.all(keys.map(one => opened(one)))
      expect(sessions.filter(({ isPresent }) => isPresent)).toEqual([])
      const lives = sessions.map(({ record }) => record.life)
      expect(new Set(lives).size).toBe(keys.length)
      await Promise.all(sessions.map(session => session.leave()))
      const again = await Promise.all(keys.map(one => opened(one)))
      expect(again.map(({ record }) => record.life)).toEqual(lives)
    })

    test.each(['', 'a\0b', 'a\nb', 'a\x7f', 'x'.repeat(257), 'ü'.repeat(129)])(
      'nothing is kept for %j, which is no client id',
      async client => {
        expect(await store.open({ principal: '', client })).toBeNull()
        await store.discard({ principal: '', client })
        expect(await store.count()).toBe(0)
      },
    )

    test('what was saved outlives a kill, and the client need not have left', async () => {
      const session = await opened()
      const record = { ...session.record, filters: FILTERS }
      await session.save(record)
      store = await harness.crash()
      expect(await opened()).toMatchObject({ isPresent: true, record })
    })

    test('a client that connects with clean=1 leaves nothing behind [MQTT-3.1.2-6]', async () => {
      const first = await opened()
      await first.save({ ...first.record, filters: FILTERS })
      await store.discard(key())
      await first.save({ ...first.record, opened: 9 })
      first.saveSoon({ ...first.record, opened: 9 })
      await first.leave()
      expect(await harness.read(key())).toBeNull()
      store = await harness.crash()
      const second = await opened()
      expect(second).toMatchObject({ isPresent: false, record: { filters: [], opened: 0 } })
      expect(second.record.life).not.toBe(first.record.life)
      await second.leave()
      await store.discard(key())
      await store.discard(key())
      expect(await opened()).toMatchObject({ isPresent: false })
    })

    test('whoever opened it before can change it no more, and is not told', async () => {
      const first = await opened()
      await first.save({ ...first.record, filters: FILTERS })
      const second = await opened()
      expect(second).toMatchObject({ isPresent: true, record: { filters: FILTERS } })
      await first.save({ ...first.record, filters: [] })
      first.saveSoon({ ...first.record, filters: [] })
      await first.leave()
      await second.save({ ...second.record, opened: 3 })
      await second.leave()
      expect((await opened()).record).toMatchObject({ filters: FILTERS, opened: 3 })
    })

    test('what is saved soon is kept by itself, and at once when the client leaves', async () => {
      const session = await opened()
      session.saveSoon({ ...session.record, opened: 1 })
      expect(session.record.opened).toBe(1)
      await until(async () => (await harness.read(key()))?.includes('"opened":1,') === true)
      session.saveSoon({ ...session.record, opened: 2 })
      await session.leave()
      expect(await harness.read(key())).toContain('"opened":2,')
    })

    test('a save brings what was to be saved soon, and of many at one time the last stays', async () => {
      const session = await opened()
      session.saveSoon({ ...session.record, opened: 1 })
      await session.save({ ...session.record, filters: FILTERS })
      expect(JSON.parse((await harness.read(key())) ?? '')).toMatchObject({ opened: 1, filters: FILTERS })
      const saves = Array.from({ length: 50 }, (_, at) => session.save({ ...session.record, opened: at }))
      await Promise.all(saves)
      await session.leave()
      expect((await opened()).record.opened).toBe(49)
    })

    test('a client that comes back at once finds what its last connection has not saved yet', async () => {
      const first = await opened()
      first.saveSoon({ ...first.record, opened: 5 })
      void first.leave()
      expect(await opened()).toMatchObject({ isPresent: true, record: { opened: 5 } })
    })

    test('the newest QoS 2 messages are kept, and a record that is too large is refused and changes nothing', async () => {
      const session = await opened()
      const open = Array.from({ length: OPEN_MESSAGES_MAX + 5 }, (_, at) => ({ packet: at + 1, print: `p${at}` }))
      await session.save({ ...session.record, filters: FILTERS, opened: open.length, open })
      const { filters } = session.record
      const large = { ...session.record, filters: [...filters, { filter: 'x'.repeat(70_000), qos: 0 as const }] }
      await expect(session.save(large)).rejects.toMatchObject({ code: 'session_too_large', fate: 'reject' })
      expect(session.record.filters).toEqual(FILTERS)
      await session.leave()
      expect((await opened()).record).toMatchObject({ filters: FILTERS, open: open.slice(5) })
    })

    boundContract()
    versionContract()
    modelContract(options.runs)
  })

  function boundContract() {
    test('at the bound the one that has been away longest makes room, and never one that is connected', async () => {
      store = await harness.open({ sessionsMax: 3 })
      const [first, second, third] = [await opened(key(1)), await opened(key(2)), await opened(key(3))]
      expect(await store.open(key(4))).toBeNull()
      await second.leave()
      // In a ms of its own, because the order of two that leave at once is nobody's concern.
      await new Promise(resolve => setTimeout(resolve, 5))
      await first.leave()
      expect(await opened(key(4))).toMatchObject({ isPresent: false })
      expect(await harness.read(key(2))).toBeNull()
      expect(await opened(key(1))).toMatchObject({ isPresent: true })
      expect(await store.open(key(2))).toBeNull()
      await third.save({ ...third.record, opened: 8 })
      expect((await opened(key(3))).record.opened).toBe(8)
      expect(await store.count()).toBe(3)
    })

    test('a client that was refused for want of room finds nothing later', async () => {
      store = await harness.open({ sessionsMax: 1 })
      const first = await opened(key(1))
      expect(await store.open(key(2))).toBeNull()
      await first.leave()
      expect(await opened(key(2))).toMatchObject({ isPresent: false })
    })
  }

  function versionContract() {
    const written = async (change: (fields: Record<string, unknown>) => object | string) => {
      const session = await opened()
      await session.save({ ...session.record, filters: FILTERS.slice(0, 2) })
      await session.leave()
      await store.close()
      const changed = change(JSON.parse((await harness.read(key())) ?? ''))
      const text = typeof changed === 'string' ? changed : JSON.stringify(changed)
      await harness.rewrite(key(), text)
      store = await harness.open()
      return text
    }

    test('what a newer version added to a record is still there when this one has written it again', async () => {
      await written(fields => ({
        ...fields,
        queue: { bytes: 3 },
        filters: FILTERS.slice(0, 2).map(filter => ({ ...filter, noLocal: filter.qos === 1 })),
      }))
      const session = await opened()
      const filters = [FILTERS[2], FILTERS[1], { ...FILTERS[0], qos: 0 }] as SessionFilter[]
      await session.save({ ...session.record, filters, opened: 4 })
      await session.leave()
      expect(JSON.parse((await harness.read(key())) ?? '')).toEqual({
        v: 1,
        life: session.record.life,
        opened: 4,
        open: [],
        queue: { bytes: 3 },
        filters: [FILTERS[2], { ...FILTERS[1], noLocal: false }, { ...FILTERS[0], qos: 0 }],
      })
    })

    test.each([
      ...['', 'null', '[]', '{"v":1}', '{"v":"1"}', '{"v":1,"life":"x","filters":[7],"opened":0,"open":[]}'],
      // Of a version that is not known: its client hears of no session, and must not find this one later.
      '{"v":2,"life":"x","filters":[],"opened":0,"open":[[1,"print"]]}',
      // Its life would end the text of a line.
      '{"v":1,"life":"x\\"","filters":[],"opened":0,"open":[]}',
    ])('of a record that reads %j the client begins anew', async text => {
      await written(() => text)
      const session = await opened()
      expect(session).toMatchObject({ isPresent: false, record: { filters: [], opened: 0, open: [] } })
      await session.leave()
      expect(await opened()).toMatchObject({ isPresent: true, record: { life: session.record.life } })
    })
  }

  /** Clients that come, go and save in any order, against a map. */
  function modelContract(runs: number) {
    const steps = fc.array(
      fc.record({
        client: fc.integer({ min: 1, max: 3 }),
        doing: fc.constantFrom('open', 'save', 'soon', 'leave', 'discard', 'open', 'save', 'crash'),
        opened: fc.nat(1_000),
      }),
      { maxLength: 30 },
    )
    test('clients that come, save and go in any order find what they saved last', async () => {
      let round = 0
      await fc.assert(
        fc.asyncProperty(steps, async taken => {
          round++
          const kept = new Map<number, SessionRecord>()
          const held = new Map<number, StoredSession>()
          for (const { client, doing, opened: count } of taken) {
            const session = held.get(client)
            const record = session === undefined ? undefined : { ...session.record, opened: count }
            if (doing === 'open') await come(client)
            else if (doing === 'discard') {
              await store.discard(key(round * 4 + client))
              kept.delete(client)
              held.delete(client)
            } else if (doing === 'crash') {
              // What was to be saved soon may be lost.
              await Promise.all([...held.values()].map(one => one.save(one.record)))
              store = await harness.crash()
              held.clear()
            } else if (session !== undefined && record !== undefined) {
              if (doing === 'save') await session.save(record)
              else if (doing === 'soon') session.saveSoon(record)
              else await session.leave()
              if (doing === 'leave') held.delete(client)
              else kept.set(client, record)
            }
          }

          async function come(client: number): Promise<void> {
            const session = await opened(key(round * 4 + client))
            const before = kept.get(client)
            expect(session.isPresent).toBe(before !== undefined)
            if (before !== undefined) expect(session.record).toEqual(before)
            kept.set(client, session.record)
            held.set(client, session)
          }
        }),
        { numRuns: runs },
      )
    })
  }
}

async function openOne(store: SessionStore, key: SessionKey): Promise<StoredSession> {
  const session = await store.open(key)
  if (session === null) throw new Error(`Nothing is kept of ${JSON.stringify(key)}.`)
  return session
}
