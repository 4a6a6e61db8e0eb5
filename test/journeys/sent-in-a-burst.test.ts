/**
 * What clients send that queue while they are offline, over MQTT into the log, the state, and a state rebuilt from the log:
 * several messages in one ms, a state that changes back within a second of the device's clock, and what is sent again.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openBrokerPart } from '../../manager/broker-part.ts'
import type { Message } from '../../model/message.ts'
import { LINE_FORMAT, parseLines } from '../../model/message.ts'
import type { Value } from '../../model/reading.ts'
import { openLmdbInlet } from '../../pump/lmdb-inlet.ts'
import { openLmdbView } from '../../pump/lmdb-view.ts'
import type { MessageBooks } from '../../pump/pump.ts'
import { readSettings } from '../../settings.ts'
import { openMemorySpace } from '../../space/memory-space.ts'
import type { Space } from '../../space/space.ts'
import { acknowledged, openClient, publishPacket, type RawClient } from '../broker/harness.ts'
import { SILENT } from '../space/redis-spaces.ts'
import { until } from '../waits.ts'

interface Unit {
  readonly port: number
  readonly space: Space
  stop(): Promise<void>
}

const DEVICES = 60
const used = new WeakMap<RawClient, number>()
let dir: string
let unit: Unit
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'surgetank-burst-'))
  unit = await startUnit()
})
afterEach(async () => {
  await unit.stop()
  await rm(dir, { recursive: true, force: true })
})

describe('a client that empties its queue', () => {
  it('is believed in what it sent last, of messages without a time and of the elements of a list [G4]', async () => {
    const client = await openClient(unit.port)
    for (let at = 0; at < DEVICES; at++) {
      const topic = `devices/d${at}/telemetry`
      send(client, topic, ['{"door":true,"n":30}', '{"door":false,"n":20}', '[{"t":30},{"t":20},{"t":25}]'])
    }
    await until(() => acknowledged(client).length === 3 * DEVICES)
    await client.close()
    await ended()
    for (let at = 0; at < DEVICES; at++) expect(await valuesOf(`d${at}`)).toEqual({ door: false, n: 20, t: 25 })
    await expectRebuilt()
  })

  it('keeps each state of one second, numbered or not, and each µs [G1] [G4]', async () => {
    const client = await openClient(unit.port)
    const [second, topic] = [Math.floor(Date.now() / 1000) - 10, 'devices/d0/telemetry']
    send(
      client,
      topic,
      [true, false, true].map(door => `{"ts":${second},"values":{"door":${door}}}`),
    )
    send(
      client,
      topic,
      [1, 2, 3].map(seq => `{"ts":${second},"seq":${seq},"values":{"pulse":1}}`),
    )
    send(
      client,
      topic,
      [0, 200, 400].map(us => `{"ts":${second}000${String(us).padStart(3, '0')},"values":{"sample":7}}`),
    )
    await until(() => acknowledged(client).length === 9)
    await client.close()
    const readings = (await stored()).flatMap(({ readings }) => readings)
    const count = (metric: string) => readings.filter(reading => reading.metric === metric).length
    expect(['door', 'pulse', 'sample'].map(count)).toEqual([3, 3, 3])
    const times = readings.filter(({ metric }) => metric === 'sample').map(({ ts }) => ts)
    expect(times).toEqual([0, 200, 400].map(us => second * 1_000_000 + us))
    expect(await valuesOf('d0')).toEqual({ door: true, pulse: 1, sample: 7 })
    await expectRebuilt()
  })

  it.each([
    ['with DUP=1', true],
    ['with DUP=0, as new sessions do', false],
  ])(
    'and sends its window again %s, also after a restart, is stored once, and its state is the last one [G2]',
    async (_, dup) => {
      const second = Math.floor(Date.now() / 1000) - 10
      const payloads = [true, false, true, false].map(door => `{"ts":${second},"values":{"door":${door}}}`)
      const first = await openClient(unit.port)
      send(first, 'devices/d0/telemetry', payloads)
      await until(() => acknowledged(first).length === 4)
      first.socket.destroy()
      for (let round = 0; round < 2; round++) {
        const again = await openClient(unit.port)
        send(again, 'devices/d0/telemetry', payloads, dup)
        // And one that it had not sent yet.
        again.send(publishPacket(100 + round, { topic: 'devices/d0/telemetry', payload: `{"round":${round}}` }))
        await until(() => acknowledged(again).length === 5)
        await again.close()
        await unit.stop()
        unit = await startUnit()
      }
      const readings = (await stored()).flatMap(({ readings }) => readings)
      expect(readings.filter(({ metric }) => metric === 'door').map(({ value }) => value)).toEqual([
        true,
        false,
        true,
        false,
      ])
      expect(readings.filter(({ metric }) => metric === 'round')).toHaveLength(2)
      const books = await messageBooks()
      expect(books).toMatchObject({ received: 14, accepted: 6, repeated: 8 })
    },
  )
})

describe('the books in messages [G7]', () => {
  it('hold every message that was received, when the process has stopped', async () => {
    const client = await openClient(unit.port)
    send(client, 'devices/d0/telemetry', ['{"a":1}', '{', '{"ts":1763640000,"values":{"a":1}}'])
    client.send(publishPacket(10, { topic: 'elsewhere', payload: 'x' }))
    client.send(publishPacket(11, { topic: 'devices/d0/status', payload: 'online' }))
    client.send(
      publishPacket(3, { topic: 'devices/d0/telemetry', payload: '{"ts":1763640000,"values":{"a":1}}', dup: true }),
    )
    await until(() => acknowledged(client).length === 6)
    await client.close()
    await ended()
    expect(await messageBooks()).toMatchObject({
      received: 6,
      accepted: 2,
      repeated: 1,
      quarantined: { waiting: 2, retried: 0, dropped: 0, evicted: 0 },
      letGo: { presence: 1 },
    })
    const view = await openLmdbView({ dir })
    expect(await view.repeated(10, null)).toMatchObject([{ device: 'd0', why: 'dup', topic: 'devices/d0/telemetry' }])
    await view.close()
  })
})

/** With packet identifiers that go on from those the client has used. */
function send(client: RawClient, topic: string, payloads: readonly string[], dup = false): void {
  const before = used.get(client) ?? 0
  for (const [at, payload] of payloads.entries()) client.send(publishPacket(before + at + 1, { topic, payload, dup }))
  used.set(client, before + payloads.length)
}

