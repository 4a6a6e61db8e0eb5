import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import type { Publish } from '../../ingest/ingest.ts'
import { metrics } from '../../metrics.ts'
import { LINE_FORMAT, parseLines } from '../../model/message.ts'
import { isNewer } from '../../model/reading.ts'
import type { Batch } from '../../pump/pump.ts'
import { turn } from './hand-driven.ts'
import { balance, type Given, NOW, open, publish, receipts, values } from './open-ingest.ts'

const FULL = new SurgetankError('log_unavailable', 'The disk is full.')

describe('group commit', () => {
  it('settles a message only when the log has made it durable, and merges it into the space after that [G1]', async () => {
    const order: string[] = []
    const { ingest, pump, space } = await open({
      settled: held => order.push(...held),
      merge: () => order.push('merge'),
    })
    ingest.offer(publish('a'))
    const append = await pump.next()
    await turn()
    expect(order).toEqual([])
    expect(space.merged).toEqual([])
    expect(ingest.held).toBe(1)
    await append.succeed()
    expect(order).toEqual(['a', 'merge'])
    expect(space.merged).toEqual(parseLines(append.batch.lines.toString(), LINE_FORMAT))
    expect(ingest.held).toBe(0)
  })

  it('takes all that was offered in one turn in one append, in order of arrival', async () => {
    const { ingest, pump, settled } = await open()
    for (const held of ['a', 'b', 'c']) ingest.offer(publish(held))
    const append = await pump.next()
    expect(values(append.batch)).toEqual(['a', 'b', 'c'])
    expect(append.batch).toMatchObject({ readings: 3, firstReceivedAt: NOW, lastReceivedAt: NOW, refused: [] })
    await append.succeed()
    expect(settled).toEqual(['a', 'b', 'c'])
  })

  it('has one append under way, and fills the next meanwhile', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(publish('a'))
    const first = await pump.next()
    ingest.offer(publish('b'))
    await turn()
    ingest.offer(publish('c'))
    await turn()
    expect(pump.made).toBe(1)
    await first.succeed()
    const second = await pump.next()
    expect(values(second.batch)).toEqual(['b', 'c'])
    await second.succeed()
    expect(settled).toEqual(['a', 'b', 'c'])
    expect(pump.underWayMax).toBe(1)
  })

  it('gives each append lines of one UTC day', async () => {
    const { ingest, pump, settled } = await open()
    const midnight = Date.UTC(2026, 10, 21)
    ingest.offer(publish('a', { receivedAt: midnight - 2 }))
    ingest.offer(publish('b', { receivedAt: midnight - 1 }))
    ingest.offer(publish('c', { receivedAt: midnight }))
    const before = await pump.next()
    expect(values(before.batch)).toEqual(['a', 'b'])
    expect(before.batch).toMatchObject({ firstReceivedAt: midnight - 2, lastReceivedAt: midnight - 1 })
    await before.succeed()
    const after = await pump.next()
    expect(values(after.batch)).toEqual(['c'])
    expect(settled).toEqual(['a', 'b'])
    await after.succeed()
    expect(settled).toEqual(['a', 'b', 'c'])
  })

  it('says of an append the first and the last receipt of its lines, also when the clock was set back', async () => {
    const { ingest, pump } = await open()
    for (const receivedAt of [NOW, NOW - 500, NOW + 20]) ingest.offer(publish('a', { receivedAt }))
    const { batch } = await pump.next()
    expect(batch).toMatchObject({ firstReceivedAt: NOW, lastReceivedAt: NOW + 20 })
    expect(receipts(batch)).toEqual([NOW * 1000, NOW * 1000 + 1, (NOW + 20) * 1000])
  })

  it('gives no append more than a megabyte', async () => {
    const { ingest, pump } = await open()
    const text = 'x'.repeat(250)
    for (let index = 0; index < 9_000; index++) ingest.offer(publish(`${text}${index}`))
    let messages = 0
    while (messages < 9_000) {
      const append = await pump.next()
      expect(append.batch.lines.length).toBeLessThanOrEqual(1024 * 1024)
      messages += append.batch.messages
      await append.succeed()
    }
    // The first went out while the others were still being offered.
    expect(pump.made).toBe(4)
  })

  it('stores devices and metrics of any allowed name', async () => {
    const { ingest, pump, space } = await open()
    for (const device of ['__proto__', 'constructor', 'a:b.c-d_e']) {
      ingest.offer(publish('x', { device, json: '{"__proto__":1,"constructor":2}' }))
    }
    const append = await pump.next()
    await append.succeed()
    expect(space.merged.map(({ device }) => device)).toEqual(['__proto__', 'constructor', 'a:b.c-d_e'])
    expect(parseLines(append.batch.lines.toString(), LINE_FORMAT)).toEqual(space.merged)
  })
})

