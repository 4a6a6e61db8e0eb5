/** `/v1/stream` over real sockets: what is sent, how often, and what becomes of who does not read. */
import { once } from 'node:events'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import type { Space } from '../../space/space.ts'
import { ODD_DEVICE_IDS } from '../model/odd-ids.ts'
import { type Fixture, message, NOON, openFixture } from './api-fixture.ts'

let fixture: Fixture
const open: ClientRequest[] = []
beforeEach(async () => {
  fixture = await openFixture()
})
afterEach(async () => {
  for (const client of open.splice(0)) client.destroy()
  await fixture.close()
})

interface Event {
  readonly event: string
  readonly id: string
  readonly data: {
    readonly device: string
    readonly version: number
    readonly missed: number
    readonly rehydrating: boolean
  }
}

interface Stream {
  readonly response: IncomingMessage
  readonly events: Event[]
  text: string
  /** Resolves once `condition` holds of what has come. */
  until(condition: (stream: Stream) => boolean): Promise<void>
}

async function follow(query = '', headers: Record<string, string> = {}): Promise<Stream> {
  const client = request({
    host: '127.0.0.1',
    port: fixture.api.port,
    path: `/v1/stream${query}`,
    headers,
    agent: false,
  })
  open.push(client)
  client.on('error', () => {})
  client.end()
  const [response] = (await once(client, 'response')) as [IncomingMessage]
  let wake = () => {}
  const stream: Stream = { response, events: [], text: '', until }
  response.setEncoding('utf8')
  response.on('error', () => {})
  response.on('data', (chunk: string) => {
    stream.text += chunk
    const blocks = stream.text.split('\n\n').slice(0, -1)
    stream.events.splice(0, Number.POSITIVE_INFINITY, ...blocks.flatMap(parseEvent))
    wake()
  })
  return stream

  async function until(condition: (stream: Stream) => boolean): Promise<void> {
    while (!condition(stream)) {
      await new Promise<void>(resolve => {
        wake = resolve
      })
    }
  }
}

function parseEvent(block: string): Event[] {
  const fields = new Map(
    block.split('\n').map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]),
  )
  const data = fields.get('data')
  if (data === undefined) return []
  return [{ event: fields.get('event') ?? '', id: fields.get('id') ?? '', data: JSON.parse(data) }]
}

const devicesOf = ({ events }: Stream) => events.map(({ data }) => data.device)

test('the named devices are sent at once, and again when they change; others are not', async () => {
  await fixture.space.merge([message('a', NOON, { m: 1 }), message('b', NOON, { m: 1 }), message('c', NOON, { m: 1 })])
  const stream = await follow('?devices=a,b,unknown')
  expect(stream.response.headers).toMatchObject({
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  })
  await stream.until(({ events }) => events.length === 2)
  expect(devicesOf(stream)).toEqual(['a', 'b'])
  await fixture.space.merge([message('c', NOON + 1, { m: 2 })])
  await fixture.space.mergePresence([{ device: 'b', online: true, at: NOON + 2 }])
  await stream.until(({ events }) => events.length === 3)
  expect(stream.events[2]).toMatchObject({
    event: 'state',
    id: String(NOON),
    data: { device: 'b', online: true, version: (NOON + 2) * 1000 },
  })
  expect(devicesOf(stream)).toEqual(['a', 'b', 'b'])
})

test('devices are named with commas between them, or each by itself: then a comma is one of its characters', async () => {
  const ids = ['a', 'b', 'a,b', ...ODD_DEVICE_IDS]
  await fixture.space.merge(ids.map(device => message(device, NOON, { m: 1 })))
  const named = async (...given: string[]) => {
    const stream = await follow(`?${given.map(id => `devices=${encodeURIComponent(id)}`).join('&')}`)
    const expected = given.length > 1 ? new Set(given) : new Set(given.join().split(','))
    await stream.until(({ events }) => events.length === expected.size)
    expect(new Set(devicesOf(stream))).toEqual(expected)
  }
  await named('a,b')
  await named('a', 'b')
  await named('a,b', 'a,b')
  await named('a,b', 'a')
  await named(',', ',')
  // A URL has an end, too.
  for (let at = 0; at < ODD_DEVICE_IDS.length; at += 10) await named(...ODD_DEVICE_IDS.slice(at, at + 10))
})