async function startUnit(): Promise<Unit> {
  const inlet = await openLmdbInlet({ dir, bytesMax: 256 << 20, keepHours: 24, quarantineBytesMax: 16 << 20 })
  const space = openMemorySpace({ devicesMax: 1_000 })
  const settings = { ...readSettings({}), SURGETANK_MQTT_PORT: 0 }
  const failed = (error: Error) => {
    throw error
  }
  const part = await openBrokerPart({ settings, inlet, space, sessions: null, sessionStore: null, log: SILENT, failed })
  let stopping: Promise<void> | null = null
  const stop = () => {
    stopping ??= part.drain().then(inlet.close)
    return stopping
  }
  return { port: part.port, space, stop }
}

/** All of it is in the log. The state stays readable. */
function ended(): Promise<void> {
  return unit.stop()
}

async function stored(): Promise<Message[]> {
  await ended()
  const view = await openLmdbView({ dir })
  const messages: Message[] = []
  for (let from = 0; ; ) {
    const chunks = await view.read(0, from, { chunksMax: 100, bytesMax: 1 << 20 })
    const last = chunks.at(-1)
    if (last === undefined) break
    for (const { lines, format } of chunks) {
      expect(format).toBe(LINE_FORMAT)
      messages.push(...parseLines(lines.toString(), format))
    }
    from = last.position + 1
  }
  await view.close()
  return messages
}

async function messageBooks(): Promise<MessageBooks> {
  await ended()
  const view = await openLmdbView({ dir })
  const { messages } = await view.books()
  await view.close()
  return messages
}

async function valuesOf(device: string): Promise<Record<string, Value>> {
  const metrics = (await unit.space.get(device))?.metrics ?? []
  return Object.fromEntries(metrics.map(({ metric, value }) => [metric, value]))
}

/** A state made from the log alone, in the wrong order, is the state. */
async function expectRebuilt(): Promise<void> {
  const rebuilt = openMemorySpace({ devicesMax: 1_000 })
  for (const message of (await stored()).toReversed()) await rebuilt.merge([message])
  const all = { after: null, limit: 1_000, search: null, online: null }
  const metricsOf = async (space: Space) => (await space.page(all)).map(({ device, metrics }) => ({ device, metrics }))
  expect(await metricsOf(rebuilt)).toEqual(await metricsOf(unit.space))
}
