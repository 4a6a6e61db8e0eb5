/** What ingest tells the log of what became of messages, so that the books balance [G7]. */
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import type { Publish } from '../../ingest/ingest.ts'
import { REPEATED_OF_BATCH_MAX } from '../../pump/pump.ts'
import { turn } from './hand-driven.ts'
import { balance, NOW, open, publish } from './open-ingest.ts'

const FULL = new SurgetankError('log_unavailable', 'The disk is full.')
const JSON_OF_DOOR = `{"ts":${NOW - 1_000},"values":{"door":true}}`

describe('the counts of an append [G7]', () => {
  it('say of each message whether it has a line, was repeated, quarantined or let go', async () => {
    const { ingest, pump } = await open()
    ingest.letGo('qos0_overload', 3)
    ingest.letGo('presence', 1)
    ingest.letGo('qos0_overload', 2)
    ingest.offer(door(1))
    ingest.offer(door(2))
    ingest.offer(publish('poison', { json: '{' }))
    ingest.offerRefused(publish('stranger'), 'unknown_topic', 'No such topic.')
    ingest.offer(publish('new'))
    const { batch } = await pump.next()
    expect(batch.messages).toBe(2)
    expect(batch.counts).toEqual({
      received: 11,
      repeated: 1,
      quarantined: 2,
      letGo: { qos0_overload: 5, presence: 1 },
    })
    balance(batch)
  })

  it('are of one append also when receipts run ahead of the clock into the next day', async () => {
    const midnight = Date.UTC(2026, 10, 21)
    const { ingest, pump } = await open({ newestReceivedAt: midnight + 5 })
    for (let index = 0; index < 50; index++) {
      ingest.offer(publish(`a${index}`, { receivedAt: midnight - 1_000 }))
      ingest.offerRefused(publish(`b${index}`, { receivedAt: midnight - 1_000 }), 'unknown_topic', 'No such topic.')
    }
    const { batch } = await pump.next()
    expect(batch.counts).toMatchObject({ received: 100, quarantined: 50 })
    balance(batch)
  })

  it('stay the same when the append is tried again, and what comes meanwhile goes with the next', async () => {
    const { ingest, pump } = await open()
    ingest.offer(publish('a'))
    ingest.letGo('presence', 1)
    const first = await pump.next()
    ingest.letGo('presence', 5)
    ingest.offer(publish('b'))
    await first.fail(FULL)
    const again = await pump.next()
    expect(again.batch).toBe(first.batch)
    expect(again.batch.counts).toEqual({ received: 2, repeated: 0, quarantined: 0, letGo: { presence: 1 } })
    await again.succeed()
    const { batch } = await pump.next()
    expect(batch.counts).toEqual({ received: 6, repeated: 0, quarantined: 0, letGo: { presence: 5 } })
  })

  it('bring some of the repetitions along to be listed, with why and their payload, and count all of them', async () => {
    const { ingest, pump } = await open()
    ingest.offer(door(1))
    const marked = door(1, { dup: true })
    ingest.offer(marked)
    marked.payload.fill(0)
    for (let connection = 2; connection < 102; connection++) ingest.offer(door(connection))
    const { batch } = await pump.next()
    expect(batch.counts).toMatchObject({ received: 102, repeated: 101 })
    expect(batch.repeated).toHaveLength(REPEATED_OF_BATCH_MAX)
    const listed = { receivedAt: NOW, device: 'd', topic: 'devices/d/telemetry', payload: Buffer.from(JSON_OF_DOOR) }
    expect(batch.repeated.slice(0, 2)).toEqual([
      { ...listed, why: 'dup' },
      { ...listed, why: 'other_connection' },
    ])
  })
})

