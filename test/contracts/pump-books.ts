/** What every adapter of the pump promises of messages: they are counted [G7], and repetitions are listed. */
import { expect, it } from 'vitest'
import { differenceOf } from '../../pump/message-counts.ts'
import { type MessageBooks, type MessageCounts, REPEATED_OF_BATCH_MAX, type Repeated } from '../../pump/pump.ts'
import type { PumpHarness } from './pump-contract.ts'
import { batchOf, holdClaim, RECEIVED_AT, refusedOf } from './pump-samples.ts'

const ALL = { chunksMax: 1_000, bytesMax: 64 << 20 }
const NO_LINES = { firstReceivedAt: 0, lastReceivedAt: 0 }

/** `exact`: see `pumpContract`. */
export function countsMessages(harness: () => PumpHarness, exact: boolean): void {
  it('gives a chunk what its batch counted, and the books the sums [G7]', async () => {
    const inlet = await harness().openInlet()
    const first = { received: 6, repeated: 1, quarantined: 0, letGo: { qos0_overload: 2 } }
    await inlet.append(batchOf(0, 3, { counts: first }))
    const second = { received: 9, repeated: 2, quarantined: 1, letGo: { qos0_overload: 1, presence: 3 } }
    await inlet.append(batchOf(3, 2, { counts: second, refused: [refusedOf(1)] }))
    const view = await harness().openView()
    const chunks = await view.read(0, 0, ALL)
    expect(chunks.map(({ format, messages, counts }) => ({ format, messages, counts }))).toEqual([
      { format: 2, messages: 3, counts: first },
      { format: 2, messages: 2, counts: second },
    ])
    expect((await view.books()).messages).toEqual({
      since: null,
      received: 15,
      accepted: 5,
      repeated: 3,
      quarantined: { waiting: 1, retried: 0, dropped: 0, evicted: 0 },
      letGo: { qos0_overload: 3, presence: 3 },
    })
  })

  it('counts a batch without lines, which adds no line and holds up no claim', async () => {
    const inlet = await harness().openInlet()
    const counts = (repeated: number): MessageCounts => ({
      received: repeated + 1,
      ...{ repeated, quarantined: 0, letGo: { presence: 1 } },
    })
    await inlet.append(batchOf(0, 0, { counts: counts(4), ...NO_LINES }))
    await inlet.append(batchOf(0, 5))
    await inlet.append(batchOf(0, 0, { counts: counts(2), ...NO_LINES }))
    await inlet.append(batchOf(0, 0, { refused: [refusedOf(1)], ...NO_LINES }))
    const view = await harness().openView()
    const sums = { received: 14, accepted: 5, repeated: 6, letGo: { presence: 2 } }
    expect((await view.books()).messages).toMatchObject({ ...sums, quarantined: { waiting: 1 } })
    const held = await holdClaim(await harness().openOutlet())
    const end = await held.claim.ends()
    const lines = (await held.claim.read(0, ALL)).filter(({ messages }) => messages > 0)
    expect(lines.map(({ messages }) => messages)).toEqual([5])
    await held.claim.commit(end, null)
    const after = await view.books()
    expect(after.messages).toMatchObject({ ...sums, quarantined: { waiting: 1 } })
    expect(after.partitions[0]).toMatchObject({ readingsAppended: 5, readingsCommitted: 5, oldestUnwrittenAt: null })
    expect((await view.lag()).readings).toBe(0)
    expect((await inlet.tail(1_000)).map(({ messages }) => messages)).toEqual([5])
    await held.end()
  })

  it('goes on with the sums after inlet and claim are opened again', async () => {
    for (let life = 0; life < 3; life++) {
      const inlet = await harness().openInlet()
      for (let i = 0; i < 4; i++) {
        const counts = { received: 5, repeated: 1, quarantined: 1, letGo: { presence: 1 } }
        await inlet.append(batchOf(life * 8 + i * 2, 2, { counts, refused: [refusedOf(i)] }))
      }
      const held = await holdClaim(await harness().openOutlet())
      await held.claim.commit(life * 4 + 2, null)
      await held.end()
      await inlet.close()
    }
    const { messages } = await (await harness().openView()).books()
    expect(messages).toMatchObject({ since: null, received: 60, accepted: 24, repeated: 12, letGo: { presence: 12 } })
    expect(differenceOf(sumsOf(messages))).toBe(0)
  })

  it('knows the newest receipt of all that it held, as soon as it is open', async () => {
    const inlet = await harness().openInlet()
    expect(inlet.newestReceivedAt).toBe(0)
    await inlet.append(batchOf(100, 10))
    await inlet.append(batchOf(0, 10))
    await inlet.append(batchOf(0, 0, { refused: [refusedOf(1)], ...NO_LINES }))
    expect(inlet.newestReceivedAt).toBe(RECEIVED_AT + 110)
    await inlet.close()
    expect((await harness().openInlet()).newestReceivedAt).toBe(RECEIVED_AT + 110)
  })

  it('never gives an inlet what it appended itself as appended by others', async () => {
    const inlet = await harness().openInlet()
    await inlet.append(batchOf(0, 5))
    expect(await othersOf(inlet)).toEqual([])
    await inlet.append(batchOf(5, 5))
    expect(await othersOf(inlet)).toEqual([])
  })

  it('lists repetitions, the newest first, of all devices or of one, each with the beginning of its payload', async () => {
    const inlet = await harness().openInlet()
    const view = await harness().openView()
    expect(await view.repeated(10, null)).toEqual([])
    const batches = [[repeatedOf(1), repeatedOf(2)], [repeatedOf(3, 100_000)]]
    for (const [number, repeated] of batches.entries()) {
      const counts = { received: repeated.length, repeated: repeated.length, quarantined: 0, letGo: {} }
      await inlet.append(batchOf(number, 0, { counts, repeated, ...NO_LINES }))
      // A log in Kafka does not let an append wait for the list.
      await expect.poll(async () => (await view.repeated(1, null))[0]?.receivedAt).toBe(repeated.at(-1)?.receivedAt)
    }
    const listed = await view.repeated(10, null)
    expect(listed.map(({ topic }) => topic)).toEqual(['number/3', 'number/2', 'number/1'])
    const { payload, ...about } = repeatedOf(3, 100_000)
    expect(listed[0]).toMatchObject({ ...about, payloadBytes: 100_000 })
    expect(Buffer.from(listed[0]?.payload ?? [])).toEqual(Buffer.from(payload.subarray(0, 4_096)))
    expect((await view.repeated(2, null)).map(({ topic }) => topic)).toEqual(['number/3', 'number/2'])
    expect((await view.repeated(10, 'press-0')).map(({ topic }) => topic)).toEqual(['number/2'])
    expect(await view.repeated(10, 'no such device')).toEqual([])
  })

  it.each([
    ['lists more repetitions than it may', { repeated: Array(REPEATED_OF_BATCH_MAX + 1).fill(repeatedOf(1)) }],
    ['lets messages go for a reason that is no fixed word', { counts: countsFor('of a device!') }],
  ])('refuses a batch that %s', async (_what, more) => {
    const inlet = await harness().openInlet()
    await expect(inlet.append(batchOf(0, 1, more))).rejects.toThrow(RangeError)
    await inlet.append(batchOf(0, 1))
    expect((await (await harness().openView()).books()).messages.received).toBe(1)
  })

  if (exact)
    it('keeps the newest repetitions only, in number and in bytes, and counts them all', async () => {
      const inlet = await harness().openInlet()
      const view = await harness().openView()
      const append = async (from: number, bytes: number) => {
        const repeated = Array.from({ length: REPEATED_OF_BATCH_MAX }, (_, i) => repeatedOf(from + i, bytes))
        const counts = { received: repeated.length, repeated: repeated.length, quarantined: 0, letGo: {} }
        await inlet.append(batchOf(0, 0, { counts, repeated, ...NO_LINES }))
      }
      for (let i = 0; i < 20; i++) await append(i * REPEATED_OF_BATCH_MAX, 20)
      const small = await view.repeated(10_000, null)
      expect(small).toHaveLength(1_000)
      expect(small[0]).toMatchObject({ topic: 'number/1279' })
      for (let i = 20; i < 40; i++) await append(i * REPEATED_OF_BATCH_MAX, 10_000)
      const large = await view.repeated(10_000, null)
      expect(large.length).toBeLessThanOrEqual((4 << 20) / 4_096)
      expect(large.length).toBeGreaterThan(300)
      expect(large.at(-1)).toMatchObject({ topic: `number/${2_560 - large.length}` })
      expect((await view.books()).messages).toMatchObject({ received: 2_560, repeated: 2_560 })
    })
}

function sumsOf({ received, accepted, repeated, quarantined, letGo }: MessageBooks) {
  const { waiting, retried, dropped, evicted } = quarantined
  return { received, accepted, repeated, quarantined: waiting + retried + dropped + evicted, letGo }
}

export async function othersOf(inlet: Awaited<ReturnType<PumpHarness['openInlet']>>): Promise<string[]> {
  const lines: string[] = []
  for await (const chunks of inlet.appendedByOthers()) {
    for (const chunk of chunks) lines.push(...chunk.lines.toString().split('\n'))
  }
  return lines
}

function repeatedOf(number: number, bytes = 20): Repeated {
  const payload = Buffer.alloc(bytes, number & 255)
  const why = number % 2 === 0 ? 'dup' : 'other_connection'
  return { receivedAt: RECEIVED_AT + number, device: `press-${number % 2}`, topic: `number/${number}`, why, payload }
}

function countsFor(reason: string): MessageCounts {
  return { received: 2, repeated: 0, quarantined: 0, letGo: { [reason]: 1 } }
}