describe('a log that takes nothing', () => {
  it('is tried again with the very same batch until it does; nothing is lost, acknowledged or out of order [G1] [G5]', async () => {
    const { ingest, pump, settled, pressures, log } = await open()
    ingest.offer(publish('a'))
    const first = await pump.next()
    ingest.offer(publish('b'))
    await first.fail(FULL)
    expect([ingest.stalled, ingest.pressure]).toEqual([true, false])
    const second = await pump.next()
    expect(second.batch).toBe(first.batch)
    await second.fail(FULL)
    const third = await pump.next()
    expect(third.batch).toBe(first.batch)
    expect(settled).toEqual([])
    await third.succeed()
    expect(settled).toEqual(['a'])
    expect([ingest.stalled, ingest.pressure]).toEqual([false, false])
    await (await pump.next()).succeed()
    expect(settled).toEqual(['a', 'b'])
    expect(pressures).toEqual([])
    expect(log.lines.map(line => line.split(':')[0])).toEqual(['warn', 'info'])
  })

  it('tells when the oldest message was received that is not durable yet', async () => {
    const { ingest, pump } = await open()
    expect(ingest.oldestHeldAt).toBe(null)
    ingest.offer(publish('a', { receivedAt: NOW }))
    const first = await pump.next()
    ingest.offer(publish('b', { receivedAt: NOW + 5 }))
    expect(ingest.oldestHeldAt).toBe(NOW)
    await first.succeed()
    expect(ingest.oldestHeldAt).toBe(NOW + 5)
    await (await pump.next()).succeed()
    expect(ingest.oldestHeldAt).toBe(null)
  })

  it('is given up, unacknowledged and told, when the log can never take it again [G1]', async () => {
    const { ingest, pump, settled, failures } = await open()
    ingest.offer(publish('a'))
    ingest.offer(publish('b'))
    await (await pump.next()).fail(new SurgetankError('data_dir_in_use', 'another one wrote'))
    await turn()
    expect({ failures, settled, made: pump.made }).toEqual({ failures: ['data_dir_in_use'], settled: [], made: 1 })
  })

  it('is tried again after an error that nobody knows, and loudly', async () => {
    const { ingest, pump, settled, log } = await open()
    ingest.offer(publish('a'))
    await (await pump.next()).fail(new TypeError('a bug'))
    expect(ingest.stalled).toBe(true)
    expect(log.lines[0]).toMatch(/^error: /)
    await (await pump.next()).succeed()
    expect(settled).toEqual(['a'])
  })

  it('does not keep ingest from closing; what was not durable is never settled', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(publish('a'))
    await (await pump.next()).fail(FULL)
    await ingest.close()
    expect(settled).toEqual([])
    expect(pump.made).toBe(1)
  })

  it('may have reached the log: until it is known, and for good once ingest is closed, the space hears of it [G4]', async () => {
    const { ingest, pump, space } = await open()
    expect(space.unmergedAt()).toBe(null)
    ingest.offer(publish('a'))
    await (await pump.next()).fail(FULL)
    ingest.offer(publish('b', { receivedAt: NOW + 5 }))
    expect(space.unmergedAt()).toBe(NOW)
    await (await pump.next()).succeed()
    await (await pump.next()).succeed()
    expect(space.unmergedAt()).toBe(null)
    ingest.offer(publish('c', { receivedAt: NOW + 7 }))
    await (await pump.next()).fail(FULL)
    await ingest.close()
    expect(space.unmergedAt()).toBe(NOW + 7)
  })

  it('is awaited when it is just writing while ingest closes', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(publish('a'))
    const append = await pump.next()
    ingest.offer(publish('b'))
    const closed = ingest.close()
    await append.succeed()
    await closed
    expect(settled).toEqual(['a'])
    expect(pump.made).toBe(1)
  })
})