test('a device that is named before it ever sent comes with its first reading', async () => {
  const stream = await follow('?devices=a')
  await stream.until(({ text }) => text.startsWith('retry: '))
  await fixture.space.merge([message('a', NOON, { m: 1 })])
  await stream.until(({ events }) => events.length === 1)
  expect(devicesOf(stream)).toEqual(['a'])
})

test('a stream of all devices has only changes, with the newest state however often they changed', async () => {
  await fixture.space.merge([message('quiet', NOON, { m: 1 })])
  const stream = await follow()
  for (let at = 1; at <= 1000; at++) await fixture.space.merge([message('busy', NOON + at, { m: at })])
  await stream.until(({ events }) => events.at(-1)?.data.version === (NOON + 1000) * 1000)
  expect(new Set(devicesOf(stream))).toEqual(new Set(['busy']))
  expect(stream.events.length).toBeLessThan(200)
})

test('a device that keeps changing is sent at most five times a second, and the last change is not lost', async () => {
  const stream = await follow('?devices=a')
  const started = performance.now()
  let at = 0
  while (performance.now() - started < 1000 || stream.events.length < 2) {
    await fixture.space.merge([message('a', NOON + ++at, { m: at })])
    await new Promise(resolve => setImmediate(resolve))
  }
  await stream.until(({ events }) => events.at(-1)?.data.version === (NOON + at) * 1000)
  expect(stream.events.length).toBeLessThanOrEqual(Math.ceil((performance.now() - started) / 200) + 2)
})

test('a client that comes back gets its devices anew, and for all devices is told of the gap', async () => {
  await fixture.space.merge([message('a', NOON, { m: 1 })])
  const named = await follow('?devices=a', { 'last-event-id': '17' })
  await named.until(({ events }) => events.length === 1)
  expect(named.events[0]).toMatchObject({ event: 'state', data: { device: 'a' } })
  const all = await follow('', { 'last-event-id': '17' })
  await all.until(({ events }) => events.length === 1)
  expect(all.events[0]).toMatchObject({ event: 'gap', data: { missed: 0 } })
})

test('more changes than a client can be told of become a gap, and the rest is still sent', async () => {
  const stream = await follow()
  await stream.until(({ text }) => text !== '')
  await fixture.space.merge(Array.from({ length: 6_000 }, (_, at) => message(`d${at}`, NOON, { m: 1 })))
  await stream.until(({ events }) => events.some(({ event }) => event === 'gap') && events.length >= 201)
  expect(stream.events.find(({ event }) => event === 'gap')?.data.missed).toBe(1_000)
  await stream.until(({ events }) => events.length >= 401)
  expect(new Set(devicesOf(stream)).size).toBe(stream.events.length)
})

test('a quiet stream is kept open by a comment each 15 s', async () => {
  const stream = await follow('?devices=a')
  await stream.until(({ text }) => text !== '')
  fixture.clock.now += 15_000
  await stream.until(({ text }) => text.includes('\n:\n\n'))
  expect(stream.text).toBe('retry: 2000\n\n:\n\n')
})

test('who is sent a state while it is being rebuilt is sent it again when it is whole', async () => {
  await fixture.close()
  fixture = await openFixture({ warm: false })
  await fixture.space.merge([message('a', NOON, { m: 1 })])
  const stream = await follow('?devices=a')
  await stream.until(({ events }) => events.length === 1)
  await (await fixture.space.claimRebuild())?.finish()
  await stream.until(({ events }) => events.length === 2)
  expect(stream.events.map(({ data }) => data.rehydrating)).toEqual([true, false])
})

test('who was sent a state while it was in doubt is sent it again, and for all devices is told of a gap, however short the doubt', async () => {
  const memory = openMemorySpace({ devicesMax: 10 })
  let inDoubt = false
  const space: Space = {
    ...memory,
    get warm() {
      return memory.warm && !inDoubt
    },
  }
  await fixture.close()
  fixture = await openFixture({ space })
  const [named, all] = [await follow('?devices=a'), await follow()]
  for (const stream of [named, all]) await stream.until(({ text }) => text.startsWith('retry: '))
  // Begins when a round reads, and has ended before the next one.
  space.getMany = async devices => {
    space.getMany = memory.getMany
    inDoubt = true
    setImmediate(() => {
      inDoubt = false
    })
    return memory.getMany(devices)
  }
  await memory.merge([message('a', NOON, { m: 1 })])
  for (const stream of [named, all]) await stream.until(({ events }) => events.length === 2)
  expect(named.events.map(({ data }) => data.rehydrating)).toEqual([true, false])
  expect(all.events[0]).toMatchObject({ event: 'state', data: { device: 'a', rehydrating: true } })
  expect(all.events[1]).toMatchObject({ event: 'gap', data: { missed: 0 } })
})