describe('repetitions alone', () => {
  it('are acknowledged without an append, and counted by one within about a second', async () => {
    const { ingest, pump, settled } = await openWithSeconds()
    ingest.offer(door(1))
    await (await pump.next()).succeed()
    ingest.offer(door(2))
    await turn()
    await turn()
    expect(settled).toHaveLength(2)
    expect(pump.made).toBe(1)
    vi.advanceTimersByTime(1_000)
    const { batch } = await pump.next()
    expect(batch).toMatchObject({ messages: 0, readings: 0, refused: [] })
    expect(batch.lines).toHaveLength(0)
    expect(batch.counts).toEqual({ received: 1, repeated: 1, quarantined: 0, letGo: {} })
    expect(batch.repeated).toMatchObject([{ why: 'other_connection', device: 'd' }])
  })

  it('go with the next append when one comes before', async () => {
    const { ingest, pump } = await openWithSeconds()
    ingest.offer(door(1))
    await (await pump.next()).succeed()
    ingest.offer(door(2))
    await turn()
    ingest.offer(publish('new'))
    const append = await pump.next()
    expect(append.batch.counts).toEqual({ received: 2, repeated: 1, quarantined: 0, letGo: {} })
    await append.succeed()
    vi.advanceTimersByTime(5_000)
    await turn()
    expect(pump.made).toBe(2)
  })
})

describe('messages that were let go', () => {
  it('are counted by an append within about a second when nothing else comes, and nothing is appended for none', async () => {
    const { ingest, pump, settled } = await openWithSeconds()
    vi.advanceTimersByTime(5_000)
    ingest.letGo('presence', 7)
    vi.advanceTimersByTime(1_000)
    const append = await pump.next()
    expect(append.batch.counts).toEqual({ received: 7, repeated: 0, quarantined: 0, letGo: { presence: 7 } })
    await append.succeed()
    vi.advanceTimersByTime(5_000)
    await turn()
    expect([pump.made, settled, ingest.held]).toEqual([1, [], 0])
  })

  it('are counted once, in the end, while the log takes nothing', async () => {
    const { ingest, pump } = await openWithSeconds()
    ingest.letGo('qos0_overload', 1)
    vi.advanceTimersByTime(1_000)
    const first = await pump.next()
    for (let second = 0; second < 3; second++) {
      ingest.letGo('qos0_overload', 10)
      vi.advanceTimersByTime(1_000)
    }
    await first.fail(FULL)
    expect(ingest.stalled).toBe(true)
    const again = await pump.next()
    expect(again.batch).toBe(first.batch)
    await again.succeed()
    vi.advanceTimersByTime(1_000)
    expect((await pump.next()).batch.counts).toMatchObject({ received: 30, letGo: { qos0_overload: 30 } })
  })
})

describe('at the end', () => {
  it('what is counted and not yet in the log is appended once more', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(door(1))
    await (await pump.next()).succeed()
    ingest.offer(door(2))
    await turn()
    ingest.letGo('presence', 2)
    const closed = ingest.close()
    const append = await pump.next()
    expect(append.batch.counts).toEqual({ received: 3, repeated: 1, quarantined: 0, letGo: { presence: 2 } })
    await append.succeed()
    await closed
    expect([settled.length, pump.made]).toEqual([2, 2])
  })

  it('it is appended after the append in flight', async () => {
    const { ingest, pump } = await open()
    ingest.offer(publish('a'))
    const first = await pump.next()
    ingest.letGo('presence', 2)
    const closed = ingest.close()
    await first.succeed()
    const last = await pump.next()
    expect(last.batch.counts).toMatchObject({ received: 2, letGo: { presence: 2 } })
    await last.succeed()
    await closed
    expect(pump.underWayMax).toBe(1)
  })

  it('it is not appended over a batch of which nobody knows whether the log has it, nor tried twice', async () => {
    const { ingest, pump } = await open()
    ingest.offer(publish('a'))
    await (await pump.next()).fail(FULL)
    ingest.letGo('presence', 2)
    await ingest.close()
    expect(pump.made).toBe(1)

    const other = await open()
    other.ingest.letGo('presence', 2)
    const closed = other.ingest.close()
    await (await other.pump.next()).fail(FULL)
    await closed
    expect(other.pump.made).toBe(1)
    expect(other.log.lines).toEqual([expect.stringMatching(/^warn: the log did not take the last counts/)])
  })

  it('nothing is appended when nothing was counted', async () => {
    const { ingest, pump } = await open()
    await ingest.close()
    await pause(1)
    expect(pump.made).toBe(0)
  })
})

function door(connection: number, more: Partial<Publish<string>> = {}): Publish<string> {
  return { ...publish(`by ${connection}`, { json: JSON_OF_DOOR, connection }), ...more }
}

/** The second in which counts wait for an append is the test's to end. */
function openWithSeconds(): ReturnType<typeof open> {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  return open()
}