describe('a repetition', () => {
  const own = (held: string, more: Given & { ts?: number } = {}): Publish<string> => {
    const { ts = NOW - 1_000, ...given } = more
    return publish(held, { json: `{"ts":${ts},"values":{"v":1}}`, ...given })
  }

  it('is acknowledged in its place and stored once', async () => {
    const { ingest, pump, settled } = await open()
    const before = await total(metrics.repeated)
    ingest.offer(own('a'))
    ingest.offer(own('a again', { connection: 2 }))
    ingest.offer(own('b', { ts: NOW }))
    ingest.offer(own('a once more', { connection: 3 }))
    ingest.offer(own('a, marked', { dup: true }))
    const append = await pump.next()
    expect(append.batch.messages).toBe(2)
    expect(append.batch.readings).toBe(2)
    await append.succeed()
    expect(settled).toEqual(['a', 'a again', 'b', 'a once more', 'a, marked'])
    expect((await total(metrics.repeated)) - before).toBe(3)
  })

  it('is none of what its own connection sends with DUP=0: a door that opens, closes and opens in one second [G1]', async () => {
    const { ingest, pump, space } = await open()
    const door = (open: boolean) => publish('', { json: `{"ts":1795176000,"values":{"door":${open}}}` })
    for (const open of [true, false, true]) ingest.offer(door(open))
    const append = await pump.next()
    expect(values(append.batch)).toEqual([true, false, true])
    await append.succeed()
    // Of one time the last that was received is the newest.
    const last = space.merged.flatMap(({ readings }) => readings).reduce((a, b) => (isNewer(b, a) ? b : a))
    expect(last.value).toBe(true)
    expect(last).toBe(space.merged[2]?.readings[0])
  })

  it('is none of the same readings with another seq or id, or another time as it is written [G1]', async () => {
    const { ingest, pump } = await open()
    const payloads = [
      '{"ts":1795175999,"seq":1,"values":{"pulse":1}}',
      '{"ts":1795175999,"seq":2,"values":{"pulse":1}}',
      '{"ts":1795175999,"id":"a","values":{"pulse":1}}',
      '{"ts":1795175999000,"values":{"pulse":1}}',
      '{"ts":1795175999000000,"values":{"pulse":1}}',
      '{"ts":1795175999000200,"values":{"pulse":1}}',
      '{"ts":1795175999000400,"values":{"pulse":1}}',
      '{"ts":1795175999000400001,"values":{"pulse":1}}',
      '{"ts":1795175999000400002,"values":{"pulse":1}}',
      '{"ts":"2026-11-20T11:59:59Z","values":{"pulse":1}}',
    ]
    for (const [at, json] of payloads.entries()) ingest.offer(publish('new', { json, connection: at + 1 }))
    for (const json of payloads) ingest.offer(publish('again', { json, connection: 100 }))
    const { batch } = await pump.next()
    expect(batch.messages).toBe(payloads.length)
    expect(batch.counts).toMatchObject({ received: 2 * payloads.length, repeated: payloads.length })
  })

  it('is never acknowledged before what it repeats is durable [G1]', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(own('a'))
    const append = await pump.next()
    ingest.offer(own('a again', { dup: true }))
    await append.fail(FULL)
    expect(settled).toEqual([])
    await (await pump.next()).succeed()
    await turn()
    expect(settled).toEqual(['a', 'a again'])
    expect(pump.made).toBe(2)
  })

  it.each<[string, Given]>([
    ['with DUP=0', {}],
    ['with DUP=1', { dup: true, packet: 7 }],
  ])('is known after a restart, by the end of the log, %s', async (_, again) => {
    const before = await open()
    before.ingest.offer(own('a', { packet: 7 }))
    const append = await before.pump.next()
    await append.succeed()
    const after = await open({ tail: append.batch.lines.toString().split('\n') })
    after.ingest.offer(own('a again', again))
    await turn()
    await turn()
    expect(after.settled).toEqual(['a again'])
    expect(after.pump.made).toBe(0)
  })

  it('is known after an upgrade, by lines that count in ms', async () => {
    const tail = [`{"device":"d","receivedAt":${NOW},"readings":[["v",${NOW - 1_000},1]]}`]
    const { ingest, pump, settled } = await open({ tail, format: 1 })
    ingest.offer(own('a again'))
    await turn()
    await turn()
    expect([settled, pump.made]).toEqual([['a again'], 0])
  })

  it('alone holds up nothing that comes after it', async () => {
    const { ingest, pump, settled } = await open()
    ingest.offer(own('a'))
    await (await pump.next()).succeed()
    ingest.offer(own('a again', { connection: 2 }))
    await turn()
    expect(settled).toEqual(['a', 'a again'])
    for (const held of ['b', 'c']) {
      ingest.offer(publish(held))
      await (await pump.next()).succeed()
    }
    expect(settled).toEqual(['a', 'a again', 'b', 'c'])
  })

  it('is known of another unit, once ingest has caught up with the log', async () => {
    const before = await open()
    before.ingest.offer(own('a'))
    const { batch } = await before.pump.next()
    const { ingest, pump, settled } = await open()
    pump.byOthers.push(...batch.lines.toString().split('\n'))
    await Promise.all([ingest.catchUp(), ingest.catchUp()])
    ingest.offer(own('a again'))
    await turn()
    await turn()
    expect(settled).toEqual(['a again'])
    expect(pump.made).toBe(0)
  })

  it('is none of another device, of another time, or of readings without a time of their own', async () => {
    const { ingest, pump } = await open()
    let connection = 1
    const offer = (message: Publish<string>) => ingest.offer({ ...message, connection: connection++ })
    offer(own('a'))
    offer(own('b', { device: 'other' }))
    offer(own('c', { ts: NOW - 999 }))
    for (const held of ['d', 'e']) offer(publish(held, { json: '{"v":1}' }))
    for (const held of ['f', 'g']) offer(publish(held, { json: `[{"ts":${NOW},"values":{"v":1}},{"v":1}]` }))
    expect((await pump.next()).batch.messages).toBe(7)
  })

  it('is none of a message that was refused', async () => {
    const { ingest, pump, space } = await open()
    space.answer = 'too_many_metrics'
    ingest.offer(own('a'))
    space.answer = 'ok'
    ingest.offer(own('a again', { connection: 2 }))
    const { batch } = await pump.next()
    expect([batch.messages, batch.refused.length]).toEqual([1, 1])
  })
})