test('a space that is away is told once, and once when it is back, and nothing that changed meanwhile is lost', async () => {
  const memory = openMemorySpace({ devicesMax: 10 })
  let refusals = 0
  let isAway = true
  let refusedOften = () => {}
  const refused = new Promise<void>(resolve => {
    refusedOften = resolve
  })
  const getMany = (devices: readonly string[]) => {
    if (!isAway) return memory.getMany(devices)
    if (++refusals === 4) refusedOften()
    return Promise.reject(new SurgetankError('space_unavailable', 'It is away.'))
  }
  const space: Space = {
    ...memory,
    get warm() {
      return memory.warm
    },
    getMany,
  }
  const lines: string[] = []
  const log = pino({}, { write: line => lines.push(JSON.parse(line).msg) })
  await fixture.close()
  fixture = await openFixture({ space, log })
  await memory.merge([message('a', NOON, { m: 1 })])
  const stream = await follow('?devices=a')
  await refused
  isAway = false
  await stream.until(({ events }) => events.length === 1)
  await memory.merge([message('a', NOON + 1, { m: 2 })])
  await stream.until(({ events }) => events.at(-1)?.data.version === (NOON + 1) * 1000)
  expect(lines.filter(line => line.startsWith('the states for streams'))).toEqual([
    'the states for streams cannot be read; they are sent when they can be',
    'the states for streams can be read again',
  ])
})

test('a client that does not read holds up nobody, and is closed after 30 s', async () => {
  const values = Object.fromEntries(Array.from({ length: 500 }, (_, at) => [`metric-${at}`, 'x'.repeat(200)]))
  const ids = Array.from({ length: 200 }, (_, at) => `d${at}`)
  const frozen = connect({ host: '127.0.0.1', port: fixture.api.port })
  frozen.write('GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
  frozen.once('data', () => frozen.pause())
  await once(frozen, 'data')
  const reader = await follow('?devices=reader')
  let closed = false
  frozen.once('close', () => {
    closed = true
  })
  frozen.on('error', () => {})
  // Rounds of about 20 MB fill what the kernel holds for it; after that nothing more may be written to it.
  for (let round = 1; round <= 4; round++) {
    await fixture.space.merge(ids.map(device => message(device, NOON + round, values)))
    await fixture.space.merge([message('reader', NOON + round, { m: round })])
    await reader.until(({ events }) => events.at(-1)?.data.version === (NOON + round) * 1000)
  }
  fixture.clock.now += 29_000
  await fixture.space.merge([message('reader', NOON + 5, { m: 5 })])
  await reader.until(({ events }) => events.at(-1)?.data.version === (NOON + 5) * 1000)
  expect(closed).toBe(false)
  fixture.clock.now += 1_000
  // It reads what was left for it, and comes to the end that the server made.
  await fixture.space.merge([message('reader', NOON + 6, { m: 6 })])
  await reader.until(({ events }) => events.at(-1)?.data.version === (NOON + 6) * 1000)
  frozen.resume()
  await once(frozen, 'close')
  expect(closed).toBe(true)
})

test('of a hundred and one streams the last is told to come back, and a closed one makes room', async () => {
  const streams = await Promise.all(Array.from({ length: 100 }, () => follow()))
  const refused = await fixture.get('/v1/stream')
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
  expect(await refused.json()).toMatchObject({ code: 'busy' })
  streams[0]?.response.destroy()
  for (;;) {
    const again = await follow()
    if (again.response.statusCode === 200) break
  }
})

test.each([
  '?devices=',
  '?devices=a,,b',
  '?devices=a/b',
  '?devices=a&devices=',
  '?devices=a&devices=b%2B',
  '?devices=%E2%80%AE',
  `?devices=${Array(501).fill('a').join(',')}`,
  '?device=a',
])('%s is a 400', async query => {
  const answer = await fixture.get(`/v1/stream${query}`)
  expect(answer.status).toBe(400)
  expect(await answer.json()).toMatchObject({ code: 'invalid_request' })
})

test('closing the API ends its streams', async () => {
  const stream = await follow()
  const ended = once(stream.response, 'close')
  await fixture.api.close()
  await ended
})