describe('a refused message', () => {
  it('is kept durably with its reason and its bytes, and settled in its place', async () => {
    const { ingest, pump, settled } = await open()
    const before = await total(metrics.quarantined, { reason: 'number_out_of_range' })
    const poison = publish('b', { json: '{"v":1e999}' })
    ingest.offer(publish('a'))
    ingest.offer(poison)
    ingest.offer(publish('c'))
    poison.payload.fill(0)
    const append = await pump.next()
    expect(values(append.batch)).toEqual(['a', 'c'])
    expect(append.batch.refused).toEqual([
      {
        receivedAt: NOW,
        device: 'd',
        topic: 'devices/d/telemetry',
        reason: 'number_out_of_range',
        detail: '"1e999" is beyond every double.',
        payload: Buffer.from('{"v":1e999}'),
      },
    ])
    await append.succeed()
    expect(settled).toEqual(['a', 'b', 'c'])
    expect((await total(metrics.quarantined, { reason: 'number_out_of_range' })) - before).toBe(1)
  })

  it('may be refused by the broker, with its own reason and without a device', async () => {
    const { ingest, pump, space, settled } = await open()
    ingest.offerRefused(publish('a', { device: '' }), 'unknown_topic', 'No such topic.')
    const append = await pump.next()
    expect(append.batch).toMatchObject({ messages: 0, readings: 0 })
    expect(append.batch.refused).toMatchObject([{ device: '', reason: 'unknown_topic', detail: 'No such topic.' }])
    await append.succeed()
    expect(settled).toEqual(['a'])
    expect(space.merged).toEqual([])
  })

  it.each(['too_many_metrics', 'too_many_devices'] as const)(
    'is one for which the space has no room: %s',
    async reason => {
      const { ingest, pump, space } = await open()
      space.answer = reason
      ingest.offer(publish('a', { json: '{"v":1,"w":2}' }))
      const { batch } = await pump.next()
      expect(batch.refused).toMatchObject([{ reason, payload: Buffer.from('{"v":1,"w":2}') }])
      expect(batch.messages).toBe(0)
    },
  )
})

describe('pressure', () => {
  it('begins at the bound on held bytes and ends below half of it [G5]', async () => {
    const { ingest, pump, pressures, settled } = await open({ heldBytesMax: 200_000 })
    let offered = 0
    const offer = () => ingest.offer(publish(`${'x'.repeat(200)}${offered++}`))
    for (let index = 0; index < 10; index++) offer()
    const first = await pump.next()
    while (!ingest.pressure) offer()
    expect(offered).toBeGreaterThan(200)
    expect(offered).toBeLessThan(300)
    expect(pressures).toEqual([true])
    await first.succeed()
    expect(ingest.pressure).toBe(true)
    await (await pump.next()).succeed()
    expect(ingest.pressure).toBe(false)
    expect(pressures).toEqual([true, false])
    expect(settled).toHaveLength(offered)
  })

  it('counts messages of no bytes at all: what stands for them takes memory, too [G5]', async () => {
    const { ingest } = await open({ heldBytesMax: 100_000 })
    for (let index = 0; index < 300; index++) ingest.offer(publish(`${index}`, { json: '' }))
    expect(ingest.pressure).toBe(true)
  })

  it('does not begin when the log does not answer, while there is room; but it is said [G5]', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const { ingest, pump, log } = await open()
    ingest.offer(publish('a'))
    const append = await pump.next()
    await vi.advanceTimersByTimeAsync(2_500)
    expect([ingest.stalled, ingest.pressure]).toEqual([true, false])
    expect(log.lines[0]).toMatch(/^warn: the log does not answer/)
    await append.succeed()
    expect([ingest.stalled, ingest.pressure]).toEqual([false, false])
  })

  it('counts the line of a small payload with long names', async () => {
    const { ingest } = await open({ heldBytesMax: 100_000 })
    const json = `{"${'n'.repeat(120)}":[${'0,'.repeat(998)}0]}`
    expect(json.length).toBeLessThan(3_000)
    ingest.offer(publish('a', { json }))
    expect(ingest.pressure).toBe(true)
  })
})

describe('drain', () => {
  it('resolves when all that was offered is settled', async () => {
    const { ingest, pump, settled } = await open()
    await ingest.drain(60_000)
    ingest.offer(publish('a'))
    const drained = ingest.drain(60_000)
    await (await pump.next()).succeed()
    await drained
    expect(settled).toEqual(['a'])
  })

  it('gives up waiting after the time given', async () => {
    const { ingest, settled } = await open()
    ingest.offer(publish('a'))
    await ingest.drain(20)
    expect(settled).toEqual([])
    expect(ingest.held).toBe(1)
  })
})

describe('a space that is away', () => {
  it('never holds an acknowledgement; it is counted, and logged when it goes and when it comes [G1]', async () => {
    const { ingest, pump, space, settled, log } = await open()
    const before = await total(metrics.mergeErrors)
    space.merging = () => Promise.reject(new Error('away'))
    for (const held of ['a', 'b']) {
      ingest.offer(publish(held))
      await (await pump.next()).succeed()
    }
    space.merging = async () => {}
    ingest.offer(publish('c'))
    await (await pump.next()).succeed()
    expect(settled).toEqual(['a', 'b', 'c'])
    expect((await total(metrics.mergeErrors)) - before).toBe(2)
    expect(log.lines.map(line => line.split(':')[0])).toEqual(['warn', 'info'])
  })

  it('has a bounded number of merges under way when it does not answer [G5]', async () => {
    let underWay = 0
    const { ingest, pump, space, settled } = await open()
    space.merging = () => {
      underWay++
      return new Promise(() => {})
    }
    for (let index = 0; index < 20; index++) {
      ingest.offer(publish(String(index)))
      await (await pump.next()).succeed()
    }
    expect(settled).toHaveLength(20)
    expect(underWay).toBe(16)
  })
})

it('whatever comes and however the log fails, all is settled once, in order, and durable by then [G1] [G5]', async () => {
  const step = fc.constantFrom('new', 'own', 'poison', 'next day', 'turn', 'fail')
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async steps => {
      const durable = new Set<string>()
      const settled: string[] = []
      let failures = 0
      const settle = (held: readonly string[]) => {
        expect(held.filter(one => !durable.has(one))).toEqual([])
        settled.push(...held)
      }
      const append = async (batch: Batch) => {
        await turn()
        if (failures-- > 0) throw FULL
        for (const value of values(batch)) durable.add(String(value))
        for (const { detail } of batch.refused) durable.add(detail)
        balance(batch)
      }
      const { ingest } = await open({ settled: settle, append })
      const offered: string[] = []
      let receivedAt = NOW
      for (const [index, what] of steps.entries()) {
        const name = what === 'own' ? 'own' : `${what} ${index}`
        if (what === 'new') ingest.offer(publish(name, { receivedAt }))
        else if (what === 'own') {
          const json = `{"ts":${NOW},"values":{"v":"own"}}`
          ingest.offer(publish(name, { json, receivedAt, connection: index + 1 }))
        } else if (what === 'poison') ingest.offerRefused(publish(name, { receivedAt }), 'unknown_topic', name)
        else if (what === 'next day') receivedAt += 86_400_000
        else if (what === 'fail') failures = 1
        else await turn()
        if (['new', 'own', 'poison'].includes(what)) offered.push(name)
      }
      await ingest.drain(10_000)
      expect(settled).toEqual(offered)
    }),
    { numRuns: 20 },
  )
})

async function total(metric: typeof metrics.repeated, labels: Record<string, string> = {}): Promise<number> {
  const { values } = await metric.get()
  return values
    .filter(value => Object.entries(labels).every(([name, label]) => value.labels[name] === label))
    .reduce((sum, { value }) => sum + value, 0)
}
